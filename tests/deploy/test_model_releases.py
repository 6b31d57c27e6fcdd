"""Releases of versions that noria trained: what they say, and that they have the digests that they had."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from tests.registry import test_model_versions as versions
from tests.registry.test_model_versions import register

from noria.deploy.model_releases import release_model
from noria.deploy.releases import read_release
from noria.errors import ConfigError
from noria.profiles.records import Profile
from noria.records import Version, digest_of
from noria.registry.formats import dump_estimator
from noria.registry.matrix import encode
from noria.registry.records import Input, Signature
from noria.registry.store import Registry
from noria.serving.formats.scorers import Rows, open_scorer
from noria.serving.records import Samples, ServedModel
from noria.workspace.endpoints import stored_samples

booster, matrix, profile = versions.booster, versions.matrix, versions.profile  # fixtures
registry, rows = versions.registry, versions.rows
PLAIN = Signature((Input("weight", "number"), Input("depot", "category", ("north", "south"))), "late")
INPUTS = [
    {"name": "weight", "kind": "number", "categories": [], "unseen": "nan"},
    {"name": "depot", "kind": "category", "categories": ["north", "south"], "unseen": "nan"},
]


def kept(registry: Registry, profile: Profile, model: Any, samples: pa.Table, scores: Any) -> Version:
    format, data = dump_estimator(model)
    return registry.register(
        "late_parcel", model_bytes=data, format=format, signature=PLAIN, profile=profile, metrics={},
        samples=samples.append_column("late", pa.array(scores)),
    )  # fmt: skip


def test_a_release_of_trees_says_what_it_said_before_there_was_more(
    registry: Registry,
    rows: pa.Table,
    profile: Profile,
) -> None:
    import lightgbm

    x = encode(PLAIN, rows)
    made = lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(x, x[:, 1]), 2)
    some = rows.slice(0, 5)
    version = kept(registry, profile, made, some, made.predict(encode(PLAIN, some)))
    release = release_model(registry._ledger, registry, version)
    told: dict[str, Any] = {
        "model": version.id, "model_ref": "late_parcel:1", "model_digest": version.sha256,
        "file_digest": registry.show(version).parts["model"].sha256, "format": "lightgbm", "inputs": INPUTS,
        "views": [], "view_digests": {}, "threshold": None, "refit_of": None, "code": "none",
        "code_diff": None, "runtime": "none",
    }  # fmt: skip
    assert release.facts == told
    assert release.sha256 == digest_of(told)
    assert release_model(registry._ledger, registry, version) == release


def test_features_need_the_training_that_says_of_which_views(
    registry: Registry,
    booster: Any,
    rows: pa.Table,
    profile: Profile,
) -> None:
    version = register(registry, booster, rows, profile)
    with pytest.raises(
        ConfigError, match=r"reads features \(depot__late_rate\), and the project declares no"
    ):
        release_model(registry._ledger, registry, version)


@pytest.mark.parametrize(
    ("estimator", "format"),
    [
        (HistGradientBoostingClassifier(max_iter=3), "compiled"),
        (KNeighborsClassifier(n_neighbors=2), "skops"),
    ],
)
def test_estimators_of_scikit_learn_are_released_compiled_where_they_can_be(
    registry: Registry,
    rows: pa.Table,
    profile: Profile,
    estimator: Any,
    format: str,
) -> None:
    x = np.nan_to_num(encode(PLAIN, rows))
    model = estimator.fit(x, (x[:, 0] > 5).astype(int))
    some = rows.select(["weight", "depot"]).filter(pc.is_valid(rows["weight"])).slice(0, 20)
    version = kept(registry, profile, model, some, model.predict_proba(encode(PLAIN, some))[:, 1])
    release = read_release(release_model(registry._ledger, registry, version))
    assert release.format == format
    data = registry._storage.get(release.file_digest)
    served = ServedModel(
        release="r:1", model="late_parcel", version=1, digest=release.file_digest, path="",
        inputs=release.inputs, samples=Samples(matrix=b"", scores=b""), format=release.format,
    )  # fmt: skip
    scorer = open_scorer(served, data, folder=registry._storage.fetch(release.file_digest).parent)
    samples = stored_samples(registry, version)
    x = np.frombuffer(samples.matrix).reshape(-1, 2)
    wanted = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(np.asarray(scorer.predict(Rows(x))[0], dtype=np.float64), wanted, rtol=1e-9)
    np.testing.assert_allclose(np.frombuffer(samples.scores), wanted, rtol=1e-9)
