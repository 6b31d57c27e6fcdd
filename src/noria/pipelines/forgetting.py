"""Kept results of steps that are to go for good, with their bytes, because of what they were made from.

Bytes go first, what names them afterwards: where a kill comes in between, a result is kept whose bytes are
not there, and its step runs again when it is needed, as it does after all of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import delete, select

from noria.ledger.redacted import expected_digest, record_redacted
from noria.ledger.store import Ledger
from noria.ledger.tables import versions
from noria.pipelines.kept import KeptRow, read_kept
from noria.pipelines.pruning import refuse_while_at_work
from noria.pipelines.store import PipelineStore
from noria.pipelines.tables import run_logs, step_cache, step_values
from noria.pipelines.trees import INLINE_BYTES, Stored, stored_in
from noria.pipelines.words import Words
from noria.records import Version, sha256_hex
from noria.storage.contract import Storage

__all__ = ["ForgottenResults", "forget_in_logs", "forget_results"]

_AT_ONCE = 500


class ForgottenResults(msgspec.Struct, frozen=True, kw_only=True):
    """Results that went, or would.

    Attributes
    ----------
    results
        How many were kept.
    values, blobs
        Small values of the database, and blobs of the storage, that nothing else names.
    versions
        Of kind `output`, of which nothing is left since.
    """

    results: int
    values: int
    blobs: int
    versions: tuple[Version, ...]


def forget_results(
    ledger: Ledger,
    storage: Storage,
    made: Mapping[str, Version | None],
    *,
    why: str,
    cause: str | None,
    named: Collection[str] = (),
    dry_run: bool = False,
) -> ForgottenResults:
    """Forget what steps made, for good.

    Parameters
    ----------
    made
        Run of a step -> none, and id of a version of kind `output` -> the version.
    named
        Digests that something else than results and versions names, such as parts of models: they stay.
    dry_run
        Only tell.

    Raises
    ------
    Conflict
        If a pipeline is at work: it may be about to read them.
    """
    if not dry_run:
        ledger.mark_killed()
    outputs = {each.id: each for each in made.values() if each is not None}
    with ledger.database.read() as connection:
        kept = list(read_kept(connection))
    gone = [row for row in kept if _is_made(row, made)]
    going = {row.key for row in gone}
    parts = {part.sha256: part for row in gone for part in stored_in(row.entry.output)}
    stay = {part.sha256 for row in kept if row.key not in going for part in stored_in(row.entry.output)}
    with ledger.database.read() as connection:
        stay |= {*named, *_named_by_versions(connection, parts, set(outputs))}
    loose = {sha256: part for sha256, part in parts.items() if sha256 not in stay}
    told = ForgottenResults(
        results=len(gone),
        values=sum(each.is_small for each in loose.values()),
        blobs=sum(not each.is_small for each in loose.values()),
        versions=tuple(each for each in outputs.values() if expected_digest(ledger, each)),
    )
    if not dry_run and gone:
        refuse_while_at_work(ledger)
        _remove(
            ledger, storage, gone, loose.values(), payload={"results": len(gone), "reason": why}, cause=cause
        )
    if not dry_run:
        for each in told.versions:
            record_redacted(ledger, each, "", why=why, cause=cause)
    return told


def _is_made(row: KeptRow, made: Collection[str]) -> bool:
    return row.entry.run in made or any(each in made for each in row.entry.versions.values())


def _named_by_versions(connection: Any, parts: Iterable[str], besides: set[str]) -> Iterator[str]:
    left = iter(parts)
    while some := list(islice(left, _AT_ONCE)):
        query = select(versions.c.id, versions.c.sha256).where(versions.c.sha256.in_(some))
        yield from (sha256 for id, sha256 in connection.execute(query) if id not in besides)


def _remove(
    ledger: Ledger,
    storage: Storage,
    gone: Iterable[KeptRow],
    loose: Iterable[Stored],
    *,
    payload: Mapping[str, Any],
    cause: str | None,
) -> None:
    small = [each.sha256 for each in loose if each.is_small]
    for each in loose:
        if not each.is_small:
            storage.remove(each.sha256)
    with ledger.database.write() as connection:
        for row in gone:
            connection.execute(
                delete(step_cache).where(step_cache.c.scope == row.scope, step_cache.c.key == row.key)
            )
        for sha256 in small:
            connection.execute(delete(step_values).where(step_values.c.sha256 == sha256))
        ledger.append("results.forgotten", payload=payload, cause=cause)


def forget_in_logs(
    ledger: Ledger, storage: Storage, runs: Collection[str], texts: Collection[str], *, dry_run: bool = False
) -> int:
    """Put `[forgotten]` in the place of texts in what steps have printed; give how many logs had one.

    Parameters
    ----------
    runs
        Of steps.
    texts
        As they stand in the log, as words of it.
    dry_run
        Only count.
    """
    store = PipelineStore(ledger.database, ledger.scope)
    changed, words = 0, Words(texts)
    for run in runs:
        found = store.find_log(run)
        if found is None:
            continue
        sha256, size = found
        data = store.values([sha256]).get(sha256) if size <= INLINE_BYTES else None
        if data is None:
            if not storage.exists(sha256):
                continue
            data = storage.get(sha256)
        read = data.decode("utf-8", "surrogateescape")
        clean = words.replaced(read, "[forgotten]").encode("utf-8", "surrogateescape")
        if clean == data:
            continue
        changed += 1
        if not dry_run:
            new, is_small = sha256_hex(clean), len(clean) <= INLINE_BYTES
            if not is_small:
                storage.put(clean)
            store.put_logs([(run, new, len(clean), clean if is_small else None)])
            _drop_log(ledger, storage, sha256, size)
    return changed


def _drop_log(ledger: Ledger, storage: Storage, sha256: str, size: int) -> None:
    """Remove the bytes of a log, unless another run has printed the same."""
    with ledger.database.write() as connection:
        if connection.execute(select(run_logs.c.run).where(run_logs.c.sha256 == sha256)).first() is None:
            connection.execute(delete(step_values).where(step_values.c.sha256 == sha256))
            if size > INLINE_BYTES:  # a smaller one of the storage is something else that says the same
                storage.remove(sha256)
