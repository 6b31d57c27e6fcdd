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
that were written by killed batches and never landed are left, and told of: a vacuum removes them.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from noria.errors import StoreError
from noria.lake import log
from noria.lake.data_files import DataFile, rewritten_stem
from noria.lake.delta import Table
from noria.lake.finding import Finder
from noria.lake.fragments import PARQUET
from noria.lake.maintenance import recorded_versions
from noria.lake.row_files import RowFiles
from noria.lake.rowsql import Flags
from noria.ledger.redacted import record_redacted
from noria.ledger.store import Ledger
from noria.records import Version, canonical_json

__all__ = ["Forgotten", "Held", "Taken", "forget", "names_of", "search"]

_ATTEMPTS = 50


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


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken out of one table: rows of it as it was, files, and the versions that read otherwise."""

    rows: int
    files: int
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """What a table holds of a subject.

    Attributes
    ----------
    rows
        In the table as it is now.
    files
        That hold any, those of older versions among them.
    versions
        On record that read one of these files.
    found
        The rows themselves, of all files, with the columns that were asked for; a row that was written anew
        comes as often as it was.
    strays
        Files with such rows, or that cannot be read, that never were part of the table: of batches that were
        killed, or are being written right now. They are left to a vacuum.
    """

    rows: int
    files: int
    versions: tuple[Version, ...]
    found: pa.Table | None = None
    strays: int = 0


def search(
    table: Table, find: Finder, ledger: Ledger | None, *, columns: Collection[str] | None = None
) -> Held:
    """Tell what a table and its older versions hold of a subject; nothing is changed.

    Parameters
    ----------
    columns
        Give the rows found, with those of these columns that each file has.
    """
    table.refresh()
    counts: dict[str, int] = {}
    pieces: list[pa.Table] = []
    for path, fragment in _files_there(table):
        schema = fragment.physical_schema.remove_metadata()
        looked_at = find.columns(schema)
        if not looked_at:
            continue
        wanted = [] if columns is None else [each for each in columns if each in schema.names]
        rows = fragment.to_table(columns=list(dict.fromkeys([*looked_at, *wanted])))
        flags = find.flags(rows)
        if flags.any():
            counts[path] = int(flags.sum())
            if columns is not None:
                pieces.append(rows.select(wanted).filter(pa.array(flags)))
    found = None
    if columns is not None and pieces:
        found = pa.concat_tables(pieces, promote_options="permissive").replace_schema_metadata(None)
    now = sum(counts.get(path, 0) for path in table.paths)
    versions = tuple(_versions_reading(table, ledger, set(counts)))
    return Held(now, len(counts), versions, found, sum(_strays(table, find)))


def _strays(table: Table, find: Finder) -> Iterable[bool]:
    """Tell of every file that never was part of the table whether it may hold a row of a subject."""
    known = {f"{table.name}/{path}" for path in {*_ever(table), *table.redactions.paths}}
    for each in table.store.listed(table.name):
        if each.path in known or "/_" in each.path or not each.path.endswith(".parquet"):
            continue
        system, where = table.store.arrow(each.path)
        try:
            fragment = PARQUET.make_fragment(where, system)
            looked_at = find.columns(fragment.physical_schema.remove_metadata())
            yield bool(looked_at) and bool(find.flags(fragment.to_table(columns=looked_at)).any())
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except (pa.ArrowInvalid, OSError):
            yield True  # it was cut off while it was written


def _files_there(table: Table) -> Iterable[tuple[str, Any]]:
    """Give every file that is part of the table or of an older version, and is there."""
    there = {each.path for each in table.store.listed(table.name)}
    for path in _ever(table):
        if f"{table.name}/{path}" in there:
            system, where = table.store.arrow(f"{table.name}/{path}")
            yield path, PARQUET.make_fragment(where, system)


def _ever(table: Table) -> list[str]:
    """Name the files that ever were part of the table, but those that are read otherwise now."""
    table.redactions.refresh()
    ever = {
        path for commit in log.commits(table.store, table.name, last=table.version) for path in commit.added
    }
    return sorted((ever | table.redactions.targets) - table.redactions.paths)


def _versions_reading(table: Table, ledger: Ledger | None, paths: set[str]) -> Iterable[Version]:
    recorded = recorded_versions(table.name, ledger)
    if not paths or not recorded:
        return
    for state in log.states(table.store, table.name, last=table.version):
        versions = recorded.get(state.commit.version, [])
        if versions:
            files = table.redactions.applied(DataFile(path, 0, 0, {}, {}, {}) for path in state.paths)
            if any(each.path in paths for each in files):
                yield from versions


def forget(
    table: Table,
    find: Finder,
    ledger: Ledger | None,
    *,
    facts: Callable[[int], dict[str, Any]],
    commit: Callable[[Sequence[DataFile], Sequence[DataFile], int, dict[str, Any]], bool],
) -> Taken:
    """Take a subject's rows out of one table, until no other process has put any into another file.

    Parameters
    ----------
    find
        Tells which rows are the subject's.
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
        gone = _redact(table, find, searched)
        if attempt and not gone:
            return Taken(rows, files, tuple(versions.values()))
        files += len(gone)
        went, changed = _complete(table, ledger, gone, facts=facts, commit=commit)
        rows += went
        versions |= {each.id: each for each in changed}
    raise _others_all_the_time(table)


def _redact(table: Table, find: Finder, searched: set[str]) -> dict[str, int]:
    """Write what is left of every file that has rows of a subject, and say that it is read from now on.

    Gives the files that were written anew, and how many rows of each went.
    """
    for _ in range(_ATTEMPTS):
        replaced, gone = _written_anew(table, find, searched)
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
    table: Table, find: Finder, searched: set[str]
) -> tuple[dict[str, Sequence[DataFile]], dict[str, int]]:
    replaced: dict[str, Sequence[DataFile]] = {}
    gone: dict[str, int] = {}
    there = {each.path: each.size_bytes for each in table.store.listed(table.name)}
    for path in _ever(table):
        if path in searched:
            continue
        searched.add(path)
        size = there.get(f"{table.name}/{path}")
        if size is None:
            continue
        system, where = table.store.arrow(f"{table.name}/{path}")
        fragment = PARQUET.make_fragment(where, system)
        schema = fragment.physical_schema.remove_metadata()
        looked_at = find.columns(schema)
        if not looked_at:
            continue
        flags = find.flags(fragment.to_table(columns=looked_at))
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
        why, cause = facts["more"].get("reason", ""), facts["cause"]
        changed += [each for each in versions if record_redacted(ledger, each, new, why=why, cause=cause)]
    return changed
