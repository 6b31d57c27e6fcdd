"""Rows of a subject taken out for good: of the table, of its rejected rows, and of every older version.

In this order, so that whatever is killed, the same call completes it; and again, until no file is left to
write, as another process may have written rows of the subject into other files meanwhile:

1. every file that ever was part of the table and is still there is searched; what is left of those with rows
   of the subject is written beside them;
2. the table's redactions say from now on which file is read in the place of which (`noria.lake.redactions`);
3. one commit brings the newest state of the table to the new files;
4. bounds of the old files, which may be values of the subject, are taken out of the log, and older
   checkpoints, which repeat them, are removed once there is a new one; a mark says that this is done;
5. the ledger gets an event `redacted` for every version that reads otherwise now: its old and new digest;
6. the old files are removed.

A version on record stays readable by its number and gives what is left; its digest is the redacted one. Files
that were written by killed batches and never landed are not searched: a vacuum removes them.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.checks.verdicts import row_json
from noria.errors import ConfigError, StoreError
from noria.lake import log
from noria.lake.data_files import PARQUET, DataFile, rewritten_stem
from noria.lake.delta import Table
from noria.lake.maintenance import recorded_versions
from noria.lake.row_files import RowFiles
from noria.lake.rowsql import Flags
from noria.ledger.store import Ledger
from noria.records import Version, canonical_json

__all__ = ["Forgotten", "Subject", "expected_digest", "forget", "names_of"]

_ATTEMPTS = 50
_REDACTED = "redacted"
_ESCAPES = ("\\", '""')  # text that has one may hold a value in another spelling
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was taken out.

    Attributes
    ----------
    rows
        Rows of the table as it was when it was asked for.
    rejected
        Rejected rows.
    files
        Files that were written anew or removed, those of older versions among them.
    versions
        The versions that read otherwise now.
    """

    rows: int
    rejected: int
    files: int
    versions: tuple[Version, ...]


class Subject:
    """Rows in which a column has one of some values."""

    def __init__(self, column: str, values: Iterable[Any]) -> None:
        self.column = column
        self.values = list(dict.fromkeys(values))
        if not self.values or any(each is None for each in self.values):
            raise ConfigError(f"forgetting by {column!r} wants at least one value, and none that is missing")
        texts = [_text(each) for each in self.values]
        self._texts = {each for each in texts if each}
        self._tokens = sorted(self._texts | {row_json({"": each})[5:-2] for each in self._texts})

    def want_type(self, kind: pa.DataType) -> None:
        """Raise `ConfigError` if a value is not of the column's type: no row could have it."""
        for each in self.values:
            if _scalar(each, kind) is None:
                raise ConfigError(
                    f"forgetting by {self.column!r}: the column is {kind}, and {type(each).__name__} was "
                    f"given, which is no value of it; give values of type {kind}"
                )

    def in_column(self, rows: pa.Table, names: Sequence[str]) -> Flags:
        """Say which rows are the subject's, by any name that the column ever had."""
        flags = np.zeros(rows.num_rows, dtype=bool)
        for name in names:
            column = rows[name]
            flags |= np.asarray(pc.is_in(column, self._of_type(column.type)).fill_null(False))
        return flags

    def in_payload(self, rows: pa.Table, names: Sequence[str]) -> Flags:
        """Say which rejected rows are the subject's: by their column, or by their text."""
        payloads = rows["payload"]
        maybe = np.zeros(rows.num_rows, dtype=bool)
        for each in (*self._tokens, *_ESCAPES):
            maybe |= np.asarray(pc.match_substring(payloads, pattern=each).fill_null(False))
        for place in np.flatnonzero(maybe):
            maybe[place] = self._is_in_text(payloads[int(place)].as_py(), names)
        return maybe

    def _is_in_text(self, payload: str, names: Sequence[str]) -> bool:
        try:
            found = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict) and any(each in found for each in names):
            held = [found[each] for each in names if each in found]
            return any(each in self.values or _text(each) in self._texts for each in held)
        return any(_holds_word(text, each) for text in _readings(payload) for each in self._texts)

    def _of_type(self, kind: pa.DataType) -> pa.Array:
        """Give the values that an older, narrower type of the column can hold too."""
        fitting = [found for each in self.values if (found := _scalar(each, kind)) is not None]
        return pa.array([each.as_py() for each in fitting], kind)


def forget(
    table: Table,
    subject: Subject,
    ledger: Ledger | None,
    *,
    names: Sequence[str],
    rejected: bool,
    facts: Callable[[int], dict[str, Any]],
    commit: Callable[[Sequence[DataFile], Sequence[DataFile], int, dict[str, Any]], bool],
) -> Forgotten:
    """Take a subject's rows out of one table, until no other process has put any into another file.

    Parameters
    ----------
    names
        Every name that the column ever had.
    rejected
        The table holds rejected rows: their payload is searched.
    facts
        Gives what the commit keeps, of how many rows go.
    commit
        Takes files to add and to remove, the version upon which that holds, and facts; False if another
        commit came first.
    """
    searched: set[str] = set()
    rows, files, versions = 0, 0, dict[str, Version]()
    for attempt in range(_ATTEMPTS):
        table.refresh()
        gone = _redact(table, subject, names, searched, rejected=rejected)
        if attempt and not gone:
            return Forgotten(
                0 if rejected else rows, rows if rejected else 0, files, tuple(versions.values())
            )
        files += len(gone)
        went, changed = _complete(table, ledger, gone, facts=facts, commit=commit)
        rows += went
        versions |= {each.id: each for each in changed}
    raise _others_all_the_time(table)


def _redact(
    table: Table, subject: Subject, names: Sequence[str], searched: set[str], *, rejected: bool
) -> dict[str, int]:
    """Write what is left of every file that has rows of a subject, and say that it is read from now on.

    Gives the files that were written anew, and how many rows of each went.
    """
    for _ in range(_ATTEMPTS):
        replaced, gone = _written_anew(table, subject, names, searched, rejected=rejected)
        if not replaced or table.redactions.add(replaced):
            return gone
        searched.difference_update(replaced)
        _drop_unread(table, [each for new in replaced.values() for each in new])
    raise _others_all_the_time(table)


def _drop_unread(table: Table, files: Iterable[DataFile]) -> None:
    """Remove what was written in the place of a file for which another process was faster."""
    for each in files:
        if each.path not in table.redactions.targets:
            table.store.delete(f"{table.name}/{each.path}")


def _others_all_the_time(table: Table) -> StoreError:
    return StoreError(f"{table.uri}: others change it all the time; stop them, and forget again")


def _written_anew(
    table: Table, subject: Subject, names: Sequence[str], searched: set[str], *, rejected: bool
) -> tuple[dict[str, Sequence[DataFile]], dict[str, int]]:
    replaced: dict[str, Sequence[DataFile]] = {}
    gone: dict[str, int] = {}
    table.redactions.refresh()
    ever = {
        path for commit in log.commits(table.store, table.name, last=table.version) for path in commit.added
    }
    there = {each.path: each.size_bytes for each in table.store.listed(table.name)}
    for path in sorted((ever | table.redactions.targets) - table.redactions.paths - searched):
        searched.add(path)
        size = there.get(f"{table.name}/{path}")
        if size is None:
            continue
        system, where = table.store.arrow(f"{table.name}/{path}")
        fragment = PARQUET.make_fragment(where, system)
        schema = fragment.physical_schema.remove_metadata()
        if rejected:
            flags = subject.in_payload(fragment.to_table(columns=["payload"]), names)
        else:
            mine = [each for each in names if each in schema.names]
            flags = subject.in_column(fragment.to_table(columns=mine), mine)
        count = int(flags.sum())
        if not count:
            continue
        gone[path] = count
        replaced[path] = _left(table, DataFile(path, len(flags), size, {}, {}, {}), fragment, schema, ~flags)
    return replaced, gone


def _complete(
    table: Table,
    ledger: Ledger | None,
    gone: Mapping[str, int],
    *,
    facts: Callable[[int], dict[str, Any]],
    commit: Callable[[Sequence[DataFile], Sequence[DataFile], int, dict[str, Any]], bool],
) -> tuple[int, list[Version]]:
    """Bring newest state, log and ledger to what the redactions say, and remove the old files.

    Gives how many rows went from the newest state, and the versions that read otherwise now.
    """
    if not table.redactions.paths:
        return 0, []
    told = facts(0)
    rows = 0
    for _ in range(_ATTEMPTS):
        last = table.version
        *_, newest = log.states(table.store, table.name, last=last)
        stale = sorted(newest.paths & table.redactions.paths)
        if not stale:
            break
        old = [DataFile(path, 0, 0, {}, {}, {}) for path in stale]
        leaving = sum(gone.get(path, 0) for path in stale)
        told = facts(leaving)
        if commit(list(table.redactions.applied(old)), old, last, told):
            rows = leaving
            break
    else:
        raise _others_all_the_time(table)
    _strip_bounds(table)
    changed = [] if ledger is None else _record(table, ledger, told)
    for path in sorted(table.redactions.paths):
        table.store.delete(f"{table.name}/{path}")
    return rows, changed


def expected_digest(ledger: Ledger, version: Version) -> str:
    """Give the digest that a version has to have: the recorded one, or that of its newest redaction."""
    events = ledger.list_events(verb=_REDACTED, subject=version.name, newest_first=True)
    return next(
        (each.payload["new"] for each in events if each.payload["version"] == version.id), version.sha256
    )


def _left(table: Table, file: DataFile, fragment: Any, schema: pa.Schema, stays: Flags) -> list[DataFile]:
    if not stays.any():
        return []
    rows = RowFiles(table.store, table.name, schema, taken=table.redactions.paths)
    writer = rows.writer(rewritten_stem(file, "rewrite"))
    writer.write(fragment.to_table().replace_schema_metadata(None).filter(pa.array(stays)))
    return writer.close()


def names_of(table: Table, column: str) -> list[str]:
    """Give every name that a column ever had."""
    names = {column}
    for commit in log.newest_first(table.store, table.name, last=table.version):
        renamed = commit.facts.get("more", {}).get("renamed", {})
        names |= {old for old, new in renamed.items() if new in names}
    return sorted(names)


def _strip_bounds(table: Table) -> None:
    """Take out of the log what the old files' bounds tell; whatever is killed, all is done again."""
    if table.redactions.is_stripped:
        return
    gone = table.redactions.paths
    for commit in log.commits(table.store, table.name, last=table.version):
        if not gone.intersection(commit.added):
            continue
        lines = [_without_bounds(each, gone) for each in commit.lines]
        if lines != list(commit.lines):
            data = b"\n".join(map(canonical_json, lines)) + b"\n"
            table.store.put(log.log_path(table.name, commit.version), data)
    table.checkpoint()
    newest = f"{table.version:020d}.checkpoint"
    for each in list(table.store.listed(f"{table.name}/_delta_log")):
        name = each.path.rsplit("/", 1)[-1]
        if ".checkpoint" in name and name < newest and name[0].isdigit():
            table.store.delete(each.path)
    table.redactions.set_stripped()


def _without_bounds(line: log.Line, gone: set[str]) -> dict[str, Any]:
    if "add" not in line or line["add"]["path"] not in gone:
        return dict(line)
    stats = json.loads(line["add"].get("stats") or "{}")
    kept = {name: value for name, value in stats.items() if name not in ("minValues", "maxValues")}
    return {"add": {**line["add"], "stats": canonical_json(kept).decode()}}


def _record(table: Table, ledger: Ledger, facts: dict[str, Any]) -> list[Version]:
    recorded = recorded_versions(table.name, ledger)
    changed = []
    for state in log.states(table.store, table.name, last=table.version):
        versions = recorded.get(state.commit.version, [])
        if not versions or not state.paths & table.redactions.paths:
            continue
        files = table.redactions.applied(DataFile(path, 0, 0, {}, {}, {}) for path in sorted(state.paths))
        new = table.digest_of(state.schema, files)
        for version in versions:
            old = expected_digest(ledger, version)
            if old == new:
                continue
            ledger.append(
                _REDACTED,
                subject=version.name,
                payload={"version": version.id, "ref": version.ref, "old": old, "new": new},
                cause=facts["cause"],
                key=f"redacted/{version.id}/{new}",
            )
            changed.append(version)
    return changed


def _text(value: object) -> str:
    """Give a value as the payload of a rejected row has it."""
    found = msgspec.json.decode(row_json({"": value}))[""]
    return found if isinstance(found, str) else row_json({"": found})[4:-1]


def _scalar(value: object, kind: pa.DataType) -> pa.Scalar | None:
    if isinstance(value, float) and pa.types.is_integer(kind):
        return None  # it would be cut
    try:
        return pa.scalar(value, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, OverflowError):
        return None


def _readings(payload: str) -> Iterator[str]:
    """Give raw text as it stands, and as formats read it in which characters are escaped or doubled."""
    yield payload
    if _ESCAPES[0] in payload:
        yield _unescaped(payload)
    if _ESCAPES[1] in payload:
        single = payload.replace('""', '"')
        yield single
        yield _unescaped(single)


def _unescaped(text: str) -> str:
    """Resolve what JSON escapes, and bytes that were no UTF-8, as Latin 1 has them."""
    plain = _ESCAPED.sub(_character, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2]
    return chr(int(digits, 16)) if digits else _SHORT.get(found[3], found[3])


def _holds_word(text: str, word: str) -> bool:
    place = text.find(word)
    while place >= 0:
        before, after = text[place - 1 : place], text[place + len(word) : place + len(word) + 1]
        if not (before.isalnum() or after.isalnum()):
            return True
        place = text.find(word, place + 1)
    return False
