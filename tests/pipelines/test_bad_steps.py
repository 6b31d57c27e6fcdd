"""A step may do what it likes: it fails alone, with words that help, and nothing of it is left behind."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import noria
from noria.errors import ConfigError, StepFailed
from noria.pipelines.work import _peak_bytes, _reset_peak
from noria.records import Run, RunState

STEPS = Path(__file__).with_name("bad_steps.py")
BOTH = pytest.mark.parametrize("executor", ["inline", "processes"])


@pytest.fixture
def root(make_project: Any) -> Path:
    made: Path = make_project({"bad.py": STEPS.read_text()})
    return made


@pytest.fixture
def project(root: Path) -> Iterator[noria.Project]:
    with noria.open(root) as project:
        yield project
    assert files_below(root / ".noria" / "pipelines") == []


def files_below(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if not each.is_dir()]


def failure(project: noria.Project, target: str, executor: str, **params: Any) -> str:
    """Run something that fails; give what is told of it."""
    with pytest.raises(StepFailed) as caught:
        project.run_pipeline(target, params, executor=executor)
    (run,) = project.ledger.list_runs(kind="pipeline", limit=1)
    assert run.state is RunState.FAILED
    assert project.ledger.list_runs(state=RunState.RUNNING) == []
    assert project.ledger.verify().ok
    (reason,) = caught.value.reasons
    return reason


def steps(project: noria.Project) -> list[Run]:
    return project.ledger.list_runs(kind="step", newest_first=False)


def log_of(project: noria.Project, run: Run) -> bytes:
    return project.runs.log(run)


@BOTH
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("raises", "ValueError: seven is not allowed"),
        ("raises_mutely", "Mute: "),
        ("raises_oddly", "Odd: odd"),
        ("raises_surrogates", r"ValueError: \\udcff"),
        ("generator_exits", "GeneratorExit"),
        ("recurses", "RecursionError: "),
        ("exits", "SystemExit: the step called exit\\('bye'\\)"),
        ("wrong_type", "TypeError: wrong_type/wrong_type gave str, declared is int"),
        ("unstorable", "lock"),
        ("writes_into_array", "read-only"),
    ],
)
def test_a_step_that_goes_wrong_says_how(
    project: noria.Project, executor: str, target: str, told: str
) -> None:
    reason = failure(project, target, executor)
    assert re.search(told, reason), reason
    assert len(reason) < 5_000
    assert project.run_pipeline("fine", {"x": 1}, executor=executor).value == 2


def test_an_interrupt_by_a_worker_s_step_is_its_error(project: noria.Project) -> None:
    assert "KeyboardInterrupt" in failure(project, "interrupts", "processes")


def test_an_interrupt_inline_is_ctrl_c(project: noria.Project) -> None:
    with pytest.raises(KeyboardInterrupt):
        project.run_pipeline("interrupts", executor="inline")
    (run,) = project.ledger.list_runs(kind="pipeline")
    assert run.state is RunState.CANCELLED
    assert [each.state for each in steps(project)] == [RunState.CANCELLED]


@BOTH
def test_a_very_deep_result_is_kept_or_refused(project: noria.Project, executor: str) -> None:
    try:
        value = project.run_pipeline("deep", executor=executor).value
    except StepFailed as error:
        assert len(str(error)) < 5_000
    else:
        assert isinstance(value, list)
    assert project.run_pipeline("fine", {"x": 1}, executor=executor).value == 2


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("kills_itself", "its process was ended by SIGKILL"),
        ("crashes", "its process was ended by SIGSEGV"),
        ("eats_memory", "MiB of memory, allowed are 286 MiB; raise `memory`"),
        ("eats_memory_at_once", "MiB of memory, allowed are 286 MiB; raise `memory`"),
        ("eats_memory_in_a_child", "MiB of memory, allowed are 286 MiB; raise `memory`"),
        ("hangs", "TimeoutError: it did not end within 1 s"),
        ("hangs_stubbornly", "TimeoutError: it did not end within 1 s"),
        ("hangs_in_c", "TimeoutError: it did not end within 1 s"),
        ("forks_and_leaves", "its process ended with code 5 in the middle of the step"),
        ("closes_everything", "its process|closed the pipe"),
    ],
)
def test_a_worker_that_dies_fails_its_step_alone(project: noria.Project, target: str, told: str) -> None:
    began = time.monotonic()
    assert re.search(told, failure(project, target, "processes"))
    assert time.monotonic() - began < 10
    assert project.run_pipeline("fine", {"x": 1}, executor="processes").value == 2


@pytest.mark.parametrize("code", [0, 3])
def test_leaving_the_process_is_no_success(project: noria.Project, root: Path, code: int) -> None:
    told = failure(project, "exits_hard", "processes", code=code)
    assert f"its process ended with code {code} in the middle of the step" in told
    assert (root / "half.txt").read_text() == "half"


@pytest.mark.parametrize("target", ["hangs", "hangs_stubbornly"])
def test_a_timeout_ends_python_code_inline(project: noria.Project, target: str) -> None:
    assert "TimeoutError" in failure(project, target, "inline")
    assert project.run_pipeline("fine", {"x": 1}, executor="inline").value == 2


@BOTH
def test_what_a_step_does_to_its_input_is_seen_by_no_other(project: noria.Project, executor: str) -> None:
    assert project.run_pipeline("reads_after_change", executor=executor).value == 3


@BOTH
def test_what_is_printed_is_kept_by_whatever_way_it_comes(
    project: noria.Project, executor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    project.run_pipeline("prints", {"text": "by Python \u00fc \udcff"}, executor=executor)
    log = log_of(project, steps(project)[0])
    for told in ("by Python \u00fc \\udcff\n", "to stderr\n", "by a child\n"):
        assert told.encode() in log
    assert b"by descriptor \xff\n" in log
    shown = "".join(capfd.readouterr())
    assert ("by Python" in shown) is (executor == "inline")
    assert ("by a child" in shown) is (executor == "inline")


@BOTH
def test_a_flood_of_output_is_kept_without_holding_it(
    project: noria.Project, executor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    project.run_pipeline("prints_much", executor=executor)
    (run,) = steps(project)
    found = project.engine.store.find_log(run.id)
    assert found is not None
    assert found[1] == 100_000_000
    assert project.storage.exists(found[0])
    if executor == "processes":
        assert run.metrics["memory_peak_bytes"] < 300e6
    capfd.readouterr()


def test_a_step_that_closes_its_output_ends_well_and_so_does_the_next(project: noria.Project) -> None:
    assert project.run_pipeline("after_closing", executor="processes").value == 2


@BOTH
def test_what_a_step_does_to_its_process_ends_with_it(project: noria.Project, executor: str) -> None:
    found = project.run_pipeline("disturbed", executor=executor).value
    assert found["home"]
    assert not found["disturbed"]
    assert not found["path"]
    assert not found["term"]
    assert found["masked"] == []
    assert found["folder"] != "/"
    assert found["recursion"] != 5_000
    assert b"still here" in log_of(project, steps(project)[-1])


def test_random_numbers_are_seeded_alike_everywhere(make_project: Any) -> None:
    drawn = []
    for executor in ("inline", "processes"):
        with noria.open(make_project({"bad.py": STEPS.read_text()}, name=executor)) as project:
            drawn.append(project.run_pipeline("draws", executor=executor).value)
    assert drawn[0] == drawn[1]


def test_a_child_that_a_step_leaves_ends_with_the_executor(root: Path) -> None:
    with noria.open(root) as project:
        pid = project.run_pipeline("leaves_child", executor="processes").value
        assert project.run_pipeline("fine", {"x": 1}, executor="processes").value == 2
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]


def test_a_thread_that_a_step_leaves_holds_nothing_up(root: Path) -> None:
    began = time.monotonic()
    with noria.open(root) as project:
        assert project.run_pipeline("leaves_thread", executor="processes").value >= 2
        assert project.run_pipeline("fine", {"x": 1}, executor="processes").value == 2
    assert time.monotonic() - began < 20


@BOTH
def test_a_step_that_forks_is_done_once(project: noria.Project, executor: str) -> None:
    assert project.run_pipeline("forks", executor=executor).value == 1
    assert len(steps(project)) == 1


def test_garbage_on_the_pipe_ends_the_worker_not_the_run(project: noria.Project) -> None:
    assert "pipe" in failure(project, "babbles", "processes")
    assert project.run_pipeline("fine", {"x": 1}, executor="processes").value == 2


@BOTH
def test_a_step_may_remove_its_folder(project: noria.Project, executor: str) -> None:
    assert project.run_pipeline("deletes_folder", executor=executor).value == 1
    assert project.run_pipeline("fine", {"x": 1}, executor=executor).value == 2


@BOTH
def test_attempts_are_on_record_one_by_one(project: noria.Project, executor: str) -> None:
    began = time.monotonic()
    assert project.run_pipeline("succeeds_late", executor=executor).value == 3
    assert time.monotonic() - began >= 0.6  # 0.2 s, then 0.4 s
    assert [(each.attempt, each.state) for each in steps(project)] == [
        (1, RunState.FAILED),
        (2, RunState.FAILED),
        (3, RunState.FINISHED),
    ]
    assert [each.error and each.error.partition("\n")[0] for each in steps(project)] == [
        "ValueError: attempt 1",
        "ValueError: attempt 2",
        None,
    ]


@BOTH
def test_what_does_not_need_a_failed_step_runs(project: noria.Project, executor: str) -> None:
    told = failure(project, "some_go_on", executor)
    assert told.startswith("raises: ValueError")
    done = {each.name.partition("/")[2] for each in steps(project) if each.state is RunState.FINISHED}
    assert done == {f"good_{number}" for number in range(5)}
    (run,) = project.ledger.list_runs(kind="pipeline")
    counts = {name: count for name, count in run.metrics.items() if name.startswith("tasks_")}
    assert counts == {"tasks_ran": 5, "tasks_failed": 1, "tasks_blocked": 3}


@pytest.mark.parametrize(("target", "told"), [("too_wide", "1000 CPUs"), ("too_large", "bytes of memory")])
def test_more_than_there_is_is_refused(project: noria.Project, target: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        project.run_pipeline(target, executor="processes")


def test_more_than_there_is_is_refused_before_anything_runs(project: noria.Project) -> None:
    with pytest.raises(ConfigError, match="too_wide wants 1000 CPUs, executor 'processes' has"):
        project.run_pipeline("too_wide_in_the_end", executor="processes")
    assert steps(project) == []


def test_fractions_of_cpus_share_one(project: noria.Project) -> None:
    began = time.monotonic()
    project.run_pipeline("quarters", executor="processes")
    runs = steps(project)
    first_ended = min(each.ended_at for each in runs if each.ended_at is not None)
    cpus = len(os.sched_getaffinity(0))
    assert sum(each.started_at < first_ended for each in runs) > min(cpus, 4)
    assert time.monotonic() - began < 10


def test_steps_that_want_no_cpu_are_bounded(project: noria.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.pipelines.backends.processes._MOST_WORKERS", 5)
    pids = project.run_pipeline("many_free", executor="processes").value
    assert 2 < len(set(pids)) <= 5


@BOTH
def test_a_run_ends_at_its_deadline(project: noria.Project, executor: str) -> None:
    began = time.monotonic()
    with pytest.raises(StepFailed, match="did not end within its deadline of 1 s"):
        project.run_pipeline("too_long", executor=executor)
    assert time.monotonic() - began < 5
    assert {each.state for each in steps(project)} == {RunState.CANCELLED}
    assert project.ledger.list_runs(state=RunState.RUNNING) == []


def test_an_alarm_that_a_step_leaves_does_not_ring_in_the_next(project: noria.Project) -> None:
    assert project.run_pipeline("alarmed", executor="processes").value == 1


@BOTH
def test_whatever_a_step_says_of_itself_can_be_kept(project: noria.Project, executor: str) -> None:
    began = time.monotonic()
    project.run_pipeline("floods", executor=executor)
    assert time.monotonic() - began < 10
    (run,) = steps(project)
    assert len(run.metrics) == 101 + 3
    assert (run.metrics["0"], run.metrics["\\udcff"]) == (1.0, 2.0)


@BOTH
def test_steps_that_ask_for_another_executor_have_it(project: noria.Project, executor: str) -> None:
    one, two = project.run_pipeline("both_places", executor=executor).value
    assert set(one) == {os.getpid()}
    assert os.getpid() not in two
    executors = {each.name.partition("/")[2][:4]: each.params["executor"] for each in steps(project)}
    assert executors == {"here": "inline", "ther": "processes", "join": executor}


@BOTH
@pytest.mark.parametrize("inner", ["inline", "processes"])
def test_a_step_may_run_a_pipeline(project: noria.Project, executor: str, inner: str) -> None:
    result = project.run_pipeline("nests", {"executor": inner}, executor=executor)
    assert result.value == 3
    assert project.ledger.verify().ok
    assert {each.name: each.state for each in project.ledger.list_runs(kind="pipeline")} == {
        "nests": RunState.FINISHED,
        "some_fine": RunState.FINISHED,
    }


def test_a_large_table_does_not_go_through_the_parent(project: noria.Project) -> None:
    project.run_pipeline("large_table", {"rows": 10}, executor="processes")
    _reset_peak()
    before = _peak_bytes()
    assert project.run_pipeline("large_table", executor="processes").value == 25_000_000
    assert _peak_bytes() - before < 30e6
    largest = max(each.metrics["bytes_out"] for each in steps(project))
    assert largest == pytest.approx(200e6, rel=0.01)
