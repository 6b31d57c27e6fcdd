"""A run of a pipeline in whole: what became of each step, however it ended."""

from collections.abc import Callable
from pathlib import Path

import pytest

import noria
from noria.errors import ConfigError, RunCancelled, StepFailed
from noria.pipelines.accounts import RunAccount
from noria.pipelines.records import Progress

STEPS = """
    import noria


    @noria.step
    def numbers(n: int) -> list[int]:
        return list(range(n))


    @noria.step(retries=1)
    def picky(x: int, run: noria.StepRun = noria.given) -> int:
        run.progress(x, 3)
        if x == 1 and run.attempt == 1:
            raise ValueError("not yet")
        if x == 2:
            raise ValueError("never")
        return x


    @noria.step
    def total(xs: list[int]) -> int:
        return sum(xs)


    @noria.pipeline
    def picking(n: int = 3) -> int:
        return total(picky.map(x=numbers(n))())


    @noria.step
    def cancels(project: noria.Project = noria.given) -> int:
        (run,) = project.ledger.list_runs(kind="pipeline", name="cancelling", limit=1)
        project.runs.cancel(run.id)
        import time

        time.sleep(60)
        return 1


    @noria.pipeline
    def cancelling() -> int:
        return total([total(numbers(2)), cancels()])
"""


@pytest.fixture
def root(make_project: Callable[..., Path]) -> Path:
    return make_project({"picked.py": STEPS}, '[compute]\nexecutor = "inline"\n')


def states(account: RunAccount) -> dict[str, tuple[str, int]]:
    return {each.step: (each.state, each.attempts) for each in account.steps}


def test_a_failed_run_tells_what_ran_what_failed_and_what_was_not_reached(root: Path) -> None:
    with noria.open(root) as project:
        with pytest.raises(StepFailed):
            project.run_pipeline("picking")
        first = project.runs.account(project.runs.get("picking"))
        assert states(first) == {
            "numbers": ("ran", 1),
            "picky[0]": ("ran", 1),
            "picky[1]": ("ran", 2),
            "picky[2]": ("failed", 2),
            "total": ("blocked", 0),
        }
        assert first.counts == {"ran": 3, "failed": 1, "blocked": 1}
        assert first.params == {"n": 3}
        assert first.value is None
        assert [each.ref for each in first.outputs] == [
            "picking/numbers:1",
            "picking/picky:1",
            "picking/picky:2",
        ]
        by_name = {each.step: each for each in first.steps}
        assert by_name["total"].because == "it waits for picky[2], which failed"
        tried = [each for each in project.runs.steps(first.run) if each.name == "picking/picky[1]"]
        cost = by_name["picky[1]"].cost
        assert cost is not None
        assert cost.wall_s == pytest.approx(sum(each.cost.wall_s for each in tried if each.cost is not None))
        with pytest.raises(StepFailed):
            project.run_pipeline("picking")
        again = project.runs.account(project.runs.get("picking"))
        assert states(again)["picky[1]"] == ("cached", 0)
        assert states(again)["picky[2]"] == ("failed", 2)
        assert again.counts == {"cached": 3, "failed": 1, "blocked": 1}
        assert [each.ref for each in again.kept] == [each.ref for each in first.outputs]
        assert again.outputs == ()
        made_by = {each.step: each.run for each in again.steps}
        assert made_by["numbers"] == by_name["numbers"].run


def test_a_part_of_a_pipeline_reads_what_is_kept_elsewhere(root: Path) -> None:
    with noria.open(root) as project:
        result = project.run_pipeline("picking/numbers", {"n": 1})
        account = project.runs.account(result.run)
        assert (account.value, account.counts) == ("list of 1", {"ran": 1})
        assert [each.step for each in account.steps] == ["numbers"]


def test_a_cancelled_run_tells_how_far_it_came(root: Path) -> None:
    with noria.open(root) as project:
        with pytest.raises(RunCancelled) as caught:
            project.run_pipeline("cancelling")
        assert str(caught.value).endswith("(asked for)")
        account = project.runs.account(project.runs.get("cancelling"))
        assert account.run.error == f"RunCancelled: {caught.value}"
        found = states(account)
        assert found["numbers"] == ("ran", 1)
        assert found["cancels"][0] == "cancelled"
        assert account.counts["cancelled"] == 1
        assert account.progress is None


def test_a_step_has_no_account(root: Path) -> None:
    with noria.open(root) as project:
        result = project.run_pipeline("picking/numbers", {"n": 1})
        (step,) = project.runs.steps(result.run)
        with pytest.raises(ConfigError, match="is a step; only runs of pipelines have steps to tell of"):
            project.runs.account(step)


def test_kinds_on_record_are_listed(root: Path) -> None:
    with noria.open(root) as project:
        assert project.runs.kinds() == []
        project.run_pipeline("picking/numbers", {"n": 1})
        assert project.runs.kinds() == ["pipeline", "step"]


def test_how_far_a_run_is_says_which_attempt_comes_next(root: Path) -> None:
    told: list[Progress] = []
    with noria.open(root) as project, pytest.raises(StepFailed):
        project.run_pipeline("picking", tell=told.append)
    again = {
        (one.task, one.attempt, one.attempts_at_most, one.because) for each in told for one in each.retrying
    }
    assert again == {("picky[1]", 2, 2, "ValueError: not yet"), ("picky[2]", 2, 2, "ValueError: never")}
    assert told[0].counts == {"ready": 1, "waiting": 1}  # before anything is looked up
