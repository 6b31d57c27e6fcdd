"""Samples of a model version are written anew: the version reads them, and the old ones are gone."""

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from tests.registry.test_model_versions import SIGNATURE, booster, matrix, profile, register, registry, rows

from noria.errors import ConfigError, NotFound
from noria.ledger.redacted import expected_digest
from noria.profiles.records import Profile
from noria.registry.forgetting import drop_old_samples, put_samples, scored
from noria.registry.store import Registry

__all__ = ["booster", "matrix", "profile", "registry", "rows"]  # fixtures


def put(registry: Registry, version: Any, samples: pa.Table) -> bool:
    ledger, storage = registry._ledger, registry._storage
    return put_samples(registry, ledger, storage, version, samples, why="asked for", cause=None)


def test_a_version_has_other_samples_and_is_else_as_it_was(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile
) -> None:
    version = register(registry, booster, rows, profile)
    other = register(registry, booster, rows, profile, metrics={"auc": 0.5})  # names the same samples
    before = registry.load(version)
    old = before.manifest.parts["samples"].sha256
    assert put(registry, version, before.samples.slice(0, 7))
    assert not put(registry, version, before.samples.slice(0, 7))
    after = registry.load(version)
    assert after.samples.equals(before.samples.slice(0, 7))
    assert after.sample_error() == 0
    assert after.manifest.parts["model"] == before.manifest.parts["model"]
    ledger, storage = registry._ledger, registry._storage
    event = ledger.list_events(verb="redacted")[0]
    assert event.payload["old"] == version.sha256
    assert event.payload["new"] == expected_digest(ledger, version)
    assert expected_digest(ledger, other) == other.sha256
    assert drop_old_samples(registry, ledger, storage) == 0  # the other one still reads them
    put(registry, other, before.samples.slice(3, 4))
    assert drop_old_samples(registry, ledger, storage) == 1
    with pytest.raises(NotFound):
        storage.get(old)
    assert registry.load(version).samples.num_rows == 7
    assert ledger.verify().ok


def test_other_rows_can_take_their_place_and_none_cannot(
    registry: Registry, booster: lightgbm.Booster, rows: pa.Table, profile: Profile
) -> None:
    version = register(registry, booster, rows, profile)
    loaded = registry.load(version)
    put(registry, version, scored(loaded, rows.slice(1_500, 3)))
    again = registry.load(version)
    assert again.samples.select(list(SIGNATURE.names)).equals(
        rows.slice(1_500, 3).select(list(SIGNATURE.names))
    )
    assert np.array_equal(again.encoded_samples()[1], again.score(again.encoded_samples()[0]))
    with pytest.raises(ConfigError, match="need a row"):
        put(registry, version, again.samples.slice(0, 0))
