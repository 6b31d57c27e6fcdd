"""One part of a batch, scored by whichever process an executor gives it to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from noria.errors import SourceError
from noria.serving.records import read_record, write_record
from noria.warehouse.query_output import Format, write_rows
from noria.workspace.predicting.records import BatchPlan, Part, PartDone, part_stem
from noria.workspace.predicting.scoring import BatchScorer, Scored, over_limit
from noria.workspace.project import Project

__all__ = ["PLAN", "let_go", "score_part"]

PLAN = "plan.json"
_ROWS_AT_ONCE = 32_768
_LINES = msgspec.json.Encoder(enc_hook=str)


def score_part(folder: str, number: int, project: Project) -> None:
    """Score a part, and write its files into the folder of the batch: all of them, then the note that it did.

    A part that was done before is left as it is.
    """
    place = Path(folder)
    stem = part_stem(place, number)
    note = Path(f"{stem}.json")
    if note.exists():
        return
    plan = read_record(place / PLAN, BatchPlan)
    part = plan.parts[number]
    scorer = _scorer(folder, plan.job, project)
    writer = _Part(scorer, part, stem)
    began = time.perf_counter()
    writer.write()
    done = PartDone(
        rows=writer.rows, rejected=writer.rejected, seconds=time.perf_counter() - began, failed=writer.failed
    )
    write_record(note, done)


@lru_cache(maxsize=1)
def _scorer(folder: str, job: str, project: Project) -> BatchScorer:
    """Load the model once in a process."""
    plan = read_record(Path(folder, PLAN), BatchPlan)
    assert plan.job == job  # the plan of a folder is replaced together with its parts
    return BatchScorer(plan, project=project)


def let_go() -> None:
    """Forget the model of the batch that this process was at."""
    _scorer.cache_clear()


class _Part:
    """Writes what becomes of the rows of a part."""

    def __init__(self, scorer: BatchScorer, part: Part, stem: str) -> None:
        self._scorer, self._part, self._stem = scorer, part, stem
        self._plan = scorer.plan
        self.rows, self.rejected = 0, 0
        self.failed: dict[str, int] = {}
        self._rejects: IO[bytes] | None = None
        self._log: pq.ParquetWriter | None = None

    def write(self) -> None:
        """Write rows, rejected rows and the log under other names, then give them theirs."""
        paths = {end: Path(f"{self._stem}.{end}") for end in (self._plan.format, "rejected", "log")}
        staged = {end: path.with_name(f".{path.name}") for end, path in paths.items()}
        for each in staged.values():
            each.unlink(missing_ok=True)
        with _reading(self._part) as (read, batches), staged[self._plan.format].open("wb") as sink:
            schema = self._scorer.schema(read)
            try:
                write_rows(self._scored(batches, staged), schema, Format(self._plan.format), sink)
            finally:
                for file in (self._rejects, self._log):
                    if file is not None:
                        file.close()
        for end, path in paths.items():
            if staged[end].exists():
                staged[end].replace(path)

    def _scored(self, batches: Iterator[pa.RecordBatch], staged: dict[str, Path]) -> Iterator[pa.RecordBatch]:
        seen = 0
        for batch in _together(batches) if self._plan.at is not None else batches:
            left = self._plan.most_rejected - self.rejected
            scored = self._scorer.score(batch, first=self._part.first + seen, most_rejected=left)
            if scored.reasons:
                self._reject(batch, scored, seen, staged["rejected"])
            if scored.log is not None and scored.log.num_rows:
                if self._log is None:
                    self._log = pq.ParquetWriter(staged["log"], scored.log.schema, compression="zstd")
                self._log.write_table(scored.log)
            for name, count in scored.failed.items():
                self.failed[name] = self.failed.get(name, 0) + count
            seen += batch.num_rows
            self.rows += scored.table.num_rows
            yield scored.table

    def _reject(self, batch: pa.RecordBatch, scored: Scored, seen: int, path: Path) -> None:
        self.rejected += len(scored.reasons)
        if self.rejected > self._plan.most_rejected:
            raise SourceError(over_limit(self._plan, next(iter(scored.reasons.values()))))
        if self._rejects is None:
            self._rejects = path.open("wb")
        for row, reason in sorted(scored.reasons.items()):
            values: dict[str, Any] = batch.slice(row, 1).to_pylist()[0]
            line = {
                "source": self._part.name,
                "row": self._part.offset + seen + row + 1,
                "reason": reason,
                "values": values,
            }
            self._rejects.write(_LINES.encode(line) + b"\n")


@contextmanager
def _reading(part: Part) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Give the columns of a part that are read, and its rows."""
    try:
        if part.format == "arrow":
            with pa.memory_map(part.path) as file, pa.ipc.open_file(file) as opened:
                yield opened.schema, _regular(opened.get_batch(each) for each in part.groups)
        else:
            with pq.ParquetFile(part.path, pre_buffer=False, buffer_size=1 << 20) as parquet:
                schema = parquet.schema_arrow
                yield (
                    schema,
                    parquet.iter_batches(
                        _ROWS_AT_ONCE,
                        row_groups=list(part.groups),
                        columns=list(part.columns),
                        use_threads=False,
                    ),
                )
    except (pa.ArrowInvalid, OSError) as err:
        if isinstance(err, SourceError):
            raise
        raise SourceError(f"{part.name} cannot be read on: {err}; write the file again") from err


def _regular(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for begin in range(0, batch.num_rows, _ROWS_AT_ONCE):
            yield batch.slice(begin, _ROWS_AT_ONCE)


def _together(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give all rows at once: a join reads the tables behind views once for however many rows."""
    yield from pa.Table.from_batches(batches).combine_chunks().to_batches()
