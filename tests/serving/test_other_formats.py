"""A worker's route with models of XGBoost and in ONNX."""

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xgboost
from tests.registry.test_more_formats import WIDTH, network
from tests.serving.conftest import Trained, route

from noria.registry.formats import dump_estimator, load_scorer
from noria.serving.formats.scorers import Rows
from noria.serving.models import RouteRefusedError, load_route
from noria.serving.records import Input, Samples, ServedModel

INPUTS = tuple(Input(name=f"x{each}", kind="number") for each in range(WIDTH))


def served(trained: Trained, folder: Path, model: object, version: int) -> ServedModel:
    kind, data = dump_estimator(model)
    path = folder / f"{version}.model"
    path.write_bytes(data)
    rows = np.random.default_rng(version).normal(size=(8, WIDTH))
    scores = load_scorer(kind, data)(rows)
    return msgspec.structs.replace(
        replace(trained, path=path).served(version, inputs=INPUTS, views=()),
        format=kind,
        digest=hashlib.sha256(data).hexdigest(),
        samples=Samples(matrix=rows.tobytes(), scores=scores.tobytes()),
    )


def test_a_route_of_several_formats_is_verified_and_scores(first: Trained, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, WIDTH))
    trees = xgboost.XGBClassifier(n_estimators=5).fit(x, (x[:, 0] > 0).astype(int))
    models = [
        served(first, tmp_path, each, number) for number, each in enumerate((trees, network("two")), start=1)
    ]
    loaded = load_route(route(1, *models), folder=tmp_path)
    np.testing.assert_array_equal(
        loaded.models["late_arrival:1"].scorer.predict(Rows(x))[0],
        trees.predict_proba(x)[:, 1].astype(np.float64),
    )
    assert loaded.models["late_arrival:2"].scorer.columns == WIDTH

    wrong = msgspec.structs.replace(models[0], inputs=INPUTS[:2])
    with pytest.raises(RouteRefusedError, match=f"takes {WIDTH} columns, its signature has 2"):
        load_route(route(2, wrong), folder=tmp_path)
    odd = msgspec.structs.replace(models[0], format="pickle")
    with pytest.raises(RouteRefusedError, match="'pickle' are not served; there is lightgbm, xgboost"):
        load_route(route(3, odd), folder=tmp_path)
    swapped = msgspec.structs.replace(models[0], format="onnx")
    with pytest.raises(RouteRefusedError, match="onnxruntime does not load the model"):
        load_route(route(4, swapped), folder=tmp_path)
