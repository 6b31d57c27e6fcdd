from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.errors import ConfigError, DigestMismatch, NotFound, SourceError
from noria.ledger.store import Ledger
from noria.profiles.build import build_profile
from noria.profiles.records import Profile
from noria.records import Version, sha256_hex
from noria.registry.formats import dump_estimator, load_scorer
from noria.registry.matrix import encode
from noria.registry.records import Input, Signature
from noria.registry.store import Registry
from noria.storage.contract import blob_key
from noria.storage.opening import open_storage

SIGNATURE = Signature(
    (
        Input("weight", "number"),
        Input("depot", "category", ("north", "south")),
        Input("depot__late_rate", "feature"),
    ),
    "late",
)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "weight": pa.array(rng.exponential(5, 2_000), mask=rng.random(2_000) < 0.1),
            "depot": rng.choice(["north", "south"], 2_000),
            "depot__late_rate": rng.random(2_000),
        }
    )


@pytest.fixture(scope="module")
def matrix(rows: pa.Table) -> Any:
    return encode(SIGNATURE, rows)


@pytest.fixture(scope="module")
def booster(matrix: Any) -> lightgbm.Booster:
    late = np.nan_to_num(matrix[:, 0]) + matrix[:, 2] > 5
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 7}
    return lightgbm.train(params, lightgbm.Dataset(matrix, late), num_boost_round=5)


@pytest.fixture(scope="module")
def profile(matrix: Any) -> Profile:
    columns = {name: matrix[:, number] for number, name in enumerate(SIGNATURE.names)}
    return build_profile(columns, window_rows=500)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    ledger = Ledger(
        Database.open(f"sqlite:///{tmp_path / 'noria.db'}"),
        clock=ReplayClock(datetime(2013, 4, 1, tzinfo=UTC)),
    )
    return Registry(ledger, open_storage(str(tmp_path / "storage")))


def register(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile, **named: Any
) -> Version:
    model_format, data = dump_estimator(booster)
    some = rows.slice(100, 50)
    given = {
        "model_bytes": data,
        "format": model_format,
        "signature": SIGNATURE,
        "profile": profile,
        "samples": some.append_column("late", pa.array(booster.predict(encode(SIGNATURE, some)))),
        "metrics": {"auc": 0.75},
    }
    return registry.register("late_parcel", **(given | named))


def test_a_version_is_found_loaded_and_scores_as_the_model_that_was_registered(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, matrix: Any, profile: Profile
) -> None:
    version = register(registry, booster, rows, profile, facts={"why": "first"})
    assert registry.get("late_parcel") == registry.get("late_parcel:1") == version
    model = registry.load(version)
    assert np.array_equal(model.score(matrix), booster.predict(matrix))
    assert np.array_equal(model.score_rows(rows), booster.predict(matrix))
    assert model.score(matrix[:0]).shape == (0,)
    assert model.profile == profile
    assert model.sample_error() == 0
    assert model.samples.num_rows == 50
    summary = registry.list_models()[0]
    assert (summary.ref, summary.metrics, summary.facts) == ("late_parcel:1", {"auc": 0.75}, {"why": "first"})
    shown = registry.show(version)
    assert shown.signature == SIGNATURE
    assert shown.model == summary
    assert set(shown.profile) == set(SIGNATURE.names)
    assert sha256_hex(booster.model_to_string().encode()) == shown.parts["model"].sha256


def test_a_row_scores_alike_alone_and_among_others(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, matrix: Any, profile: Profile
) -> None:
    model = registry.load(register(registry, booster, rows, profile))
    alone = [model.score(matrix[number : number + 1])[0] for number in range(20)]
    assert alone == model.score(matrix)[:20].tolist()


def test_the_same_content_is_the_same_version_and_any_other_is_the_next(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile
) -> None:
    first = register(registry, booster, rows, profile)
    chunks = pa.concat_tables([rows.slice(0, 120), rows.slice(120)])
    assert register(registry, booster, chunks, profile) == first
    assert register(registry, booster, rows, profile, metrics={"auc": 0.76}).number == 2
    assert register(registry, booster, rows, profile, facts={"drill": True}).number == 3


@pytest.mark.parametrize("part", ["manifest", "model", "profile", "samples"])
def test_a_changed_part_is_found_at_load(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile, tmp_path: Path, part: str
) -> None:
    version = register(registry, booster, rows, profile)
    parts = registry.read_manifest(version).parts
    sha256 = version.sha256 if part == "manifest" else parts[part].sha256
    path = tmp_path / "storage" / blob_key(sha256)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatch, match=sha256[:16]):
        registry.load(version)
    path.unlink()
    with pytest.raises(NotFound):
        registry.load(version)


def test_samples_that_the_model_does_not_score_so_are_refused(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile
) -> None:
    some = rows.slice(0, 5)
    for scores, said in [
        ([0.5] * 5, "scores otherwise"),
        ([1.5] * 5, "outside 0 to 1"),
        ([None] * 5, "outside"),
    ]:
        with pytest.raises(ConfigError, match=said):
            samples = some.append_column("late", pa.array(scores, pa.float64()))
            register(registry, booster, rows, profile, samples=samples)
    with pytest.raises(ConfigError, match="need rows"):
        register(registry, booster, rows, profile, samples=some)
    assert registry.list_models() == []


def test_an_unknown_version_says_what_exists(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile
) -> None:
    version = register(registry, booster, rows, profile)
    with pytest.raises(NotFound, match="late_parcel"):
        registry.get("late_parcle")
    with pytest.raises(NotFound, match="late_parcel:1"):
        registry.get("late_parcel:9")
    with pytest.raises(ValueError, match="environment"):
        registry.get("late_parcel@production")
    with pytest.raises(ValueError, match=r"wants \(n, 3\)"):
        registry.load(version).score(np.zeros((2, 4)))


def test_a_category_is_its_place_in_the_vocabulary_and_all_else_is_missing() -> None:
    table = pa.table(
        {
            "weight": [1, None, 3],
            "depot": ["south", "moon", None],
            "depot__late_rate": [True, False, None],
            "more": [0] * 3,
        }
    )
    found = encode(SIGNATURE, table, rows=np.array([2, 0, 1]))
    nan = float("nan")
    np.testing.assert_array_equal(found, [[3, nan, nan], [1, 1, 1], [nan, nan, 0]])
    dictionary = table.set_column(1, "depot", table.column("depot").dictionary_encode())
    np.testing.assert_array_equal(encode(SIGNATURE, dictionary), encode(SIGNATURE, table))
    with pytest.raises(SourceError, match="missing: weight"):
        encode(SIGNATURE, table.drop(["weight"]))


def test_a_signature_names_each_column_once() -> None:
    with pytest.raises(ConfigError, match="repeat in the signature: a"):
        Signature((Input("a", "number"), Input("a", "feature")), "late")
    with pytest.raises(ConfigError, match="input as well"):
        Signature((Input("late", "number"),), "late")
    with pytest.raises(ConfigError, match="no categories"):
        Input("a", "number", ("x",))
    with pytest.raises(ConfigError, match="at least one"):
        Signature((), "late")


def test_what_is_no_model_or_not_to_be_trusted_is_refused(matrix: Any) -> None:
    late = np.nan_to_num(matrix[:, 0]) > 5
    with pytest.raises(ConfigError, match="cannot be registered"):
        dump_estimator(object())
    with pytest.raises(ConfigError, match="wanted 0 and 1, fitted"):
        dump_estimator(LogisticRegression())
    with pytest.raises(ConfigError, match="wanted 0 and 1"):
        dump_estimator(LogisticRegression().fit(np.nan_to_num(matrix), np.where(late, "yes", "no")))
    three = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    with pytest.raises(ConfigError, match="3 scores per row"):
        dump_estimator(
            lightgbm.train(three, lightgbm.Dataset(matrix, np.arange(2_000) % 3), num_boost_round=1)
        )
    with pytest.raises(ConfigError, match="no skops archive"):
        load_scorer("skops", b"nothing")
    with pytest.raises(ConfigError, match="no LightGBM text"):
        load_scorer("lightgbm", b"nothing")


class Home(LogisticRegression):  # type: ignore[misc]
    """A type of the project's own: the loader would have to run its code."""


def test_a_type_of_ones_own_is_not_stored(matrix: Any) -> None:
    fitted = Home().fit(np.nan_to_num(matrix), np.nan_to_num(matrix[:, 0]) > 5)
    with pytest.raises(ConfigError, match="Home; only types of scikit-learn"):
        dump_estimator(fitted)
