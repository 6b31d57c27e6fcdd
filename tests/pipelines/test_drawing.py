"""Pipelines as they are drawn: which nodes and edges come out."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.pipelines.drawn_steps import (
    add,
    anything,
    drawn,
    fit,
    is_big,
    number,
    numbers,
    pair,
    parts,
    text,
    total,
    typed_elsewhere,
    with_run,
)

from noria.pipelines.declarations import pipeline
from noria.pipelines.graph import Keyed, Listed, Literal, Result
from noria.pipelines.tracing import draw, draw_step


def test_a_call_is_a_node_and_its_arguments_are_its_edges() -> None:
    graph = drawn(lambda: add(number(), b=number(2)))
    assert [each.name for each in graph.nodes] == ["number", "number_2", "add"]
    assert graph.by_name["number"].arguments == {}
    assert graph.by_name["number_2"].arguments == {"x": Literal(2)}
    assert graph.by_name["add"].arguments == {"a": Result("number"), "b": Result("number_2")}
    assert graph.result == Result("add")


def test_position_and_name_are_the_same_argument() -> None:
    one, other = drawn(lambda: add(1, 2, 4)), drawn(lambda: add(c=4, b=2, a=1))
    assert one.nodes[0].arguments == other.nodes[0].arguments


def test_parameters_are_handed_on_with_their_defaults() -> None:
    @pipeline
    def shown(n: int, m: int = 4) -> int:
        return add(n, m)

    graph = draw(shown, {"n": 3})
    assert graph.params == {"n": 3, "m": 4}
    assert graph.nodes[0].arguments == {"a": Literal(3), "b": Literal(4)}


def test_fields_are_taken_by_name_by_position_and_all_at_once() -> None:
    def shown() -> Any:
        train, test = parts(1)
        low, high = pair(1)
        fitted = fit(parts(1).train)
        return [train, test, low, high, pair(2)[-1], fitted.score, fitted[1]]  # type: ignore[index]

    graph = drawn(shown)
    assert graph.result == Listed(
        (
            Result("parts", "train"),
            Result("parts", "test"),
            Result("pair", "0"),
            Result("pair", "1"),
            Result("pair_2", "1"),
            Result("fit", "score"),
            Result("fit", "rows"),
        )
    )


def test_results_lie_in_containers() -> None:
    def shown() -> Any:
        one = number()
        anything([one, 2, (one, {"a": one})], {"plain": [1]})
        return {"one": one, "many": [one]}

    graph = drawn(shown)
    one = Result("number")
    assert graph.by_name["anything"].arguments == {
        "a": Listed((one, Literal(2), Listed((one, Keyed({"a": one})), is_tuple=True))),
        "b": Literal({"plain": [1]}),
    }
    assert graph.result == Keyed({"one": one, "many": Listed((one,))})


def test_nested_pipelines_have_names_of_their_own() -> None:
    @pipeline
    def inner(n: int = 1) -> int:
        return number.named("first").after(number(n))(n)

    @pipeline(executor="inline")
    def outer() -> int:
        return add(inner(), inner(2))

    def shown() -> int:
        return add(outer(), inner())

    graph = drawn(shown)
    assert [each.name for each in graph.nodes] == [
        "outer/inner/number",
        "outer/inner/first",
        "outer/inner_2/number",
        "outer/inner_2/first",
        "outer/add",
        "inner/number",
        "inner/first",
        "add",
    ]
    assert graph.by_name["outer/inner/first"].after == ("outer/inner/number",)
    assert graph.by_name["outer/inner/number"].step.executor == "inline"
    assert graph.by_name["inner/number"].step.executor is None


def test_names_that_were_given_are_kept_free() -> None:
    def shown() -> Any:
        number.named("number_2")()
        return [number(), number(), number()]

    assert [each.name for each in drawn(shown).nodes] == ["number_2", "number", "number_3", "number_4"]


def test_when_after_named_and_map_go_together_in_any_order() -> None:
    def shown() -> Any:
        big, first = is_big(1), number()
        one = add.named("one").when(big).after(first, big).map(a=[1, 2])(b=3)
        other = add.map(a=[1, 2]).named("other").after(first, big).when(big)(b=3)
        return [one, other]

    graph = drawn(shown)
    one, other = graph.by_name["one"], graph.by_name["other"]
    assert (one.items, one.arguments) == ({"a": Literal([1, 2])}, {"b": Literal(3)})
    assert (one.conditions, one.after) == ((Result("is_big"),), ("number", "is_big"))
    for name in ("items", "arguments", "conditions", "after"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("items", [(1, 2), range(1, 3), np.arange(1, 3), pa.array([1, 2]), iter([1, 2])])
def test_items_are_written_as_plain_values(items: Any) -> None:
    graph = drawn(lambda: number.map(x=items)())
    assert graph.nodes[0].items == {"x": Literal([1, 2])}


def test_map_takes_results_lists_of_results_and_other_maps() -> None:
    def shown() -> Any:
        over_list = number.map(x=numbers(3))()
        over_map = add.map(a=over_list, b=over_list)()
        mixed = number.map(x=[number(), 2])()
        return [over_map, mixed, number.map(x=[])()]

    graph = drawn(shown)
    assert graph.by_name["number"].items == {"x": Result("numbers")}
    assert graph.by_name["add"].items == {"a": Result("number"), "b": Result("number")}
    assert graph.by_name["number_3"].items == {"x": Listed((Result("number_2"), Literal(2)))}
    assert graph.by_name["number_4"].items == {"x": Literal([])}
    assert graph.split == {("numbers", "")}  # the others are apart as they are


def test_a_list_that_changes_after_the_call_stays_as_it_was() -> None:
    def shown() -> Any:
        rows, where = [[1]], {"a": [1]}
        total(rows[0])
        anything(where, [(rows,)])
        rows[0].append(2)
        where["a"].append(2)
        rows.append([3])

    graph = drawn(shown)
    assert graph.by_name["total"].arguments == {"xs": Literal([1])}
    assert graph.by_name["anything"].arguments == {"a": Literal({"a": [1]}), "b": Literal([([[1]],)])}


def test_part_of_a_graph_keeps_its_lists_as_the_whole_does() -> None:
    def shown() -> Any:
        return total(number.map(x=numbers(3))())

    part = drawn(shown).until(["numbers"])
    assert [each.name for each in part.nodes] == ["numbers"]
    assert part.split == {("numbers", "")}
    assert part.result == Result("numbers")


def test_a_step_alone_is_a_graph() -> None:
    graph = draw_step(add, {"a": 1, "b": 2})
    assert graph.result == Result("add")
    assert graph.nodes[0].arguments == {"a": Literal(1), "b": Literal(2)}


def test_what_noria_hands_over_is_no_edge() -> None:
    assert drawn(lambda: with_run(1)).nodes[0].arguments == {"x": Literal(1)}


def test_a_class_that_only_type_checkers_know_is_taken_as_anything() -> None:
    assert len(drawn(lambda: text(typed_elsewhere(number()))).nodes) == 3  # type: ignore[arg-type]


def test_a_pipeline_that_gives_nothing_has_no_result() -> None:
    def shown() -> None:
        number()

    assert drawn(shown).result is None
