"""Where a batch goes: a folder of files, one file, or a table of the lake; and into the prediction log."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from noria.deploy.shipping import PREDICTIONS
from noria.errors import ConfigError, Conflict, StoreError
from noria.lake.store import Lake
from noria.records import sha256_hex
from noria.serving.records import write_record
from noria.warehouse.query_output import whole_file
from noria.workspace.predicting.records import BatchPlan, OutputFormat, part_stem

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = [
    "FolderManifest",
    "LogState",
    "Output",
    "app_of",
    "append_table",
    "check_free",
    "digest_of_files",
    "digests_of",
    "files_of",
    "finish_file",
    "finish_folder",
    "log_part",
    "open_output",
    "read_manifest",
    "write_rejected",
]

MANIFEST = "_manifest.json"
_TABLE = "table:"
_ENDS: dict[str, OutputFormat] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"
}  # fmt: skip


class FolderManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of predictions holds: `_manifest.json` in it."""

    job: str
    model: str
    version: int
    release: str
    rows: int
    rejected: int
    files: dict[str, str]  # name -> sha256


@dataclass(frozen=True, slots=True)
class Output:
    """Where the rows of a batch go.

    Attributes
    ----------
    path
        Of a folder or a file; None of a table.
    table
        Its name; None of files.
    format
        Of the files; of a table that of the parts on their way.
    """

    path: Path | None
    table: str | None
    format: OutputFormat
    is_folder: bool = False

    @property
    def told(self) -> str:
        """For people."""
        return f"{_TABLE}{self.table}" if self.path is None else str(self.path)

    @property
    def name(self) -> str:
        """Of the version on record."""
        return str(self.table) if self.path is None else self.path.name

    def work_folder(self, state: Path, model: str) -> Path:
        """Give the folder of the batch: beside the output, so that this takes its place by one renaming."""
        if self.path is None:
            return state / "predict" / f"{model}-{self.table}"
        return self.path.parent / f".{self.path.name}.noria"

    @property
    def rejected_path(self) -> Path | None:
        """Where rows go that could not be scored; None of a table, where it is in the project's folder."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.rejected.jsonl")


def open_output(what: str | Path, *, format: OutputFormat | None) -> Output:
    """Find out where a batch is to go.

    Parameters
    ----------
    what
        A file that ends with its format; a folder; `table:NAME`.
    format
        Of the files of a folder, or of a file whose name does not tell.

    Raises
    ------
    ConfigError
        If it is none of them.
    """
    text = str(what)
    if text.startswith(_TABLE):
        name = text.removeprefix(_TABLE)
        if not name or name == PREDICTIONS:
            raise ConfigError(f"the output {text!r} names no table of its own; write table:scores")
        if format not in (None, "parquet"):
            raise ConfigError("a table has no format; leave it out")
        return Output(None, name, "parquet")
    path = Path(what)
    found = _ENDS.get(path.suffix.lower())
    if path.suffix and not path.is_dir() and not text.endswith("/"):
        if found is None and format is None:
            raise ConfigError(
                f"the name {path.name!r} tells no format; end it with {', '.join(_ENDS)}, end a folder with "
                "'/', or name a table as table:NAME"
            )
        return Output(path, None, format or found or "parquet")
    return Output(path, None, format or "parquet", is_folder=True)


def read_manifest(folder: Path) -> FolderManifest | None:
    """Give the manifest of a folder that a batch has made; None where there is none."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=FolderManifest)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None


def check_free(output: Output, *, replace: bool) -> None:
    """Refuse an output that is there already. Raises `Conflict`."""
    path = output.path
    if path is None or replace or not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise Conflict(
        f"{path} is there already; choose another output, or let this one take its place (replace=True, "
        "--replace)"
    )


def finish_folder(output: Output, work: Path, manifest: FolderManifest, parts: int) -> None:
    """Put all parts and the manifest where the output is to be, by one renaming."""
    assert output.path is not None
    made = work / "output"
    made.mkdir(exist_ok=True)
    for number in range(parts):
        part = Path(f"{part_stem(work, number)}.{output.format}")
        if part.exists():  # else it was moved before this process took over
            part.replace(made / part.name)
    write_record(made / MANIFEST, manifest)
    if output.path.exists():
        old = work / "replaced"
        shutil.rmtree(old, ignore_errors=True)
        output.path.replace(old)
    made.replace(output.path)


def files_of(output: Output, work: Path, parts: int) -> list[Path]:
    """Give the files of the parts, wherever they are on their way."""
    found = []
    for number in range(parts):
        path = Path(f"{part_stem(work, number)}.{output.format}")
        found.append(path if path.exists() else work / "output" / path.name)
    return found


def finish_file(output: Output, files: Sequence[Path]) -> None:
    """Write the parts behind each other into one file, whole or not at all."""
    assert output.path is not None
    with whole_file(output.path) as sink:
        if output.format == "parquet":
            with pq.ParquetFile(files[0]) as first:
                schema = first.schema_arrow
            with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
                for file in files:
                    writer.write_table(pq.read_table(file, partitioning=None))
            return
        for number, file in enumerate(files):
            with file.open("rb") as part:
                if number and output.format == "csv":
                    part.readline()  # names of columns, none of which holds the end of a line: as was checked
                shutil.copyfileobj(part, sink, 1 << 20)


def append_table(lake: Lake, output: Output, file: Path, plan: BatchPlan, number: int) -> None:
    """Append a part to the table, once."""
    assert output.table is not None
    rows = pq.read_table(file, partitioning=None)
    served = plan.route.models[0]
    for name, value in (("model", served.model), ("version", served.version), ("release", served.release)):
        rows = rows.append_column(name, pa.array([value] * rows.num_rows))
    lake.append(output.table, rows, batch=number + 1, app_id=app_of(plan))


def app_of(plan: BatchPlan) -> str:
    """Name the batch in the commits of a table."""
    return f"predict/{plan.job}"


@dataclass(slots=True)
class LogState:
    """What became of rows for the log."""

    logged: int = 0
    known: int = 0
    changed: int = 0


def log_part(project: "Project", plan: BatchPlan, file: Path, number: int, state: LogState) -> None:
    """Append a part's rows to the table `predictions`, once; those whose id is there already are left out."""
    lake, app = project.lake, _log_app(plan)
    last = lake.last_batch(PREDICTIONS, app) if lake.exists(PREDICTIONS) else None
    if last is not None and number + 1 <= last:
        state.known += pq.read_metadata(file).num_rows
        return
    rows = pq.read_table(file, partitioning=None)
    if plan.id is not None:
        rows = _first_of_each(rows, state)
        if lake.exists(PREDICTIONS):
            rows = _new_ones(lake, plan, rows, state)
    if lake.append(PREDICTIONS, rows, batch=number + 1, app_id=app):
        state.logged += rows.num_rows
    else:  # by another batch of the same rows, just now
        state.known += rows.num_rows


def _log_app(plan: BatchPlan) -> str:
    """Name what goes into the log: by the content where ids are made of it, whatever the output is."""
    if plan.id is not None:
        return app_of(plan)
    return f"predict/{plan.prefix}/{plan.route.environment}/{plan.route.deployment}"


def _first_of_each(rows: pa.Table, state: LogState) -> pa.Table:
    places = pa.array(range(rows.num_rows), pa.int64())
    ids = pa.table({"id": rows["prediction_id"], "place": places, "score": rows["score"]})
    first = ids.group_by("id").aggregate([("place", "min")])
    if first.num_rows == rows.num_rows:
        return rows
    kept = rows.take(first["place_min"].sort())
    _count_known(rows.filter(pc.invert(pc.is_in(places, first["place_min"].combine_chunks()))), kept, state)
    return kept


def _new_ones(lake: Lake, plan: BatchPlan, rows: pa.Table, state: LogState) -> pa.Table:
    ids = rows["prediction_id"]
    if not rows.num_rows:
        return rows
    bounds = pc.min_max(ids).as_py()
    route, release = plan.route, plan.route.models[0].release
    wanted = (
        (ds.field("environment") == route.environment)
        & (ds.field("deployment") == route.deployment)
        & (ds.field("release") == release)
        & (ds.field("prediction_id") >= bounds["min"])
        & (ds.field("prediction_id") <= bounds["max"])
    )
    found: list[pa.RecordBatch] = []
    values = ids.combine_chunks()
    reader = lake.reader(PREDICTIONS)
    for batch in reader.scanner(
        columns=["prediction_id", "score"], filter=wanted, batch_size=65_536, batch_readahead=2
    ).to_batches():
        there = batch.filter(pc.is_in(batch.column(0), value_set=values))
        if there.num_rows:
            found.append(there)
    if not found:
        return rows
    known = pa.Table.from_batches(found)
    is_known = pc.is_in(ids, value_set=known["prediction_id"].combine_chunks())
    _count_known(rows.filter(is_known), known, state)
    return rows.filter(pc.invert(is_known))


def _count_known(again: pa.Table, known: pa.Table, state: LogState) -> None:
    """Count rows whose id is known, and those of them with another score."""
    state.known += again.num_rows
    both = again.select(["prediction_id", "score"]).join(
        known.select(["prediction_id", "score"]), "prediction_id", right_suffix="_before", join_type="inner"
    )
    same = pc.or_(
        pc.fill_null(pc.equal(both["score"], both["score_before"]), False),
        pc.and_(both["score"].is_null(nan_is_null=True), both["score_before"].is_null(nan_is_null=True)),
    )
    state.changed += both.num_rows - (pc.sum(same).as_py() or 0)


def rejected_lines(work: Path, parts: int) -> Iterator[Path]:
    """Give the files of rows that could not be scored."""
    for path in (
        work / "reading.rejected",
        *(Path(f"{part_stem(work, each)}.rejected") for each in range(parts)),
    ):
        if path.exists() and path.stat().st_size:
            yield path


def write_rejected(target: Path, work: Path, parts: int) -> bool:
    """Put rejected rows together into one file; say whether there are any. An older file goes."""
    found = list(rejected_lines(work, parts))
    if not found:
        target.unlink(missing_ok=True)
        return False
    with whole_file(target) as sink:
        for path in found:
            with path.open("rb") as part:
                shutil.copyfileobj(part, sink, 1 << 20)
    return True


def digests_of(files: Sequence[Path]) -> dict[str, str]:
    """Give the sha256 of files by name."""
    found = {}
    for path in files:
        try:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as err:
            raise StoreError(f"{path} cannot be read back: {err.strerror}; run the batch again") from err
    return found


def digest_of_files(files: dict[str, str]) -> str:
    """Give one digest of the rows: of the parts' digests in their order."""
    return sha256_hex("\n".join(files[name] for name in sorted(files)).encode())
