"""Every digest of a trace, computed again from what is stored now."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
from sqlalchemy import Table, text

from noria.audit.provenance import read_content
from noria.audit.records import DigestLine, FileLine, RawRows, Trace, VersionLine
from noria.audit.tables import Tables
from noria.deploy.releases import Release
from noria.errors import DigestMismatch, NoriaError, NotFound, StoreError
from noria.features.declarations import ViewSpec
from noria.lake.store import Lake
from noria.ledger.redacted import expected_digest
from noria.ledger.rows import event_digest, row_digest, row_key
from noria.ledger.store import Ledger
from noria.ledger.tables import events, pointers, runs, versions
from noria.records import digest_of, sha256_hex
from noria.training.declarations import Training

__all__ = ["digest_lines"]

_FACTS = "sha256 of the canonical JSON of the version's facts"
_BLOB = "sha256 of the bytes in the storage"
_FILE = "sha256 of the file's bytes; its name holds it"
_DATASET = "sha256 over the schema and the sorted sha256 of the version's files"
_EVENT = "sha256 of the canonical JSON of the event without its digest; it holds that of the event before"
_ROW = "sha256 of the canonical JSON of the ledger's row; the event that made the row holds it"
_ROWS = "sha256 of JSON lines: the columns' names, then an array per row, ordered by event and key"
_SET = "sha256 over signature, ids, instants, inputs and labels; `verify_trace` makes the set again"
_SPEC = "sha256 of the canonical JSON of the view's definition"


def digest_lines(
    trace: Trace,
    *,
    ledger: Ledger,
    lake: Lake,
    tables: Tables,
    raw: Sequence[RawRows],
    trainings: Mapping[str, Training] | None = None,
) -> tuple[DigestLine, ...]:
    """Compute the digests of a trace again.

    Parameters
    ----------
    tables
        Of the prediction's instant.
    raw
        The raw rows, read again.
    trainings
        Given: training sets are made again as well, which takes seconds.
    """
    lines = [
        *_of_deployment(trace, ledger),
        *_of_model(trace, ledger),
        *_of_data(trace, ledger, lake, tables, raw),
        *_of_training_sets(trace, ledger, lake, trainings),
        *_of_ledger(trace, ledger),
    ]
    return tuple({(line.what, line.sha256): line for line in lines}.values())


def _line(what: str, sha256: str, how: str, compute: Callable[[], str]) -> DigestLine:
    try:
        found = compute()
    except DigestMismatch as error:
        return DigestLine(
            what=what, sha256=sha256, how=how, recomputed=error.found, ok=False, problem=str(error)
        )
    except (NoriaError, OSError, msgspec.MsgspecError, pa.ArrowException) as error:
        return DigestLine(what=what, sha256=sha256, how=how, recomputed=None, ok=False, problem=str(error))
    return DigestLine(what=what, sha256=sha256, how=how, recomputed=found, ok=found == sha256)


def _of_deployment(trace: Trace, ledger: Ledger) -> Iterator[DigestLine]:
    def facts(line: VersionLine) -> Callable[[], str]:
        return lambda: digest_of(ledger.get_version_by_id(line.id).facts)

    route, release = trace.route.version, trace.release.version
    yield _line(
        f"route {route.ref}, as the prediction names it", trace.prediction.route, _FACTS, facts(route)
    )
    yield _line(f"route {route.ref}", route.sha256, _FACTS, facts(route))
    yield _line(f"release {release.ref}", release.sha256, _FACTS, facts(release))
    specs = _specs(ledger, trace)
    for view in trace.release.views:
        yield _line(f"feature view {view.name}", view.sha256, _SPEC, partial(_spec_digest, specs, view.name))


def _spec_digest(specs: Mapping[str, ViewSpec], name: str) -> str:
    if name not in specs:
        raise NotFound("feature view", name, specs)
    return specs[name].digest


def _specs(ledger: Ledger, trace: Trace) -> Mapping[str, ViewSpec]:
    content = read_content(ledger.get_version_by_id(trace.release.version.id), Release)
    return {spec.name: spec for spec in content.views}


def _of_model(trace: Trace, ledger: Ledger) -> Iterator[DigestLine]:
    def blob(sha256: str) -> Callable[[], str]:
        return lambda: _hash_blob(ledger, sha256)

    def one(what: str, sha256: str) -> DigestLine:
        return _line(what, sha256, _BLOB, blob(sha256))

    manifest = expected_digest(ledger, ledger.get_version_by_id(trace.model.id))
    yield one(f"model {trace.model.ref}, its manifest", manifest)
    for name, sha256 in trace.parts.items():
        yield one(f"model {trace.model.ref}, its {name}", sha256)
    yield one("the file that the release loads", trace.release.file_digest)
    for code_diff, runtime, whose in (
        (trace.release.code_diff, trace.release.runtime, "the release"),
        *((run.code_diff, run.runtime, f"train run {run.id}") for run in trace.runs),
    ):
        if code_diff is not None:
            yield one(f"uncommitted changes to the code of {whose}", code_diff)
        if runtime != "none":
            yield one(f"the distributions that {whose} used", runtime)


def _hash_blob(ledger: Ledger, sha256: str) -> str:
    if ledger.storage is None:
        raise StoreError("this ledger has no storage")
    return sha256_hex(ledger.storage.get(sha256))


def _of_data(
    trace: Trace, ledger: Ledger, lake: Lake, tables: Tables, raw: Sequence[RawRows]
) -> Iterator[DigestLine]:
    spine = trace.spine
    read = [each.version for each in trace.raw] + ([spine.version] if spine else [])
    inputs = [each for run in trace.runs for each in run.inputs]
    for version in {each.id: each for each in (*read, *inputs) if each is not None}.values():
        if version.kind == "dataset":
            yield _of_dataset(version, ledger, lake)
    again = {each.view: each for each in raw}
    for each in trace.raw:
        if each.sha256 is not None:
            what = f"{each.count} raw rows of view {each.view}"
            yield _line(what, each.sha256, _ROWS, partial(_rows_again, again, each.view))
    for file in _files(trace):
        yield _line(
            f"file {file.table}/{file.path[:24]}…", file.sha256, _FILE, partial(_hash_file, tables, file)
        )


def _of_dataset(version: VersionLine, ledger: Ledger, lake: Lake) -> DigestLine:
    name = version.ref.rpartition(":")[0]

    def compute() -> str:
        return lake.version_digest(name, ledger.get_version_by_id(version.id))

    wanted = version.sha256
    with suppress(NotFound):  # the line says then what is wrong; of one that was redacted it is another
        wanted = expected_digest(ledger, ledger.get_version_by_id(version.id))
    return _line(f"dataset {version.ref}", wanted, _DATASET, compute)


def _of_training_sets(
    trace: Trace, ledger: Ledger, lake: Lake, trainings: Mapping[str, Training] | None
) -> Iterator[DigestLine]:
    for version in (each for run in trace.runs for each in run.inputs if each.kind == "training_set"):
        training = (trainings or {}).get(version.ref.rpartition(":")[0])
        what = f"training set {version.ref}"
        wanted = expected_digest(ledger, ledger.get_version_by_id(version.id))
        if training is None:
            yield DigestLine(what=what, sha256=wanted, how=_SET, recomputed=None, ok=None)
        else:
            yield _line(what, wanted, _SET, partial(_hash_set, training, version, lake))


def _hash_set(training: Training, version: VersionLine, lake: Lake) -> str:
    from noria.audit.training_sets import training_set_digest

    return training_set_digest(training, version.facts, lake)


def _files(trace: Trace) -> Iterator[FileLine]:
    single = [trace.prediction.file, trace.outcome.file if trace.outcome else None]
    single.append(trace.spine.file if trace.spine else None)
    several = [file for each in trace.raw for file in each.files]
    files = [each for each in (*single, *several) if each is not None]
    yield from {(each.table, each.path): each for each in files}.values()


def _hash_file(tables: Tables, file: FileLine) -> str:
    return tables.any(file.table).hash_file(file.path)


def _rows_again(again: Mapping[str, RawRows], view: str) -> str:
    found = again[view]
    if found.sha256 is None:
        raise StoreError(found.problem or "they cannot be read")
    return found.sha256


def _of_ledger(trace: Trace, ledger: Ledger) -> Iterator[DigestLine]:
    named = [(each.event, each.digest, each.verb) for each in trace.verdicts]
    if trace.route.event is not None and trace.route.event_digest is not None:
        named.append((trace.route.event, trace.route.event_digest, "pointer.moved"))
    for event, digest, verb in named:
        yield _line(f"event {event} ({verb})", digest, _EVENT, partial(_hash_event, ledger, event))
    found = [trace.route.version, trace.release.version, trace.model]
    found += [each for run in trace.runs for each in run.inputs]
    found += [each.version for each in trace.raw if each.version is not None]
    for version in {each.id: each for each in found}.values():
        yield _covered(ledger, versions, version.id, {"id": version.id})
    for run in trace.runs:
        yield _covered(ledger, runs, f"run/{run.id}", {"id": run.id})
    if trace.route.number is not None:
        place = {"environment": trace.prediction.environment, "name": trace.prediction.deployment}
        key = {"scope": ledger.scope, **place, "number": trace.route.number}
        yield _covered(ledger, pointers, f"{place['environment']}/{place['name']}", key)


def _covered(ledger: Ledger, table: Table, subject: str, key: Mapping[str, Any]) -> DigestLine:
    """Hold a row of the ledger against the digest in the newest event that left it there."""
    row = _raw_row(ledger, table, key)
    what = f"{table.name}/{'/'.join(str(each) for name, each in key.items() if name != 'scope')}"
    if row is None:
        return DigestLine(
            what=f"ledger row {what}", sha256="", how=_ROW, recomputed=None, ok=False, problem="it is gone"
        )
    name = row_key(table, row)
    told = ledger.list_events(subject=subject, newest_first=True)
    recorded = next((each.rows[name] for each in told if name in each.rows), "")
    return _line(f"ledger row {name}", recorded, _ROW, lambda: row_digest(table, row))


def _hash_event(ledger: Ledger, id: str) -> str:
    scope, _, seq = id.rpartition(":")
    row = _raw_row(ledger, events, {"scope": scope, "seq": int(seq)})
    if row is None:
        raise NotFound("event", id)
    return event_digest(row)


def _raw_row(ledger: Ledger, table: Table, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give a row as the driver has it: a decoded value could hide a changed one."""
    where = " and ".join(f"{name} = :{name}" for name in key)
    with ledger.database.read() as connection:
        row = (
            connection.execute(text(f"SELECT * FROM {table.name} WHERE {where}"), dict(key))
            .mappings()
            .first()
        )
        return None if row is None else dict(row)
