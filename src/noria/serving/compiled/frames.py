"""The columns that a transformer reads while an estimator is compiled, and where each comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

from noria.serving.compiled.plan import (
    Concat,
    Elementwise,
    Finite,
    Impute,
    Matrix,
    OneHot,
    Ordinal,
    Refused,
    Select,
    Step,
)
from noria.serving.compiled.refusals import NotCompiled
from noria.serving.records import Input

__all__ = ["Absent", "Column", "Frame", "Made", "Number", "Text", "of_step", "root_frame"]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A step and how wide a matrix it gives."""

    step: Step
    width: int


@dataclass(frozen=True, slots=True)
class Number:
    """One column of a step's matrix; of the request's where `made` is None."""

    name: str
    made: Made | None
    column: int


@dataclass(frozen=True, slots=True)
class Text:
    """A column of strings of the request, and what a missing one was replaced by."""

    name: str
    fill: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """A column that the estimator was fitted with and the model does not have: nothing may read it."""

    name: str


Column = Number | Text | Absent


@dataclass(frozen=True, slots=True)
class Frame:
    """Columns side by side.

    Attributes
    ----------
    is_sparse
        Whether scikit-learn holds them as a sparse matrix.
    is_single
        Whether it holds them as float32.
    root_width
        How many numbers the request has.
    """

    columns: tuple[Column, ...]
    root_width: int
    is_sparse: bool = False
    is_single: bool = False

    def take(self, places: Sequence[int]) -> "Frame":
        """Give some of the columns."""
        columns = tuple(self.columns[each] for each in places)
        return Frame(columns, self.root_width, self.is_sparse, self.is_single)

    def numbers(self, reader: str, *, refuses: Refused = "none") -> Step:
        """Give the step that makes these columns' matrix.

        Parameters
        ----------
        refuses
            Which numbers the reader takes none of; rows that hold such are refused.

        Raises
        ------
        NotCompiled
            If some are texts, or scikit-learn would reckon with float32.
        """
        for each in self.columns:
            if not isinstance(each, Number):
                what = "the text column" if isinstance(each, Text) else "no input, but was fitted on"
                raise NotCompiled(f"{reader} reads {what} {each.name!r}")
        if self.is_single:
            raise NotCompiled(f"{reader} reads float32")
        step = self._step()
        if _SEVERITY[refuses] <= _SEVERITY[_lacks(step)]:
            return step
        return Finite(source=step, names=tuple(each.name for each in self.columns), refuses=refuses)

    def checked(self, reader: str, *, refuses: Refused) -> "Frame":
        """Give the same columns, of which a reader that changes nothing refuses some numbers."""
        step = self.numbers(reader, refuses=refuses)
        return of_step(step, [each.name for each in self.columns], self, is_sparse=self.is_sparse)

    def _step(self) -> Step:
        groups: list[tuple[Made | None, list[int]]] = []
        for each in self.columns:
            if not isinstance(each, Number):
                continue
            if groups and groups[-1][0] is each.made:
                groups[-1][1].append(each.column)
            else:
                groups.append((each.made, [each.column]))
        if not groups:
            raise NotCompiled("a step reads no column")
        steps = tuple(self._selected(made, columns) for made, columns in groups)
        return steps[0] if len(steps) == 1 else Concat(steps)

    def _selected(self, made: Made | None, columns: list[int]) -> Step:
        width = self.root_width if made is None else made.width
        is_all = columns == list(range(width))
        if made is None:
            return Matrix(None if is_all else tuple(columns))
        return made.step if is_all else Select(made.step, tuple(columns))

    @property
    def any_numbers(self) -> Step:
        """The step of the columns, whatever width their numbers have."""
        return self._step()


_SEVERITY: dict[Refused, int] = {"none": 0, "infinite": 1, "missing": 2}


def _lacks(step: Step) -> Refused:  # noqa: PLR0911 - a kind of step each
    """Give which numbers are surely not in a step's matrix, but for sums and products that overflow."""
    match step:
        case Finite():
            return max(step.refuses, _lacks(step.source), key=lambda each: _SEVERITY[each])
        case OneHot():
            return "missing"
        case Ordinal():
            return "infinite"
        case Impute():
            return "none" if _lacks(step.source) == "none" else "missing"
        case Select():
            return _lacks(step.source)
        case Concat():
            return min(map(_lacks, step.sources), key=lambda each: _SEVERITY[each])
        case Elementwise() if all(each.operand is not None for each in step.operations):
            return _lacks(step.source)
        case _:
            return "none"


def root_frame(inputs: Sequence[Input], order: Sequence[str] | None) -> Frame:
    """Give the columns that an estimator was fitted on.

    Parameters
    ----------
    inputs
        What the model reads.
    order
        The names that the estimator was fitted with; None where it knows none.

    Raises
    ------
    NotCompiled
        If the inputs have other names and are not as many.
    """
    columns: dict[str, list[Column]] = {}
    width = 0
    for each in inputs:
        if each.kind == "string":
            columns[each.name] = [Text(each.name)]
        else:
            columns[each.name] = [Number(each.name, None, width + place) for place in range(each.width)]
            width += each.width
    found = [column for each in columns.values() for column in each]
    if order is not None and not set(order).isdisjoint(columns):
        found = [column for name in order for column in columns.get(name, [Absent(name)])]
    elif order is not None and len(order) != len(found):
        raise NotCompiled(f"it was fitted on {len(order)} columns, and the model has {len(found)}")
    return Frame(tuple(found), width)


def of_step(step: Step, names: Sequence[str], like: Frame, *, is_sparse: bool = False) -> Frame:
    """Give the columns that a step makes."""
    made = Made(step, len(names))
    columns = tuple(Number(name, made, place) for place, name in enumerate(names))
    return Frame(columns, like.root_width, is_sparse)
