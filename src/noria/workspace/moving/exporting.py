"""Experiments, runs and models as open files: Parquet tables and plain files, of one instant.

All is written beside its place, under a name that says so, and gets its own once it is whole. An export that
was cut off begins anew, but does not copy the files again that are there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
from sqlalchemy import Connection, select

import noria
from noria.errors import ConfigError, Conflict, DigestMismatch, LeaseHeld, NotFound
from noria.ledger.chain import GENESIS
from noria.ledger.redacted import expected_digest
from noria.ledger.tables import events
from noria.records import RunId
from noria.registry.records import FOLDER_FORMAT, FolderManifest, ModelManifest
from noria.tracking.tables import experiments
from noria.workspace.moving import exporting_tables as asked
from noria.workspace.moving.backup import check_apart
from noria.workspace.moving.backup_records import write_manifest
from noria.workspace.moving.exporting_files import FileNames, copied_blob, plain_name
from noria.workspace.moving.exporting_records import (
    FORMAT,
    MANIFEST,
    OF_RUNS,
    REPORT_KINDS,
    SCHEMAS,
    ExportDone,
    ExportManifest,
)
from noria.workspace.moving.exporting_versions import Origins, version_rows, versions_of_runs
from noria.workspace.moving.table_files import TableFile, TableWriter, disk_faults

if TYPE_CHECKING:
    from noria.storage.contract import Storage
    from noria.workspace.opened import Opened

__all__ = ["export_project"]

_OWN = "mlflow-artifacts:/"
_MOST_NAMED = 1_000
_ENDINGS = {"manifest": ".json", "profile": ".json", "samples": ".arrows", "code": ".zip"}
_FORMATS = {"lightgbm": ".txt", "skops": ".skops", "xgboost": ".ubj", "onnx": ".onnx"}
_KEPT = (".lock",)


def export_project(
    project: Opened,
    folder: Path,
    *,
    experiments: Sequence[str] | None = None,
    tell: Callable[[dict[str, int]], None] | None = None,
) -> ExportDone:
    """Export; see `noria.workspace.moving.verbs.MovingVerbs.export`."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} holds something already; name an empty folder, or one that is not there")
    check_apart(project, folder)
    staged = folder.with_name(f".{folder.name}.exporting")
    with _alone(staged):
        with project.ledger.database.read() as connection:
            work = _Exporting(project, connection, staged, experiments)
            manifest = work.run(tell)
        work.clear()
        write_manifest(staged / MANIFEST, manifest)
        with disk_faults(folder.parent):
            for name in _KEPT:
                (staged / name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                folder.rmdir()  # an empty one
            staged.rename(folder)
    done = ExportDone(
        folder=str(folder),
        rows={name: table.rows for name, table in manifest.tables.items()},
        files=work.files,
        file_bytes=work.file_bytes,
        left=manifest.left,
    )
    payload = {
        "experiments": None if experiments is None else list(experiments),
        "head": manifest.head,
        "runs": done.rows["runs"],
        "points": done.rows["points"],
        "models": done.rows["models"],
        "model_versions": done.rows["model_versions"],
        "files": done.files,
        "left": len(done.left),
    }
    project.ledger.append("project.exported", subject="project", payload=payload)
    return done


@contextmanager
def _alone(staged: Path) -> Iterator[None]:
    """Make the folder that is written, and be the only one at work in it."""
    with disk_faults(staged.parent):
        staged.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(staged / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise LeaseHeld(f"the folder {staged}", "another export") from err
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Files:
    """The blobs that an export has as files."""

    wanted: set[str] = field(default_factory=set)  # that parts of models may share with artifacts
    known: dict[str, str] = field(default_factory=dict)


class _Exporting:
    """One export on its way."""

    def __init__(
        self, project: Opened, connection: Connection, folder: Path, wanted: Sequence[str] | None
    ) -> None:
        self.files = self.file_bytes = 0
        self._project, self._connection, self._folder = project, connection, folder
        self._storage = project.storage
        self._artifacts = project.storage.part("artifacts")
        self._wanted = wanted
        self._names, self._shared = FileNames(), _Files()
        self._tables: dict[str, TableFile] = {}
        self._batches: dict[str, list[int]] = {name: [] for name in ("runs", *OF_RUNS)}
        self._left: list[tuple[str, str]] = []
        self._origins, self._versions = Origins(connection), set[str]()

    def run(self, tell: Callable[[dict[str, int]], None] | None) -> ExportManifest:
        """Write all tables and files."""
        connection, scope = self._connection, self._project.ledger.scope
        of_scope = select(events.c.digest).where(events.c.scope == scope)
        first = connection.execute(of_scope.order_by(events.c.seq).limit(1)).scalar() or GENESIS
        last = connection.execute(of_scope.order_by(events.c.seq.desc()).limit(1)).scalar() or GENESIS
        taken_at = datetime.now(UTC)
        numbers = self._choose()
        chosen = None if self._wanted is None else numbers
        folders = self._write_experiments(numbers)
        runs = asked.runs_to_export(connection, scope, chosen)
        self._write_runs(runs, tell)
        self._write("datasets", asked.rows_of(connection, asked.datasets_query(), "datasets"))
        for name, query in asked.logged_model_queries(numbers).items():
            rows = asked.rows_of(connection, query, name)
            self._write(name, map(_nan_for_null, rows) if name == "logged_model_points" else rows)
        for name, query in asked.model_queries(chosen).items():
            if name != "model_versions":
                self._write(name, asked.rows_of(connection, query, name))
        self._write_models(asked.model_queries(chosen)["model_versions"], folders)
        return ExportManifest(
            format=FORMAT,
            noria=noria.__version__,
            project=self._project.name,
            ledger=first,
            head=last,
            taken_at=taken_at,
            experiments=None if self._wanted is None else tuple(self._wanted),
            tables=self._tables,
            batches=self._batches,
            left=tuple(self._left),
        )

    def clear(self) -> None:
        """Remove what an earlier export left that was cut off."""
        known = {each.file for each in self._tables.values()} | {".lock"}
        for path in sorted(self._folder.rglob("*"), reverse=True):
            name = path.relative_to(self._folder).as_posix()
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()  # only an empty one
            elif name not in known and not self._names.knows(name):
                path.unlink()

    def _choose(self) -> list[int]:
        found = {
            name: id
            for id, name in self._connection.execute(
                select(experiments.c.id, experiments.c.name).order_by(experiments.c.id)
            )
        }
        if self._wanted is None:
            return list(found.values())
        if not self._wanted:
            raise ConfigError("no experiment is named; name one, or leave `experiments` out for all")
        for name in self._wanted:
            if name not in found:
                raise NotFound("experiment", name, found)
        return sorted({found[name] for name in self._wanted})

    def _write(self, name: str, batches: Iterator[pa.RecordBatch]) -> None:
        with TableWriter(self._folder, f"tables/{name}.parquet", SCHEMAS[name]) as writer:
            for rows in batches:
                writer.write(rows)
            self._tables[name] = writer.finish()

    def _write_experiments(self, numbers: Sequence[int]) -> dict[int, str]:
        """Write experiments; give the folder of the project's artifacts that each has, empty: elsewhere."""
        queries = asked.experiments_query(numbers)
        folders: dict[int, str] = {}
        rows = []
        for row in self._connection.execute(queries["experiments"]).mappings():
            place = row["artifact_uri"]
            folder = str(row["id"]) if place is None else ""
            if place is not None and place.startswith(_OWN):
                folder = place.removeprefix(_OWN).strip("/")
            if not folder:
                self._leave(f"files of experiment {row['name']}", f"they are at {place}, and stay there")
            folders[row["id"]] = folder
            rows.append({**row, "folder": folder})
        self._write("experiments", iter([_batch("experiments", rows)]))
        query = queries["experiment_tags"]
        self._write("experiment_tags", asked.rows_of(self._connection, query, "experiment_tags"))
        return folders

    def _write_runs(self, found: Sequence[RunId], tell: Callable[[dict[str, int]], None] | None) -> None:
        code: dict[str, str] = {}
        with ExitStack() as opened:
            writers = {
                name: opened.enter_context(TableWriter(self._folder, f"tables/{name}.parquet", SCHEMAS[name]))
                for name in ("runs", *OF_RUNS)
            }
            done = dict.fromkeys(writers, 0)
            for some in asked.batches_of_runs(found):
                for name, count in self._write_batch(some, writers, code).items():
                    self._batches[name].append(count)
                    done[name] += count
                if tell is not None:
                    tell(done)
            for name, writer in writers.items():
                self._tables[name] = writer.finish()
        self._write_code(code)

    def _write_batch(
        self, some: Sequence[RunId], writers: Mapping[str, TableWriter], code: dict[str, str]
    ) -> dict[str, int]:
        """Write some hundred runs with all that they logged; give how many rows that were."""
        runs = self._runs(some)
        for row in runs:
            code[row["runtime"]] = ".txt"
            if row["code_diff"] is not None:
                code[row["code_diff"]] = ".diff"
        writers["runs"].write(_batch("runs", runs))
        counts = {"runs": len(runs)}
        for name, query in asked.queries_of_runs(some).items():
            counts[name] = 0
            if name == "lineage":
                edges = self._origins.named(self._connection.execute(query).mappings())
                writers[name].write(_batch(name, edges))
                counts[name] = len(edges)
                continue
            for rows in asked.rows_of(self._connection, query, name):
                writers[name].write(_nan_for_null(rows) if name == "points" else rows)
                counts[name] += rows.num_rows
        self._versions.update(self._connection.execute(versions_of_runs(some)).scalars())
        return counts

    def _runs(self, some: Sequence[RunId]) -> list[dict[str, Any]]:
        """Give runs in this order; one that came from another ledger with what that knew of it."""
        scope = self._project.ledger.scope
        found = {row["id"]: dict(row) for row in self._connection.execute(asked.runs_query(some)).mappings()}
        for subject, payload in self._connection.execute(asked.origins_query(scope, some)):
            origin = msgspec.json.decode(payload).get("origin", {})
            found[subject.removeprefix("run/")] |= {name: origin.get(name) for name in ("cause", "key")}
        return [found[each] for each in some]

    def _write_code(self, code: dict[str, str]) -> None:
        rows = []
        for sha256, ending in sorted(code.items()):
            if len(sha256) != 64 or not self._storage.exists(sha256):
                continue  # of a run that was tracked elsewhere, where nothing is known of it
            name = self._names.name("code", f"{sha256[:16]}{ending}")
            size = self._copy(self._storage, sha256, name, f"code {sha256[:16]}")
            if size is not None:
                rows.append({"sha256": sha256, "file": name, "size_bytes": size})
        self._write("code", iter([_batch("code", rows)]))

    def _write_models(self, query: Any, folders: dict[int, str]) -> None:
        """Write versions of models and what they consist of, and the files of runs between the two."""
        parts: list[dict[str, Any]] = []
        sealed: list[dict[str, Any]] = []
        rows = []
        ledger = self._project.ledger
        for row in self._connection.execute(query).mappings():
            content = expected_digest(ledger, ledger.get_version_by_id(row["version"]))
            rows.append({**row, "content_sha256": content})
            if content:
                own, of_files = self._parts({**row, "content_sha256": content})
                parts += own
                sealed += of_files
        self._write("model_versions", iter([_batch("model_versions", rows)]))
        self._write_versions({row["version"] for row in rows})
        self._shared.wanted = {each["sha256"] for each in sealed}
        self._write("artifacts", self._artifact_rows(folders))
        for each in sealed:
            name = self._shared.known.get(each["sha256"])
            if name is None:
                name = self._names.name(f"models/{each.pop('folder')}", each["part"])
                if (
                    self._copy(self._artifacts, each["sha256"], name, f"{each['version']}/{each['part']}")
                    is None
                ):
                    continue
            parts.append({**each, "file": name})
        self._write("model_parts", iter([_batch("model_parts", parts)]))

    def _write_versions(self, models: set[str]) -> None:
        """Write what else runs read and made, and what was told of models, with its bytes."""
        rows = []
        for row in version_rows(self._connection, self._versions, models, self._origins):
            name = size = None
            if row["kind"] in REPORT_KINDS:
                path = f"{row['kind']}/{row['name']}/{row['number']}.json"
                name = self._names.name("reports", path)
                size = self._copy(self._storage, row["sha256"], name, row["version"])
                if size is None:
                    continue
            rows.append({**row, "file": name, "size_bytes": size})
        self._write("versions", iter([_batch("versions", rows)]))

    def _parts(self, row: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Give the parts of a version in the storage, and the project's artifacts that it names."""
        facts = msgspec.json.decode(row["facts"])
        folder = f"{row['version'].partition('/model/')[2].rpartition(':')[0]}/{row['ledger_number']}"
        try:
            data = self._storage.get(row["content_sha256"])
        except (NotFound, DigestMismatch) as err:
            self._leave(f"model version {row['version']}", str(err))
            return [], []
        is_folder = facts.get("format") == FOLDER_FORMAT
        held = {} if is_folder else msgspec.json.decode(data, type=ModelManifest).parts
        parts = []
        for part, sha256 in {
            "manifest": row["content_sha256"],
            **{n: p.sha256 for n, p in held.items()},
        }.items():
            ending = _ENDINGS.get(part, _FORMATS.get(str(facts.get("format")), ".bin"))
            name = self._names.name("models", f"{folder}/{part}{ending}")
            size = self._copy(self._storage, sha256, name, f"{row['version']}/{part}")
            if size is not None:
                parts.append(_part(row["version"], part, "storage", sha256, size) | {"file": name})
        files = msgspec.json.decode(data, type=FolderManifest).files if is_folder else {}
        sealed = [
            _part(row["version"], path, "artifacts", each.sha256, each.size_bytes) | {"folder": folder}
            for path, each in files.items()
        ]
        return parts, sealed

    def _artifact_rows(self, folders: dict[int, str]) -> Iterator[pa.RecordBatch]:
        named = self._connection.execute(select(experiments.c.id, experiments.c.name))
        titles = {row.id: row.name for row in named}
        for number, folder in folders.items():
            if not folder:
                continue
            found = self._connection.execute(asked.artifacts_below(folder)).mappings()
            for some in found.yield_per(1_000).partitions():
                rows = []
                for row in some:
                    path = row["path"][len(folder) + 1 :]
                    name = self._names.name(f"artifacts/{_plain_title(titles[number], number)}", path)
                    if self._copy(self._artifacts, row["sha256"], name, row["path"]) is None:
                        continue
                    if row["sha256"] in self._shared.wanted:
                        self._shared.known[row["sha256"]] = name
                    rows.append({**row, "experiment": number, "path": path, "file": name})
                yield _batch("artifacts", rows)

    def _copy(self, storage: Storage, sha256: str, name: str, what: str) -> int | None:
        """Write a blob as a file; give its size, `None` where the project lacks it."""
        try:
            copied_blob(storage, sha256, self._folder / name)
        except (NotFound, DigestMismatch) as err:
            self._leave(what, str(err))
            return None
        size = (self._folder / name).stat().st_size
        self.files += 1
        self.file_bytes += size
        return size

    def _leave(self, what: str, why: str) -> None:
        if len(self._left) < _MOST_NAMED:
            self._left.append((what, why))


def _part(version: str, part: str, place: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    return {"version": version, "part": part, "place": place, "sha256": sha256, "size_bytes": size_bytes}


def _plain_title(title: str, number: int) -> str:
    return plain_name(title) or str(number)


def _batch(table: str, rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    schema = SCHEMAS[table]
    columns = []
    for each in schema:
        values = [row[each.name] for row in rows]
        kind = pa.int64() if pa.types.is_timestamp(each.type) else each.type
        columns.append(pa.array(values, kind).cast(each.type))
    return pa.record_batch(columns, schema=schema)


def _nan_for_null(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Write NaN as the number that it is; a database has none."""
    at = rows.schema.get_field_index("value")
    return rows.set_column(at, rows.schema.field(at), rows.column(at).fill_null(float("nan")))
