"""Sample rows of model versions written anew: what has to go from them goes, and the model stays as it is.

The manifest that was recorded stays in the storage, as it holds no row; the version is read by its newest
one, which an event `redacted` names. Fitted parameters are not touched: what a model has learned of a row it
still knows.
"""

from collections.abc import Iterator
from contextlib import suppress

import msgspec
import numpy as np
import pyarrow as pa

from noria.errors import ConfigError, DigestMismatch, NotFound
from noria.ledger.redacted import REDACTED, expected_digest, record_redacted
from noria.ledger.store import Ledger
from noria.records import Version, canonical_json
from noria.registry.records import ModelManifest, Part, is_folder
from noria.registry.store import LoadedModel, Registry, sample_bytes
from noria.storage.contract import Storage

__all__ = ["drop_old_samples", "parts_of_models", "put_samples", "scored"]


def scored(model: LoadedModel, rows: pa.Table) -> pa.Table:
    """Give rows as samples of a model: all columns of those it has, and the scores that it gives."""
    inputs = rows.select([name for name in model.samples.column_names if name != model.signature.output])
    return inputs.append_column(model.signature.output, pa.array(np.asarray(model.score_rows(inputs))))


def put_samples(
    registry: Registry,
    ledger: Ledger,
    storage: Storage,
    version: Version,
    samples: pa.Table,
    *,
    why: str,
    cause: str | None,
) -> bool:
    """Let a model version have these samples from now on; False if it has.

    Parameters
    ----------
    samples
        At least one row, with the scores that the model gives under the signature's output.
    """
    if not samples.num_rows:
        raise ConfigError(f"the samples of {version.ref} need a row: a worker verifies the model by them")
    manifest = registry.read_manifest(version)
    data = sample_bytes(samples, manifest.signature)
    part = Part(storage.put(data), len(data))
    new = msgspec.structs.replace(manifest, parts={**manifest.parts, "samples": part})
    return record_redacted(ledger, version, storage.put(canonical_json(new)), why=why, cause=cause)


def drop_old_samples(registry: Registry, ledger: Ledger, storage: Storage) -> int:
    """Remove the samples that model versions had before others took their place; give how many there were."""
    models = ledger.list_versions(kind="model")
    old = {sha256 for each in models for sha256 in _before(ledger, storage, each)}
    return sum(storage.remove(sha256) for sha256 in sorted(old - parts_of_models(registry, ledger)))


def parts_of_models(registry: Registry, ledger: Ledger) -> set[str]:
    """Give the digests of all parts of all model versions; one whose manifest is gone has none."""
    found: set[str] = set()
    for each in ledger.list_versions(kind="model"):
        if is_folder(each):
            continue  # its files are artifacts
        with suppress(NotFound, DigestMismatch):
            found |= {part.sha256 for part in registry.read_manifest(each).parts.values()}
    return found


def _before(ledger: Ledger, storage: Storage, version: Version) -> Iterator[str]:
    if expected_digest(ledger, version) == version.sha256:
        return
    for event in ledger.list_events(verb=REDACTED, subject=version.name):
        if event.payload["version"] == version.id:
            try:
                manifest = msgspec.json.decode(storage.get(event.payload["old"]), type=ModelManifest)
            except NotFound:
                continue  # nobody knows by now what it named
            yield manifest.parts["samples"].sha256
