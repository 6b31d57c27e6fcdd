"""Steps and pipelines as they are declared, and as they run on their own."""

import functools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from noria.errors import ConfigError
from noria.pipelines.declarations import Resources, StepRun, given, pipeline, step

REPOSITORY = Path(__file__).parents[2]


@step
def number(x: int) -> int:
    return x


@step
def power(base: int, exponent: int = 2) -> int:
    return int(base**exponent)


@step
def total(xs: list[int]) -> int:
    return sum(xs)


@step
def is_big(x: int) -> bool:
    return x > 10


@step
def shout(x: int) -> str:
    return f"{x}!"


@step
def calm(x: int | None, loud: str | None = None) -> str:
    return f"{x} {loud}"


@step
def with_run(x: int, run: StepRun = given) -> int:
    run.progress(1, 2)
    run.log_metric("x", x)
    return x + run.attempt


async def waiting(x: int) -> int:
    return x


def yielding(x: int) -> Iterator[int]:
    yield x


async def both(x: int) -> AsyncIterator[int]:
    yield x


class Holder:
    def method(self, x: int) -> int:
        return x

    @staticmethod
    def alone(x: int) -> int:
        return x


# -- what may be declared


def test_a_step_keeps_what_it_is_told() -> None:
    made = step(
        name="fit", cpus=2, gpus=0.5, memory="2GiB", timeout="10m", retries=3, backoff="5s",
        executor="inline", cache=False, files=["sql/*.sql"],
    )(power.function)  # fmt: skip
    assert made.name == "fit"
    assert made.resources == Resources(2.0, 0.5, 2 * 2**30)
    assert (made.timeout, made.backoff) == (timedelta(minutes=10), timedelta(seconds=5))
    assert (made.retries, made.executor, made.cache, made.files) == (3, "inline", False, ("sql/*.sql",))
    assert made.target.endswith("test_declaring:power")


def test_one_pattern_may_be_written_without_a_list() -> None:
    assert step(files="sql/*.sql")(power.function).files == ("sql/*.sql",)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "a-b"}, "the step name 'a-b' must have letters, digits and '_', no digit first"),
        ({"cpus": -1}, "step 'number': cpus, gpus and retries cannot be negative"),
        ({"retries": -1}, "step 'number': cpus, gpus and retries cannot be negative"),
        ({"timeout": "soon"}, "step 'number' timeout: "),
        ({"backoff": "soon"}, "step 'number' backoff: "),
        ({"memory": "much"}, "step 'number' memory is 'much'; write for example '500MB' or '2GiB'"),
        ({"memory": 0}, "step 'number' memory is 0; it must be positive"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        step(**options)(number.function)
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (3, "@step wants a function, found 3"),
        (Holder, "@step wants a function, found <class"),
        (functools.partial(power.function, 2), "@step wants a function, found functools.partial"),
        (number, "@step wants a function, found Step("),
        (waiting, "waiting is async; await inside of it with asyncio.run(...)"),
        (both, "both yields; let it return a list"),
        (yielding, "yielding yields; let it return a list"),
        (lambda x: x, "<lambda> has no name; write it with `def` at the top of a module"),
        (Holder.method, "Holder.method is a method; put it at the top of a module, as a function"),
        (Holder.alone, "Holder.alone is a method; put it at the top of a module, as a function"),
    ],
)
def test_what_is_no_plain_function_is_refused(function: Any, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        step(function)
    assert told in str(raised.value)


def test_a_function_within_a_function_is_refused() -> None:
    def hidden(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match="is local to a function, where other processes do not find it"):
        step(hidden)


@pytest.mark.parametrize("function", [waiting, both, yielding])
def test_a_pipeline_is_a_plain_function_too(function: Callable[[int], Any]) -> None:
    with pytest.raises(ConfigError, match="@pipeline wants a plain function"):
        pipeline(function)


def test_map_names_its_arguments() -> None:
    with pytest.raises(ConfigError, match=r"step 'power': map\(\) names the arguments"):
        power.map()


# -- how they run on their own


def test_a_step_on_its_own_runs() -> None:
    assert power(3) == 9
    assert power(3, exponent=3) == 27
    assert power.map(base=[1, 2, 3])(exponent=3) == [1, 8, 27]
    assert with_run(1) == 2


@pytest.mark.parametrize(
    ("items", "given_as"),
    [
        ((1, 2), "a tuple"),
        (range(1, 3), "a range"),
        (iter([1, 2]), "an iterator"),
        (np.arange(1, 3), "an array"),
        ({1: "a", 2: "b"}.keys(), "keys"),
    ],
)
def test_map_takes_what_has_an_order(items: Any, given_as: str) -> None:
    if given_as == "keys":
        with pytest.raises(ConfigError, match="has no order; give sorted"):
            power.map(base=items)()
        return
    results = power.map(base=items)()
    assert results == [1, 4]
    assert {type(each) for each in results} == {int}


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ({"base": 3}, r"step 'power': map\(\) takes 'base' item by item; give a list, not 3"),
        ({"base": "abc"}, r"step 'power': map\(\) takes 'base' item by item; give a list, not 'abc'"),
        ({"base": {"a": 1}}, r"item by item; give a list, not \{'a': 1\}"),
        ({"base": {1, 2}}, r"takes 'base' item by item, and a set has no order; give sorted\(base\)"),
        ({"base": [1], "exponent": [1, 2]}, r"step 'power': the lists of map\(\) have different lengths"),
    ],
)
def test_map_over_what_is_no_list_is_refused(items: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        power.map(**items)()


@pipeline
def weekly(x: int = 3) -> str:
    squares = power.map(base=[x, x + 1])()
    whole = total(squares)
    loud = shout.when(is_big(whole))(whole)
    return calm(whole, loud)


def test_a_pipeline_on_its_own_runs_its_steps_in_turn() -> None:
    assert weekly(3) == "25 25!"


def test_a_pipeline_on_its_own_skips_what_a_run_would_skip() -> None:
    assert weekly(1) == "5 None"


@pipeline
def skipping(x: int = 1) -> list[Any]:
    nothing = number.when(is_big(x))(x)
    return [
        power(nothing),  # wants a number
        calm(nothing),  # takes None as well
        total([nothing, number(2)]),
        power.map(base=[nothing, number(2)])(),
        power.map(base=[nothing, nothing])(),
        power.after(nothing).when(is_big(11)).map(base=[2])(),
    ]


def test_what_gets_nothing_is_skipped_where_it_wants_something() -> None:
    assert skipping() == [None, "None None", None, [None, 4], None, [4]]


# -- types, as mypy sees them

SAMPLE = """
    from dataclasses import dataclass
    from typing import NamedTuple, assert_type

    import noria
    from noria import StepRun, given, pipeline, step


    class Parts(NamedTuple):
        train: list[int]
        test: list[int]


    @step
    def rows(month: str, limit: int = 3) -> list[int]:
        return [limit]


    @step(retries=2, timeout="10m", memory="2GiB", files=["sql/*.sql"])
    def split(rows: list[int], seed: int) -> Parts:
        return Parts(rows, rows)


    @step
    def score(fold: int, parts: Parts, run: StepRun = given) -> float:
        run.log_metric("fold", fold)
        return fold / run.attempt


    @step(cache=False)
    def is_good(scores: list[float]) -> bool:
        return min(scores) > 0


    @step
    def best(scores: list[float], project: noria.Project = given) -> float:
        print(project.name)
        return max(scores)


    @pipeline
    def inner(month: str) -> Parts:
        return split(rows(month), seed=1)


    @pipeline(deadline="2h")
    def weekly(month: str = "2013-01") -> float:
        parts = inner(month)
        again = split(parts.train, seed=2)
        scores = score.map(fold=again.test)(parts=parts)
        assert_type(again, Parts)
        assert_type(scores, list[float])
        return best.named("choice").after(parts.test).when(is_good(scores))(scores)


    assert_type(weekly(), float)
    assert_type(rows("2013-01"), list[int])
"""
WRONG = """
    from noria import pipeline, step


    @step
    def rows(month: str) -> list[int]:
        return []


    @pipeline
    def weekly() -> str:
        rows(3)
        rows()
        return rows("a")
"""


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    folder = tmp_path_factory.mktemp("typed")

    def check(text: str) -> list[str]:
        (folder / "sample.py").write_text(dedent(text), encoding="utf-8")
        command = [
            sys.executable, "-m", "mypy", "--strict", "--config-file", str(REPOSITORY / "pyproject.toml"),
            "--no-error-summary", str(folder / "sample.py"),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return [line.partition("sample.py:")[2] for line in done.stdout.splitlines() if "sample.py" in line]

    return check


def test_mypy_accepts_what_people_write(mypy: Callable[[str], list[str]]) -> None:
    assert mypy(SAMPLE) == []


def test_mypy_sees_what_is_wrong(mypy: Callable[[str], list[str]]) -> None:
    assert [line.partition(": error: ")[2].partition("  [")[2].rstrip("]") for line in mypy(WRONG)] == [
        "arg-type",
        "call-arg",
        "return-value",
    ]
