"""Whether features that were served are those that offline gives for the same instant, and if not, why not.

A served value may lack rows that were already known: they had landed, and the online store was not yet there.
That is no difference of two ways to compute but a delay, so a row that does not agree is held against the
states in which its source stood shortly before, and only what agrees with none of them differs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import from_micros
from noria.features.agreeing import differing_rows, tolerances
from noria.features.columns import instants
from noria.features.declarations import ViewSpec
from noria.features.joining import join_features
from noria.features.materialize import SourceReader
from noria.features.value_columns import flattened
from noria.lake.states import TableState

__all__ = ["SourceStates", "ViewParity", "verify_view"]

Bools = npt.NDArray[np.bool_]
_SLACK_US = 1_000_000  # a row may become known between a request's instant and the reading of the store
_SHIFTED = 1e-3  # what a second more or less makes of a sum that decays
_EXAMINED = 50  # rows that do not agree at once, of a view and call
_EXAMPLES = 5
_INSTANT = pa.timestamp("us", "UTC")


class SourceStates(Protocol):
    """Gives a source as it stood; `noria.lake.states.TableStates` does."""

    def since(self, name: str, at_us: int) -> Sequence[TableState]:
        """Give the states from the one that stood at an instant on, oldest first."""
        ...

    def read(self, name: str, *, columns: Sequence[str], where: ds.Expression, version: int) -> pa.Table:
        """Give rows of a state."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParity:
    """How the served values of a view compare with offline.

    Attributes
    ----------
    rows
        How many were compared.
    late_us
        Of each row that agrees with an earlier state of the source: for how long the first row that it lacks
        had landed.
    differing
        The rows that agree with no state, by their position.
    unexamined
        How many do not agree with the newest state, and were more than are looked into at once.
    columns
        Features of the differing rows that differ.
    """

    view: str
    rows: int
    late_us: tuple[int, ...] = ()
    differing: tuple[int, ...] = ()
    unexamined: int = 0
    columns: tuple[str, ...] = field(default=())


def verify_view(
    spec: ViewSpec,
    served: pa.Table,
    *,
    read: SourceReader,
    states: SourceStates,
    limit_us: int,
) -> ViewParity:
    """Hold served rows of a view against offline.

    Parameters
    ----------
    spec : ViewSpec
        As the release has it.
    served : Table
        The view's entity columns, `at`, and its features as they were served; missing ones are null or NaN.
    read : callable
        Reads rows of a source, as `Lake.read` does.
    states : SourceStates
        Gives the source as it stood.
    limit_us : int
        How far back a state may lie that a served row agrees with.

    Raises
    ------
    NotFound, SourceError
        If the source is gone, or lacks a column.
    """
    if not served.num_rows:
        return ViewParity(view=spec.name, rows=0)
    spine = served.select([*spec.entity, "at"])
    offline = flattened(join_features(spine, [spec], read=read), spec)
    away = np.flatnonzero(_disagree(spec, served, offline))
    if not len(away):
        return ViewParity(view=spec.name, rows=served.num_rows)
    at = instants(served, "at")
    stood = states.since(spec.source, int(at[away].min()) - limit_us)
    late: list[int] = []
    differs: list[int] = []
    columns: set[str] = set()
    for place in away[:_EXAMINED].tolist():
        row = served.slice(place, 1)
        behind = _behind(spec, row, int(at[place]), stood, states, limit_us=limit_us)
        if behind is None:
            differs.append(place)
            columns |= {
                name
                for name in spec.model_columns
                if _disagree(spec, row, offline.slice(place, 1), only=name).any()
            }
        elif behind:
            late.append(behind)
    return ViewParity(
        view=spec.name,
        rows=served.num_rows,
        late_us=tuple(late),
        differing=tuple(differs),
        unexamined=max(len(away) - _EXAMINED, 0),
        columns=tuple(sorted(columns)),
    )


def _behind(
    spec: ViewSpec,
    row: pa.Table,
    at_us: int,
    stood: Sequence[TableState],
    states: SourceStates,
    *,
    limit_us: int,
) -> int | None:
    """Tell for how long what a served row lacks had landed; `None` if it agrees with no state."""
    until = [each for each in stood if each.committed_us <= at_us + _SLACK_US]
    first = next(
        (number for number in range(len(until) - 1, -1, -1) if until[number].committed_us < at_us - limit_us),
        0,
    )
    until = until[first:]
    if not until:
        return None
    mine = _Mine(spec, row, at_us, until, states)
    for number in mine.changes(0, len(until) - 1):
        computed = mine.computed(number)
        if not _disagree(spec, row, computed, decay=_SHIFTED if mine.is_shifted else 0.0).any():
            newer = until[number + 1].committed_us if number + 1 < len(until) else at_us
            return max(at_us - newer, 0)
    return None


class _Mine:
    """The rows of one entity in the states of its source."""

    def __init__(
        self, spec: ViewSpec, row: pa.Table, at_us: int, stood: Sequence[TableState], states: SourceStates
    ) -> None:
        self._spec, self._at_us, self._stood, self._states = spec, at_us, stood, states
        self._spine = row.select([*spec.entity, "at"])
        self._held: dict[int, pa.Table] = {}
        self.is_shifted = False  # a row happened after the request, and is taken as of its instant

    def changes(self, low: int, high: int) -> Iterator[int]:
        """Give the states from the newest down whose rows are others than those of the state after them."""
        yield high
        stack = [(low, high)]
        while stack:
            low, high = stack.pop()
            if low == high or self._rows(low).equals(self._rows(high)):
                continue
            if high - low == 1:
                yield low
                continue
            middle = (low + high) // 2
            stack += [(low, middle), (middle, high)]

    def computed(self, number: int) -> pa.Table:
        """Compute the features from a state."""

        def read(name: str, /, *, columns: Sequence[str], where: ds.Expression) -> pa.Table:
            return self._rows(number).filter(where).select(columns)

        return flattened(join_features(self._spine, [self._spec], read=read), self._spec)

    def _rows(self, number: int) -> pa.Table:
        if number not in self._held:
            spec = self._spec
            where = self._is_mine() & (ds.field(spec.known_at) <= _scalar(self._at_us + _SLACK_US))
            version = self._stood[number].version
            rows = self._states.read(spec.source, columns=spec.source_columns, where=where, version=version)
            # What was known when the store was read was known at the request, as far as its answer goes.
            for name in dict.fromkeys((spec.event_at, spec.known_at)):
                values, at = rows[name], _scalar(self._at_us)
                is_later = pc.greater(values, at)
                self.is_shifted |= name == spec.event_at and bool(pc.any(is_later).as_py())
                rows = rows.set_column(rows.column_names.index(name), name, pc.if_else(is_later, at, values))
            self._held[number] = rows.sort_by([(each, "ascending") for each in spec.key])
        return self._held[number]

    def _is_mine(self) -> ds.Expression:
        terms = []
        for name in self._spec.entity:
            text = self._spine[name].cast(pa.string())[0]
            terms.append(ds.field(name).cast(pa.string()) == text)
        return reduce(and_, terms)


def _disagree(
    spec: ViewSpec, one: pa.Table, other: pa.Table, *, only: str | None = None, decay: float = 0.0
) -> Bools:
    allowed: Mapping[str, float] = tolerances([spec])
    texts = set(spec.text_columns)
    found = np.zeros(one.num_rows, dtype=np.bool_)
    for name in spec.model_columns if only is None else (only,):
        if name in texts:
            both = zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)
            found |= np.fromiter((left != right for left, right in both), np.bool_, one.num_rows)
            continue
        tolerance = max(allowed[name], decay) if allowed[name] else 0.0
        found |= differing_rows(_floats(one, name), _floats(other, name), tolerance)
    return found


def _floats(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    values = rows[name].cast(pa.float64()).to_numpy()
    return np.asarray(values, dtype=np.float64)


def _scalar(at_us: int) -> pa.Scalar:
    return pa.scalar(from_micros(at_us), _INSTANT)
