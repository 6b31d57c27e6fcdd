"""What is kept of a build, and what is told of plans and results."""

from datetime import datetime
from typing import Literal

import msgspec

from noria.records import RunId

__all__ = [
    "Built",
    "ColumnLineage",
    "Dropped",
    "Ingredients",
    "ModelPlan",
    "ModelResult",
    "Reference",
    "SourceColumn",
    "Statement",
    "TestResult",
    "TransformPlan",
    "TransformResult",
]


class Reference(msgspec.Struct, frozen=True):
    """A table that a statement names, and in which line; 0: a function names it."""

    name: str
    line: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement says.

    Attributes
    ----------
    digest
        Of its tokens, all that a parser sees: comments and white space are free, and so is the case of
        keywords.
    is_exact
        Whether its syntax tree is known; else `tables` are all names in it.
    is_ordered
        Whether its rows always come in the same order: it ends with ORDER BY, or takes them as they lie.
    changing
        What in it gives something else each time, such as `now()`; empty: nothing.
    """

    digest: str
    tables: tuple[Reference, ...]
    is_exact: bool = True
    is_ordered: bool = False
    changing: str


class Ingredients(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a model are made by; not the rows it reads."""

    code: str
    header: str  # digest of what counts of it: materialize, partition, key, lookback, input
    rules: dict[str, str]  # test -> digest
    views: dict[str, str]  # view -> digest
    inputs: tuple[str, ...]
    engines: dict[str, str]
    runtime: str = ""  # digest of the installed distributions, where a function makes the rows


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished run leaves for the next one to compare with.

    Attributes
    ----------
    ingredients
        Of the last build of the whole; None: only some partitions were ever built.
    seen
        Input -> Delta's version of it up to which all its rows are taken in.
    table_version
        Delta's version of the table that was left behind; None of a view.
    """

    ingredients: Ingredients | None
    seen: dict[str, int]
    table_version: int | None
    rows: int = 0


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a model, and why.

    `state`: `build`, `may build` (it depends on what is built before), `unchanged`, `view` (never stored),
    `blocked` (something it reads is broken) or `broken`.
    """

    model: str
    state: Literal["build", "may build", "unchanged", "view", "blocked", "broken"]
    reason: str
    spans: tuple[tuple[datetime, datetime], ...] | None = None  # of its partitions; None: all of it


class TransformPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `transform` would do."""

    models: tuple[ModelPlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def stale(self) -> tuple[ModelPlan, ...]:
        """What would, or might, be built."""
        return tuple(each for each in self.models if each.state in ("build", "may build"))

    @property
    def is_well(self) -> bool:
        """Whether nothing is blocked or broken."""
        return not any(each.state in ("blocked", "broken") for each in self.models)


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """A test that does not hold."""

    name: str
    severity: Literal["block", "warn"]
    failing: int
    example: str


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a model.

    `state`: `built`, `unchanged`, `view`, `failed`, `blocked` (something it reads failed) or `broken`.
    """

    model: str
    state: Literal["built", "unchanged", "view", "failed", "blocked", "broken"]
    reason: str
    run: RunId | None = None
    version: str | None = None
    rows: int | None = None
    partitions: tuple[datetime, ...] | None = None  # that were built again; None: all of it
    seconds: float | None = None
    tests: tuple[TestResult, ...] = ()


class TransformResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all models."""

    models: tuple[ModelResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many models came to each state."""
        found: dict[str, int] = {}
        for each in self.models:
            found[each.state] = found.get(each.state, 0) + 1
        return found

    @property
    def is_well(self) -> bool:
        """Whether nothing failed, is blocked or broken."""
        return not {"failed", "blocked", "broken"} & set(self.counts)

    def of(self, model: str) -> ModelResult:
        """Give what became of one model. Raises `KeyError`."""
        return next((each for each in self.models if each.model == model), None) or _unknown(model)


def _unknown(model: str) -> ModelResult:
    raise KeyError(model)


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """What was dropped.

    Attributes
    ----------
    versions
        Those on record, which stay readable.
    """

    name: str
    rows: int
    versions: tuple[str, ...]


class SourceColumn(msgspec.Struct, frozen=True, order=True):
    """A column of a table that values come from."""

    table: str
    column: str


class ColumnLineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a column of a model comes from.

    Attributes
    ----------
    sources
        Columns of the stored tables that the model reads.
    roots
        Columns of tables that no model makes, where those come from in the end.
    approximate
        Whether all columns of an input are named because the SQL tells no more, or a function made it.
    """

    model: str
    column: str
    sources: tuple[SourceColumn, ...]
    roots: tuple[SourceColumn, ...]
    approximate: bool
