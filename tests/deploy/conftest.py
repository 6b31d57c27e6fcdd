"""A small real model, and routes to it."""

import hashlib
from collections.abc import Callable

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from noria.serving.records import Input, Route, RouteEntry, Samples, ServedModel


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(400, 2))
    labels = (matrix.sum(axis=1) > 0).astype(float)
    params = {"objective": "binary", "num_leaves": 4, "num_threads": 1, "verbosity": -1}
    booster = lgb.train(params, lgb.Dataset(matrix, labels, params={"verbosity": -1}), 5)
    path = tmp_path_factory.mktemp("models") / "model.txt"
    path.write_text(booster.model_to_string())
    scores = np.asarray(booster.predict(matrix[:8]))
    return ServedModel(
        release="late:1",
        model="late",
        version=1,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        inputs=(Input(name="x", kind="number"), Input(name="y", kind="number")),
        samples=Samples(matrix=matrix[:8].tobytes(), scores=scores.tobytes()),
    )


@pytest.fixture(scope="session")
def make_route(served_model: ServedModel) -> Callable[..., Route]:
    def make(number: int, deployment: str = "late", **changed: object) -> Route:
        named = msgspec.structs.replace(
            served_model,
            release=f"{deployment}:{number}",
            model=deployment,
            version=number,
            **changed,
        )
        return Route(
            environment="production",
            deployment=deployment,
            number=number,
            id=f"route-{number}",
            entries=(RouteEntry(release=named.release),),
            models=(named,),
        )

    return make
