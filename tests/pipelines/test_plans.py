"""Plans: what would run, what would not, and why, in the words that people read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.conftest import MakeProject, write_files

import noria
from noria.errors import ConfigError, NotFound

WORK = """
    import noria
    from noria import pipeline, step

    LIMIT = 10


    @step
    def numbers(n: int) -> list[int]:
        return list(range(n))


    @step
    def square(x: int) -> int:
        return x * x


    @step
    def total(xs: list[int]) -> int:
        return sum(xs)


    @step
    def is_big(x: int) -> bool:
        return x > LIMIT


    @step
    def shout(x: int) -> str:
        return f"{x}!"


    @step
    def whisper(x: int, loud: str | None) -> str:
        return f"{x} {loud}"


    @step(cache=False)
    def stamp(x: int) -> int:
        return 1


    @pipeline
    def weekly(n: int = 3) -> str:
        whole = total(square.map(x=numbers(n))())
        loud = shout.when(is_big(whole))(whole)
        return whisper(whole, loud)


    @pipeline
    def stamped(n: int = 3) -> str:
        return shout(stamp(n))


    @pipeline
    def uneven(n: int = 3) -> list[int]:
        return both.map(a=numbers(n), b=numbers(2))()


    @step
    def both(a: int, b: int) -> int:
        return a + b


    @step
    def fails(x: int) -> int:
        raise ValueError("no")


    @pipeline
    def failing(n: int = 3) -> int:
        return square(fails(n))
"""


@pytest.fixture
def root(make_project: MakeProject) -> Path:
    return make_project({"work.py": WORK})


Planned = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def plan(root: Path) -> Planned:
    """Give a function that plans a pipeline: task -> (state, reason)."""

    def make(
        target: str = "weekly", params: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, tuple[str, str]]:
        with noria.open(root) as project:
            items = project.plan_pipeline(target, params or {}, **options).items
        return {each.task: (each.state, each.reason) for each in items}

    return make


@pytest.fixture
def run(root: Path) -> Callable[..., Any]:
    def make(target: str = "weekly", params: dict[str, Any] | None = None, **options: Any) -> Any:
        with noria.open(root) as project:
            return project.run_pipeline(target, params or {}, executor="inline", **options)

    return make


def test_what_has_never_run_runs(plan: Planned) -> None:
    assert plan() == {
        "numbers": ("run", "it has never run"),
        "square[?]": ("open", "how often it runs is known once numbers has run"),
        "total": ("open", "how often square runs is not known yet"),
        "is_big": ("open", "how often square runs is not known yet"),
        "shout": ("open", "how often square runs is not known yet"),
        "whisper": ("open", "how often square runs is not known yet"),
    }


def test_what_is_up_to_date_stays(plan: Planned, run: Callable[..., Any]) -> None:
    result = run()
    found = plan()
    assert {state for state, _ in found.values()} == {"cached", "skip"}
    assert found["shout"] == ("skip", "its condition is_big is false")
    assert (
        found["numbers"][1]
        == f"nothing that it depends on has changed since run {result.runs['numbers'][:16]}"
    )
    assert run().counts == {"cached": 7, "skipped": 1}


def test_a_changed_parameter_is_told(plan: Planned, run: Callable[..., Any]) -> None:
    run()
    found = plan(params={"n": 4})
    assert found["numbers"] == ("run", "parameter 'n' changed: 3 became 4")
    assert found["square[?]"][0] == "open"


def test_what_may_stay_as_it_was_is_open(plan: Planned, run: Callable[..., Any], root: Path) -> None:
    run()
    found = plan(force=["square"])
    assert found["square[0]"] == ("run", "it is asked to run again")
    assert found["whisper"] == ("open", "shout may not be run")
    write_files(root, {"work.py": WORK.replace("LIMIT = 10", "LIMIT = 2")})
    found = plan()
    told = "work.py line 5: `LIMIT = 10` became `LIMIT = 2`"
    assert found["numbers"] == ("run", told)
    run()
    write_files(root, {"work.py": WORK})
    assert {state for state, _ in plan().values()} == {"cached", "skip"}


def test_a_condition_that_is_not_known_leaves_open_what_follows(
    plan: Planned, run: Callable[..., Any]
) -> None:
    run(params={"n": 4})
    found = plan(params={"n": 4}, force=["is_big"])
    assert found["total"][0] == "cached"
    assert found["is_big"] == ("run", "it is asked to run again")
    assert found["shout"] == ("open", "its condition is_big is not known yet")
    assert found["whisper"] == ("open", "shout may not be run")


def test_what_is_not_kept_runs_each_time(plan: Planned, run: Callable[..., Any]) -> None:
    run("stamped")
    assert plan("stamped") == {
        "stamp": ("run", "it is declared with cache=False: each run runs it"),
        "shout": (
            "open",
            "it runs only if something else comes of that: input 'x' comes from stamp, which runs",
        ),
    }
    assert run("stamped").counts == {"ran": 1, "cached": 1}


def test_what_goes_on_after_a_failure_is_not_repeated(
    plan: Planned, run: Callable[..., Any], root: Path
) -> None:
    failing = WORK.replace("return square(fails(n))", "return square(fails(stamp(n)))")
    write_files(root, {"work.py": failing})
    with pytest.raises(noria.errors.StepFailed):
        run("failing")
    found = plan("failing")
    assert found["stamp"][0] == "cached"
    assert found["fails"] == ("run", "it has never run")
    assert found["square"][0] == "open"


def test_lists_of_different_lengths_are_foreseen(plan: Planned, run: Callable[..., Any]) -> None:
    with pytest.raises(noria.errors.StepFailed, match="'a' has 3, 'b' has 2"):
        run("uneven")
    assert plan("uneven")["both"] == (
        "skip",
        "it cannot run: the lists that both takes item by item have different lengths: 'a' has 3, 'b' has 2",
    )


def test_a_part_of_a_pipeline_finds_what_the_whole_kept(plan: Planned, run: Callable[..., Any]) -> None:
    run()
    assert {state for state, _ in plan("weekly/numbers").values()} == {"cached"}
    assert set(plan("weekly/total")) == {"numbers", "square[0]", "square[1]", "square[2]", "total"}
    assert run("weekly/total").value == 5


def test_a_step_alone_is_planned_by_its_name(plan: Planned, run: Callable[..., Any]) -> None:
    assert plan("square", {"x": 3}) == {"square": ("run", "it has never run")}
    assert run("square", {"x": 3}).value == 9
    assert plan("square", {"x": 3})["square"][0] == "cached"


def test_a_renamed_step_says_so(plan: Planned, run: Callable[..., Any], root: Path) -> None:
    run("stamped")
    renamed = WORK.replace("def shout", "def cry").replace("shout(stamp(n))", 'cry.named("shout")(stamp(n))')
    write_files(root, {"work.py": renamed.replace("shout.when", "cry.when")})
    assert plan("stamped")["shout"][1].startswith("the step was work:shout, now it is work:cry; input 'x'")


@pytest.mark.parametrize(
    ("target", "params", "error", "told"),
    [
        ("daily", {}, NotFound, "daily"),
        ("weekly/gone", {}, ConfigError, "pipeline 'weekly' has no step 'gone'; it has numbers, square"),
        ("weekly", {"n": "many"}, ConfigError, "'n' is 'many'"),
        ("weekly", {"m": 1}, ConfigError, "pipeline 'weekly' has no parameter 'm'; it has n"),
        ("square/x", {}, ConfigError, "'square' is a step and has no step 'x' inside"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    plan: Planned, target: str, params: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        plan(target, params)


def test_forcing_what_is_not_there_is_refused(plan: Planned) -> None:
    with pytest.raises(ConfigError, match="pipeline 'weekly' has no step 'gone'"):
        plan(force=["gone"])


# -- code that changes while the project is open


def test_a_pipeline_that_is_held_is_the_newest_of_its_name(root: Path) -> None:
    with noria.open(root) as project:
        held = project.declarations.pipelines["weekly"]
        assert project.run_pipeline(held, executor="inline").value == "5 None"
        write_files(root, {"work.py": WORK.replace("LIMIT = 10", "LIMIT = 4")})
        assert project.run_pipeline(held, executor="inline").value == "5 5!"
        write_files(root, {"work.py": WORK.replace("def weekly", "def monthly")})
        with pytest.raises(ConfigError, match="'weekly' is no longer work:weekly, which was changed"):
            project.run_pipeline(held, executor="inline")
        with pytest.raises(NotFound, match="weekly"):
            project.run_pipeline("weekly", executor="inline")


def test_code_that_no_longer_loads_names_the_line(root: Path) -> None:
    with noria.open(root) as project:
        project.run_pipeline("weekly", executor="inline")
        write_files(root, {"work.py": WORK.replace("LIMIT = 10", "LIMIT = 1 / 0")})
        with pytest.raises(ConfigError, match=r"work.py, line 5: ZeroDivisionError: division by zero"):
            project.plan_pipeline("weekly")
        write_files(root, {"work.py": WORK})
        assert project.run_pipeline("weekly", executor="inline").value == "5 None"
