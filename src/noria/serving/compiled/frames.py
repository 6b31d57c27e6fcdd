"""The columns that a transformer reads while an estimator is compiled, and where each comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

from noria.serving.compiled.plan import Concat, Matrix, Select, Step
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

    def numbers(self, reader: str) -> Step:
        """Give the step that makes these columns' matrix.

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
        return self._step()

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
