"""Graphs as other code makes them, their order, and what annotations say of one another."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from noria.errors import ConfigError
from noria.pipelines.declarations import Step, step
from noria.pipelines.graph import Argument, Graph, Keyed, Listed, Node, Result
from noria.pipelines.graph import Literal as Written
from noria.pipelines.signatures import (
    admits_none,
    field_names,
    fits,
    item_of,
    read_signature,
    show,
    takes,
)

T = TypeVar("T")


class Parts(NamedTuple):
    train: list[int]
    test: "Missing"  # type: ignore[name-defined]  # noqa: F821


@step
def number(x: int = 1) -> int:
    return x


@step
def numbers(n: int) -> list[int]:
    return [n]


@step
def anything(a: Any = None, b: Any = None) -> Any:
    return a, b


@step
def parts(x: int = 1) -> Parts:
    return Parts([x], x)


def node(name: str, step: Step[Any, Any] = anything, *, after: Sequence[str] = (), **given: Argument) -> Node:
    return Node(name, step, given, after=tuple(after))


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as raised:
        make()
    return str(raised.value)


# -- order and circles


def test_nodes_that_wait_for_each_other_are_refused_with_the_circle() -> None:
    nodes = (
        node("start"),
        node("one", a=Result("three"), b=Result("start")),
        node("two", a=Keyed({"x": Listed((Result("one"),))})),
        node("three", after=["two"]),
        node("end", a=Result("three")),
    )
    assert refused(lambda: Graph("g", nodes)) == (
        "pipeline 'g' goes in a circle: one <- three <- two <- one; a step cannot wait for itself: take one "
        "of these edges away"
    )


def test_a_node_that_waits_for_itself_is_refused() -> None:
    assert "goes in a circle: one <- one;" in refused(lambda: Graph("g", (node("one", a=Result("one")),)))


def test_two_nodes_of_one_name_are_refused_with_their_steps() -> None:
    nodes = (node("one"), node("one", number))
    message = refused(lambda: Graph("g", nodes))
    assert message.startswith("pipeline 'g': two steps produce 'one' (")
    assert "test_graph:anything and" in message
    assert "test_graph:number); give one another name with .named(...)" in message


def test_a_node_that_nobody_gives_is_refused_with_the_path() -> None:
    nodes = (node("one", a=Result("gone")), node("two", a=Result("one")), node("three", after=["two"]))
    assert refused(lambda: Graph("g", nodes)) == (
        "pipeline 'g': one reads 'gone', which no step produces; path: three <- two <- one <- gone"
    )


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_order_of_nodes_becomes_one_in_which_they_can_run(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    nodes = [
        node(f"n{number}", after=[f"n{each}" for each in data.draw(st.sets(st.integers(0, number - 1)))])
        if number
        else node("n0")
        for number in range(count)
    ]
    random.Random(data.draw(st.integers(0, 999))).shuffle(nodes)
    placed = [each.name for each in Graph("g", tuple(nodes)).nodes]
    assert sorted(placed) == sorted(each.name for each in nodes)
    for each in nodes:
        assert all(placed.index(waits) < placed.index(each.name) for waits in each.waits_for())


def test_a_long_chain_needs_no_deep_stack() -> None:
    count = 20_000
    nodes = [node("n0"), *(node(f"n{each}", a=Result(f"n{each - 1}")) for each in range(1, count))]
    graph = Graph("g", tuple(reversed(nodes)))
    assert graph.nodes[0].name == "n0"
    assert len(graph.until([f"n{count - 1}"]).nodes) == count
    assert len(graph.downstream("n0")) == count


# -- parts of a graph

SHAPE = Graph(
    "g",
    (
        node("rows"),
        node("good", a=Result("rows")),
        node("clean", a=Result("rows")),
        Node("report", anything, {"a": Result("clean")}, conditions=(Result("good"),)),
        node("other"),
        node("last", after=["other"], a=Result("clean")),
    ),
)


def test_until_takes_what_is_read_asked_and_waited_for() -> None:
    assert [each.name for each in SHAPE.until(["report"]).nodes] == ["rows", "good", "clean", "report"]
    assert [each.name for each in SHAPE.until(["last"]).nodes] == ["rows", "clean", "other", "last"]
    assert SHAPE.until(["rows", "clean"]).result == Result("clean")
    assert refused(lambda: SHAPE.until(["gone"])) == (
        "pipeline 'g' has no step 'gone'; it has rows, good, clean, report, other, last"
    )


def test_downstream_is_all_that_waits() -> None:
    assert SHAPE.downstream("good") == {"good", "report"}
    assert SHAPE.downstream("clean") == {"clean", "report", "last"}
    assert SHAPE.downstream("other") == {"other", "last"}
    assert "has no step 'gone'" in refused(lambda: SHAPE.downstream("gone"))


# -- fields and items of results


def test_fields_that_are_not_there_are_refused() -> None:
    def read(step: Step[Any, Any], items: Mapping[str, Argument], name: str) -> Callable[[], Graph]:
        nodes = (Node("one", step, {}, items), node("two", a=Result("one", name)))
        return lambda: Graph("g", nodes)

    assert refused(read(parts, {}, "rows")) == (
        "pipeline 'g': the field 'rows' is asked of one, which gives Parts and has train, test"
    )
    assert refused(read(number, {}, "rows")).endswith("which gives int and has no fields")
    assert refused(read(parts, {"x": Written([1])}, "train")).endswith(
        "which gives a list of Parts and has no fields"
    )
    assert len(read(parts, {}, "test")().nodes) == 2  # its annotation cannot be read


def test_items_of_what_is_no_list_are_refused() -> None:
    def over(argument: Argument) -> Callable[[], Graph]:
        return lambda: Graph("g", (node("one", parts), Node("two", anything, {}, {"a": argument})))

    told = "pipeline 'g', step 'two': map() takes 'a' of anything() item by item; give a list"
    assert refused(over(Written(3))) == told
    assert refused(over(Keyed({"a": Result("one")}))) == told
    assert len(over(Result("one", "train"))().nodes) == 2


# -- what annotations say

UserId = NewType("UserId", int)


class Sized(Protocol):
    def __len__(self) -> int: ...


class Row(TypedDict):
    x: int


class Own(list[int]):
    pass


class Box(Generic[T]):
    pass


FITS = [
    (int, int, True),
    (bool, int, True),
    (int, float, True),
    (int, bool, None),  # an int may turn out to be one
    (float, int, False),
    (str, int, False),
    (Any, int, True),
    (int, Any, True),
    (int, object, True),
    (object, int, None),
    (type(None), int | None, True),
    (type(None), int, False),
    (int | None, int, False),
    (int, int | str, True),
    (int | str, int | str | None, True),
    (int | bytes, int | str, False),
    (float | str, int | bytes, False),
    (list[int], list[int], True),
    (list[int], list[float], True),
    (list[str], list[int], False),
    (list[int], list, True),
    (list, list[int], True),
    (list[int], Sequence[str], False),
    (list[int], Iterable[int], True),
    (dict[str, int], Mapping[str, float], True),
    (dict[str, int], Mapping[str, str], False),
    (dict[str, int], Iterable[str], None),
    (Iterable[int], list[int], None),
    (tuple[int, str], tuple[int, str], True),
    (tuple[int, str], tuple[int, int], False),
    (tuple[int, ...], tuple[int, int], True),
    (tuple[int, int], tuple[int, ...], True),
    (tuple[int, int, int], tuple[int, int], False),
    (tuple[int, str], Sequence[int], False),
    (tuple[int, int], list[int], False),
    (Own, list[int], True),
    (Own, list[str], True),  # what it holds is not told by its brackets
    (Box[int], Box[int], True),
    (Box[int], Box[str], False),
    (Literal["a"], str, True),
    (str, Literal["a"], None),
    (int, Literal["a"], False),
    (Annotated[int, "x"], int, True),
    (int, Annotated[str, "x"], False),
    (UserId, int, None),
    (int, UserId, None),
    (T, int, None),
    (int, T, None),
    (str, Sized, None),
    (dict, Row, None),
    (Row, dict, None),
    ("Missing", int, None),
    (list["Missing"], list[int], None),  # type: ignore[name-defined]  # noqa: F821
    (pa.Table, pa.Table, True),
    (pa.Table, pa.RecordBatch, False),
    (np.ndarray, pa.Table, False),
    (np.float64, float, True),
    (np.int64, int, False),
    (NDArray[np.float64], np.ndarray, True),
    (NDArray[np.float64], NDArray[np.int64], False),
    (Callable[[int], int], int, False),
    (type, type, True),
]


@pytest.mark.parametrize(("produced", "wanted", "verdict"), FITS)
def test_whether_one_annotation_fits_another(produced: Any, wanted: Any, verdict: bool | None) -> None:
    assert fits(produced, wanted) is verdict


TAKES = [
    (int, 1, True),
    (int, True, True),
    (bool, 1, False),  # a value is what it is
    (float, 1, True),
    (int, 1.0, False),
    (int | None, None, True),
    (str | int, b"", False),
    (list[int], [1, 2], True),
    (list[int], [1, "2"], False),
    (list[int], [], True),
    (list[list[int]], [[1], ["2"]], False),
    (dict[str, int], {"a": 1}, True),
    (dict[str, int], {"a": "b"}, False),
    (tuple[int, ...], (1, "2"), False),
    (list, [1, "2"], True),
    (Sequence[int], ["a"], False),
    (Literal["a", 1], "a", True),
    (Literal["a", 1], True, False),
    (Literal["a"] | None, "b", False),
    (Annotated[list[int], "x"], ["a"], False),
    (Sized, "abc", None),
    (UserId, 1, None),
    (Decimal, 1, False),
    (np.ndarray, np.zeros(2), True),
    (int, np.int64(1), False),
    (bool, np.bool_(True), False),
    ("Missing", 1, None),
]


@pytest.mark.parametrize(("wanted", "value", "verdict"), TAKES)
def test_whether_a_value_may_be_given(wanted: Any, value: Any, verdict: bool | None) -> None:
    assert takes(wanted, value) is verdict


def test_who_accepts_none() -> None:
    assert [admits_none(each) for each in (Any, object, int | None, type(None), int, "Missing")] == [
        *(True, True, True, True),
        *(False, False),
    ]


def test_what_is_in_a_container() -> None:
    assert item_of(list[int] | None) is int
    assert item_of(Annotated[tuple[str, ...], "x"]) is str
    assert item_of(dict[str, float]) is float
    assert [item_of(each) for each in (list, int, tuple[int, str], list[int] | str, Box[int])] == [Any] * 5


def test_the_parts_of_a_result() -> None:
    assert field_names(Parts) == ("train", "test")
    assert field_names(tuple[int, str]) == ("0", "1")
    assert [field_names(each) for each in (tuple[int, ...], int, list[int], Any)] == [None] * 4


def test_annotations_are_written_as_people_do() -> None:
    shown = [
        show(each) for each in (Any, None.__class__, int, Parts, list[int], int | None, np.bool_, pa.Table)
    ]
    assert shown == ["anything", "None", "int", "Parts", "list[int]", "int | None", "numpy.bool", "Table"]


def test_annotations_in_quotes_are_read() -> None:
    def quoted(a: Any, b: Any, c: Any, d: Any, e: Any) -> None: ...

    texts = {"a": "int", "b": "'str'", "c": "Gone", "d": "list[Gone]", "e": "int | None", "return": "None"}
    quoted.__annotations__ = texts
    signature = read_signature(quoted)
    assert [each.annotation for each in signature.parameters.values()] == [int, str, Any, Any, int | None]
    assert signature.returns is type(None)
