"""What a batch is: the plan that processes read it from, what each part became, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from noria.serving.records import Route

__all__ = [
    "Asked",
    "BatchPlan",
    "BatchProgress",
    "Part",
    "PartDone",
    "Predicted",
    "part_stem",
]

OutputFormat = Literal["parquet", "csv", "jsonl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody wants of a batch, besides model, input and output.

    Attributes
    ----------
    id
        The column that names predictions.
    keep
        Columns of the input that go along; `*`: all.
    at
        The column of instants as of which features are taken; None: from the online store, as they are.
    log
        Whether predictions go into the table `predictions`.
    max_rejected
        The share of rows that may be rejected.
    replace
        Whether an output that is there is replaced.
    """

    id: str | None = None
    keep: Sequence[str] = ()
    at: str | None = None
    log: bool = False
    max_rejected: float = 0.0
    replace: bool = False


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of the input: groups of a Parquet file, or record batches of an Arrow file."""

    format: Literal["parquet", "arrow"]
    path: str
    groups: tuple[int, ...]
    columns: tuple[str, ...]  # that are read
    rows: int
    first: int  # of its rows, among those of the whole input
    offset: int  # of its first row in its file
    name: str  # of the file or the table, for people


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process needs to score a part: kept as `plan.json` in the folder of the batch.

    `job` is the digest of model, input and wishes: the same batch again has the same, and goes on where it
    stood. `prefix` is what predictions without an id of their own are called by.
    """

    job: str
    root: str  # of the project
    route: Route
    parts: tuple[Part, ...]
    format: OutputFormat
    prefix: str
    id: str | None = None
    keep: tuple[str, ...] = ()
    at: str | None = None
    online: str | None = None
    clock: Literal["wall", "replay"] = "wall"
    log: bool = False
    redact: tuple[str, ...] = ()
    unread: int = 0  # rows that were none as the input was taken in
    most_rejected: int = 0  # of all, these included
    max_rejected: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows all parts have."""
        return sum(each.rows for each in self.parts)


class PartDone(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a part; written last, so that a part which has one is whole."""

    rows: int
    rejected: int
    seconds: float
    failed: dict[str, int] = {}  # rows whose on-demand features are missing, by feature


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch ended.

    Attributes
    ----------
    rows
        That were scored.
    rejected
        That were not, for the reasons in `rejected_path`.
    parts, parts_before
        Of how many parts it was made, and how many of those an earlier process had done.
    logged, known
        Rows that went into the table `predictions`, and those that were in it.
    changed
        Of `known`, those with another score than was logged; the log keeps the first.
    was_there
        Whether this very batch had been finished before, so that nothing was done.
    """

    job: str
    model: str
    version: int
    release: str
    output: str
    rows: int
    rejected: int = 0
    rejected_path: str | None = None
    parts: int = 0
    parts_before: int = 0
    logged: int = 0
    known: int = 0
    changed: int = 0
    failed: dict[str, int] = {}
    seconds: float = 0.0
    run: str | None = None
    was_there: bool = False

    @property
    def rows_per_s(self) -> float:
        """By the wall clock, of what this call did."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is."""

    stage: Literal["reading", "scoring", "writing"]
    done: int  # rows
    total: int | None
    rejected: int = 0


def part_stem(folder: Path, number: int) -> str:
    """Give where the files of a part are, without what they end with."""
    return str(folder / f"part-{number:05d}")
