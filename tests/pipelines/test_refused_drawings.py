"""What cannot be drawn: the message says what was found, what was wanted, and where."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.pipelines import drawn_steps
from tests.pipelines.drawn_steps import Box, Point, drawn, refused

from noria.errors import ConfigError
from noria.pipelines.declarations import pipeline, step
from noria.pipelines.tracing import draw

STEPS: Any = drawn_steps  # what is called below is wrong, and type checkers would say so
add = STEPS.add
anything = STEPS.anything
array = STEPS.array
is_big = STEPS.is_big
number = STEPS.number
numbers = STEPS.numbers
pair = STEPS.pair
parts = STEPS.parts
table = STEPS.table
text = STEPS.text
total = STEPS.total
wants_table = STEPS.wants_table
with_run = STEPS.with_run


# -- what a result that is not there yet cannot do

QUESTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "bool": (lambda x: bool(x), "it is asked whether it is true; use STEP.when(RESULT)(...)"),
    "if": (lambda x: 1 if x else 2, "it is asked whether it is true"),
    "and": (lambda x: x and 1, "it is asked whether it is true"),
    "not": (lambda x: not x, "it is asked whether it is true"),
    "len": (len, "its length is asked; let a step tell"),
    "equal": (lambda x: x == 1, "it is compared; let a step compare"),
    "unequal": (lambda x: x != 1, "it is compared"),
    "less": (lambda x: x < 1, "it is compared"),
    "at least": (lambda x: x >= 1, "it is compared"),
    "max": (lambda x: max(x, 1), "it is compared"),
    "in": (lambda x: 1 in x, "something is looked for in it; let a step look"),
    "inside": (lambda x: x in [1, 2], "it is compared"),
    "loop": (lambda x: dict.fromkeys(x), "it is looped over; fan out with STEP.map(...)"),
    "unpack": (lambda x: print(*x), "it is looped over"),
    "list": (list, "it is looped over"),
    "sum": (sum, "it is looped over"),
    "plus": (lambda x: x + 1, "it is reckoned with; let a step reckon"),
    "plus, from the right": (lambda x: 1 + x, "it is reckoned with"),
    "minus": (lambda x: -x, "it is reckoned with"),
    "power": (lambda x: 2**x, "it is reckoned with"),
    "divided": (lambda x: x // 2, "it is reckoned with"),
    "or": (lambda x: x | 1, "it is reckoned with"),
    "abs": (abs, "it is reckoned with"),
    "array": (lambda x: np.arange(3) + x, "it is reckoned with"),
    "f-string": (lambda x: f"{x}", "it is written as text; let a step write it"),
    "f-string with a format": (lambda x: f"{x:>10}", "it is written as text"),
    "str": (str, "it is written as text"),
    "join": (lambda x: "%s" % x, "it is written as text"),  # noqa: UP031
    "int": (int, "it is made a number; let a step do that"),
    "float": (float, "it is made a number"),
    "index": (lambda x: [1, 2][x], "it is made a number"),
    "round": (round, "it is made a number"),
    "floor": (math.floor, "it is made a number"),
    "range": (range, "it is made a number"),
    "item": (lambda x: x[0], "[0] is asked of it, it has no parts with names; let a step take it out"),
    "slice": (lambda x: x[1:], "is asked of it"),
    "key": (lambda x: x["a"], "['a'] is asked of it"),
    "attribute": (lambda x: x.mean(), "'mean' is asked of it, it has no parts with names"),
    "call": (lambda x: x(), "it is called; call steps by their names"),
    "set": (lambda x: setattr(x, "a", 1), "its 'a' is set; let a step give it as it should be"),
    "set an item": (lambda x: x.__setitem__(0, 1), "it is changed"),
    "with": (lambda x: x.__enter__(), "it is waited for; steps that take it wait by themselves"),
    "next": (next, "it is stepped through"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_result_cannot_be_looked_into(question: str) -> None:
    ask, told = QUESTIONS[question]
    message = refused(lambda: ask(number()))
    assert message.startswith("the result of number is not known while the pipeline is drawn, and ")
    assert told in message


def test_a_result_with_parts_names_them() -> None:
    told = (
        "the result of parts is not known while the pipeline is drawn, and {} is asked of it, its parts are "
        "train, test"
    )
    assert refused(lambda: parts(1).rows).startswith(told.format("'rows'"))
    assert refused(lambda: parts(1)[2]).startswith(told.format("[2]"))
    assert refused(lambda: parts(1)["train"]).startswith(told.format("['train']"))
    assert refused(lambda: pair(1).count).startswith("the result of pair is not known")


def test_a_mapped_step_has_no_parts() -> None:
    assert "it has no parts with names" in refused(lambda: parts.map(x=[1])().train)
    assert "it is looped over" in refused(lambda: list(parts.map(x=[1])()))


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        (lambda x: {x}, "<result of number> lies in a set"),
        (lambda x: frozenset([x]), "lies in a frozenset"),
        (lambda x: Point(x, 1), "lies in a Point"),
        (lambda x: Box([x]), "lies in a Box"),
        (lambda x: [Box(x)], "lies in a list"),
        (lambda x: {x: 1}, "lies in a dict"),
        (lambda x: {x: x}, "lies in a list"),
    ],
)
def test_results_are_put_into_lists_tuples_and_dicts_alone(wrap: Callable[[Any], Any], told: str) -> None:
    for message in (refused(lambda: anything(wrap(number()))), refused(lambda: wrap(number()))):
        assert told in message
        assert "hand it over by itself, or in a list, a tuple or a dict (as a value)" in message


# -- calls that are wrong


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: add(1), "pipeline 'shown', step 'add': the input 'b' of add() is missing; give it"),
        (lambda: add(1, 2, d=4), "got an unexpected keyword argument 'd'; add() has the parameters: a, b, c"),
        (lambda: add(1, 2, 3, 4), "step 'add': too many positional arguments; add() has the parameters"),
        (lambda: add(1, a=2, b=3), "step 'add': multiple values for argument 'a'"),
        (lambda: add.map(a=[1])(2, 3), "step 'add': multiple values for argument 'a'"),
        (lambda: add("1", 2), "'a' of add() is '1' (str), wanted is int"),
        (lambda: add(1.0, 2), "'a' of add() is 1.0 (float), wanted is int"),
        (lambda: add(None, 2), "'a' of add() is None (NoneType), wanted is int"),
        (lambda: total([1, "2"]), "'xs' of total() is [1, '2'] (list), wanted is list[int]"),
        (lambda: total((1, 2)), "'xs' of total() is (1, 2) (tuple), wanted is list[int]"),
        (lambda: add(text(1), 2), "text gives str, but 'a' of add() wants int; give another result"),
        (lambda: total([number(), text(1)]), "text gives str, but 'xs' of total() wants int"),
        (lambda: total((number(),)), "'xs' of total() is a tuple of results, wanted is list[int]"),
        (lambda: total({"a": number()}), "'xs' of total() is a dict of results, wanted is list[int]"),
        (lambda: add(parts(1).test, 2), "parts.test gives str, but 'a' of add() wants int"),
        (lambda: add(pair(1)[1], 2), "pair.1 gives str, but 'a' of add() wants int"),
        (
            lambda: wants_table(array(3)),
            "numpy.dtype[numpy.float64]], but 'rows' of wants_table() wants Table",
        ),
        (lambda: wants_table(number()), "number gives int, but 'rows' of wants_table() wants Table"),
        (lambda: wants_table(np.zeros(3)), "wanted is Table"),
        (lambda: with_run(1, run=None), "'run' of with_run() is handed over by noria; leave it out"),
        (lambda: total(number.map(x=[1])), "number.map(...) is not called yet; add its other arguments"),
        (lambda: anything([number]), "number is handed over, not its result; call it: number(...)"),
        (lambda: add.when(True)(1, 2), "when() wants the result of a step; use a plain `if` for True (bool)"),
        (
            lambda: add.when(number())(1, 2),
            "its condition number gives int, wanted is bool; let a step decide",
        ),
        (
            lambda: add.when(is_big.map(x=[1])())(1, 2),
            "its condition is_big gives list[bool], wanted is bool",
        ),
        (lambda: add.after(3)(1, 2), "it can wait for the result of a step only, not for 3 (int)"),
        (lambda: number.map(x=3)(), "map() takes 'x' item by item; give a list, not 3"),
        (lambda: number.map(x="abc")(), "map() takes 'x' item by item; give a list, not 'abc'"),
        (lambda: number.map(x={"a": 1})(), "map() takes 'x' item by item; give a list, not {'a': 1}"),
        (lambda: number.map(x={1, 2})(), "and a set has no order; give sorted(x)"),
        (lambda: number.map(x=number())(), "map() takes 'x' item by item, but number gives int; let it"),
        (
            lambda: number.map(x=text(1))(),
            "map() takes 'x' item by item, but text gives str; let it give a list",
        ),
        (lambda: number.map(x=table(1))(), "but table gives Table; let it give a list"),
        (lambda: number.map(x=["a"])(), "'x' of number() is 'a' (str), wanted is int"),
        (lambda: number.map(x=[text(1)])(), "text gives str, but 'x' of number() wants int"),
        (lambda: total.map(xs=numbers(3))(), "items of numbers are int, but 'xs' of total() wants list[int]"),
        (lambda: number.map(x=text.map(x=[1])())(), "items of text are str, but 'x' of number() wants int"),
        (
            lambda: add.map(a=[1, 2], b=[number()])(),
            "the lists of map() have different lengths: 'a' has 2, 'b' has 1; make them equal",
        ),
        (
            lambda: [number.named("one")(), text.named("one")(1)],
            "pipeline 'shown': two steps produce 'one'; give one another name with .named(...)",
        ),
    ],
)
def test_a_wrong_call_is_refused_with_its_place(call: Callable[[], Any], told: str) -> None:
    message = refused(call)
    assert told in message
    assert message.startswith("pipeline 'shown'")


def test_the_path_from_the_end_to_the_place_is_told() -> None:
    def shown() -> Any:
        return total([add(number("a"), 1)])

    assert refused(shown) == (
        "pipeline 'shown', step 'number' (path: total <- add <- number): 'x' of number() is 'a' (str), "
        "wanted is int"
    )


def test_a_wrong_call_within_a_nested_pipeline_names_the_way() -> None:
    @pipeline
    def inner(n: int) -> Any:
        return add(n)

    nested: Any = inner

    @pipeline
    def wrong(n: int) -> Any:
        return add(n, 1, d=3)

    assert "step 'inner/add': the input 'b' of add() is missing" in refused(lambda: nested(1))
    assert refused(lambda: wrong(1)).startswith("pipeline 'shown > wrong', step 'add': got an unexpected")
    assert refused(lambda: nested()) == (
        "pipeline 'shown > inner': the parameter 'n' is missing; give it, or a default"
    )
    assert refused(lambda: nested("a")) == ("pipeline 'shown > inner': 'n' is 'a' (str), wanted is int")
    assert "pipeline 'inner': got an unexpected keyword argument 'm'" in refused(lambda: nested(1, m=2))


@step
def many(*xs: int) -> int:
    return sum(xs)


@step
def loose(**options: int) -> int:
    return len(options)


@step
def strict(x: int, /) -> int:
    return x


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: many(1, 2), "many() takes *xs: int; a step's parameters are its edges and need names"),
        (lambda: loose(a=1), "loose() takes **options: int; a step's parameters are its edges"),
        (lambda: strict(1), "strict() takes x: int; a step's parameters are its edges and need names"),
    ],
)
def test_parameters_have_names(call: Callable[[], Any], told: str) -> None:
    assert told in refused(call)


# -- pipelines that are wrong


def test_a_pipeline_without_steps_is_refused() -> None:
    assert refused(lambda: 3) == "pipeline 'shown' calls no step; call one in its function"


def test_parameters_are_checked() -> None:
    def shown(n: int, months: list[str] | None = None) -> Any:
        del months
        return number(n)

    assert refused(shown) == "pipeline 'shown': the parameter 'n' is missing; give it, or a default"
    assert refused(shown, n=1, m=2) == "pipeline 'shown' has no parameter 'm'; it has n, months"
    assert refused(shown, n="1") == "pipeline 'shown': 'n' is '1' (str), wanted is int"
    assert (
        refused(shown, n=1, months=[1])
        == "pipeline 'shown': 'months' is [1] (list), wanted is list[str] | None"
    )
    assert refused(lambda: number(), m=2) == "pipeline 'shown' has no parameter 'm'; it has none"


def test_a_pipeline_that_contains_itself_is_refused() -> None:
    @pipeline
    def one() -> Any:
        return add(other(), 1)

    @pipeline
    def other() -> Any:
        return one()

    @pipeline
    def alone() -> Any:
        return alone()

    with pytest.raises(ConfigError) as raised:
        draw(one)
    assert str(raised.value) == (
        "pipelines go in a circle: one -> other -> one; a pipeline cannot contain itself"
    )
    with pytest.raises(ConfigError) as raised:
        draw(alone)
    assert "pipelines go in a circle: alone -> alone;" in str(raised.value)


def test_two_pipelines_of_one_name_are_no_circle() -> None:
    @pipeline(name="shown")
    def inner() -> Any:
        return number()

    assert [each.name for each in drawn(lambda: inner()).nodes] == ["shown/number"]


def test_a_function_that_calls_itself_without_end_is_refused() -> None:
    def shown() -> Any:
        number()
        return shown()

    assert refused(shown) == "pipeline 'shown' calls itself without end"


def test_a_result_before_its_step_is_refused_with_the_line() -> None:
    def shown() -> Any:
        early = add(late, 1)  # type: ignore[has-type, used-before-def]  # noqa: F821
        late = number(early)
        return add(late, early)

    message = refused(shown)
    assert message.startswith(
        "pipeline 'shown' uses a result before the step that gives it (test_refused_drawings.py, line "
    )
    assert message.endswith("a step cannot wait for one that waits for it")


def test_a_pipeline_that_raises_while_it_is_drawn_names_the_line() -> None:
    def shown() -> Any:
        number()
        return {"a": number}["b"]()

    message = refused(shown)
    assert message.startswith("pipeline 'shown' failed while it was drawn (test_refused_drawings.py, line ")
    assert message.endswith("): KeyError: 'b'")


def test_nothing_of_a_drawing_stays_behind() -> None:
    refused(lambda: [number(), 1 / 0])
    assert number(3) == 3
