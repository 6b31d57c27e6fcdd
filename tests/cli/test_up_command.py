"""`noria up` as people run it: real runs of real pipelines, a real server, real signals."""

import json
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.workspace.up_harness import Up, running

import noria
from noria.records import RunState

Say = Callable[..., Any]

DECLARED = """
import time

import noria


@noria.step(cache=False)
def count(n: int) -> int:
    return n + 1


@noria.step(cache=False)
def linger(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@noria.step(cache=False)
def stumble() -> int:
    raise ValueError("the source is empty")


@noria.pipeline
def beat(n: int = 1) -> int:
    return count(n)


@noria.pipeline
def long(seconds: float = 60.0) -> float:
    return linger(seconds)


@noria.pipeline
def broken() -> int:
    return stumble()


by_beat = noria.Trigger(noria.every("1s", catch_up="all"), run=beat)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "noria.toml").write_text(
        '[project]\nname = "site"\nmodules = ["command_declared"]\n'
        "[server]\nport = 0\nlook_every_s = 0.25\nruns_at_once = 3\n"
    )
    (root / "command_declared.py").write_text(DECLARED)
    return root


def ended(up: Up, pipeline: str) -> dict[str, Any]:
    return up.wait_for("ended", lambda told: told["facts"]["pipeline"] == pipeline)


def test_what_is_decided_and_what_is_asked_for_is_run(site: Path) -> None:
    with running(site) as up:
        told = ended(up, "beat")
        assert told["facts"]["outcome"] == "finished"
        for name, params in (("beat", {"n": 41}), ("broken", {}), ("long", {"seconds": 60})):
            status, _ = up.ask(f"/api/noria/pipelines/{name}/runs", {"params": params, "key": name})
            assert status == 202
        assert "the source is empty" in ended(up, "broken")["message"]
        up.wait_for("run", lambda told: told["facts"]["pipeline"] == "long")
        until = time.monotonic() + 20
        while not (at_work := up.ask("/api/noria/runs?kind=pipeline&name=long&state=running")[1]):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert up.ask(f"/api/noria/runs/{at_work[0]['id']}/cancel", {})[0] == 202
        assert ended(up, "long")["facts"]["outcome"] == "cancelled"
        state = up.ask("/api/noria/status")[1]["up"]
        assert (state["role"], state["database"]) == ("leader", "ok")
        assert up.stop() == 0
        assert up.errors == ""
    with noria.open(site) as project:
        ledger = project.ledger
        run = ledger.get_run(told["facts"]["run"])
        assert run.cause is not None
        decision = ledger.get_event(run.cause)
        assert (run.state, run.name, decision.verb) == (RunState.FINISHED, "beat", "trigger.decided")
        assert ledger.get_event(decision.payload["because"]).verb == "schedule.ticked"
        outcomes = {
            each.subject: each.payload["outcome"] for each in ledger.list_events(verb="pipeline.settled")
        }
        assert (outcomes["broken"], outcomes["long"]) == ("failed", "cancelled")
        (asked,) = ledger.list_events(verb="pipeline.requested", subject="beat")
        assert [
            each.params["params"] for each in ledger.list_runs(kind="pipeline") if each.cause == asked.id
        ] in (
            [{"n": 41}],
            [],  # stopped before its turn
        )


def test_a_pipeline_at_work_outlives_the_leader_and_runs_once(site: Path) -> None:
    with running(site) as first, running(site) as second:
        first.wait_for_role("leader")
        second.wait_for_role("follower")
        second.ask("/api/noria/pipelines/long/runs", {"params": {"seconds": 3}})  # a follower takes it, too
        first.wait_for("run", lambda told: told["facts"]["pipeline"] == "long")
        time.sleep(1.5)
        first.kill()
        second.wait_for_role("leader")
        assert ended(second, "long")["facts"]["outcome"] == "finished"
        assert second.stop() == 0
    with noria.open(site) as project:
        runs = project.ledger.list_runs(kind="pipeline", name="long")
        assert [each.state for each in runs] == [RunState.FINISHED]
        ticks = [each.at for each in project.ledger.list_events(verb="schedule.ticked")]
        pauses = {(later - at).total_seconds() for at, later in pairwise(ticks)}
        assert pauses == {1.0}


def test_what_is_printed_says_where_and_what(site: Path, say: Say) -> None:
    (site / "command_declared.py").write_text("")
    process = Up([sys.executable, "-m", "noria", "up"], cwd=site)
    started = process.wait_for("line", lambda told: "control plane at http://127.0.0.1:" in told["text"])
    assert "project site: control plane at" in started["text"]
    process.wait_for("line", lambda told: "no trigger runs a pipeline" in told["text"])
    process.wait_for("line", lambda told: "this process leads" in told["text"])
    port = started["text"].partition("127.0.0.1:")[2].partition(";")[0]
    refused = say("up", "--project", site, "--port", port)
    assert (refused.code, refused.err) == (
        8,
        f"error: port {port} on 127.0.0.1 is in use; choose another with `--port`, 0 picks a free one\n",
    )
    process.process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    last = "stopped; nothing was at work; handed back to the next `noria up`: the lead\n"
    assert process.told[-1]["text"].endswith(last)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--environment", "producton"], 3, "no environment named 'producton'; did you mean 'production'?"),
        (["--environment", "past"], 2, "environment 'past' goes by the clock of a replay"),
        (["--port", "99999"], 2, "99999 is no port"),
    ],
)
def test_what_cannot_be_is_refused(site: Path, say: Say, options: list[str], code: int, message: str) -> None:
    with (site / "noria.toml").open("a") as settings:
        settings.write('[environments.production]\n[environments.past]\nclock = "replay"\n')
    told = say("up", "--project", site, *options)
    assert told.code == code
    assert message in told.err


def infer(url: str, name: str, columns: dict[str, Any]) -> dict[str, Any]:
    """Ask a server for one row; give the outputs by name."""
    inputs = [
        {
            "name": column,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for column, value in columns.items()
    ]
    request = Request(
        f"{url}/v2/models/{name}/infer",
        json.dumps({"inputs": inputs}).encode(),
        {"content-type": "application/json"},
    )
    with urlopen(request, timeout=20) as answer:
        return {each["name"]: each["data"][0] for each in json.load(answer)["outputs"]}


def test_deployments_are_served_follow_their_pointers_and_are_logged(
    noria: Callable[..., Any], lived_copy: Path
) -> None:
    settings = (lived_copy / "noria.toml").read_text()
    head, _, tail = settings.partition("[environments.production]")
    by_the_wall = tail.replace('clock = "replay"', "")
    (lived_copy / "noria.toml").write_text(
        f"{head}[environments.production]{by_the_wall}\n[server]\nport = 0\nlook_every_s = 0.2\n"
    )
    asked = noria("query", "select inputs from predictions limit 1", "--json", cwd=lived_copy)
    columns = json.loads(asked.stdout)[0]["inputs"]
    with running(lived_copy) as up:
        warned = up.wait_for("warning")
        assert warned["message"].endswith("in this release a replay alone runs trainings")
        told = up.wait_for("serving")
        (serving,) = up.ask("/api/noria/status")[1]["up"]["serving"]
        assert (serving["environment"], serving["deployment"], serving["error"]) == (
            "production",
            "late_parcel",
            None,
        )
        assert serving["address"] in told["message"]
        assert infer(serving["address"], "late_parcel", columns)["version"] == 5
        assert noria("rollback", "late_parcel@production", cwd=lived_copy).returncode == 0
        up.wait_for("serving", lambda told: "late_parcel:2" in told["message"])
        after = infer(serving["address"], "late_parcel", columns)
        assert after["version"] == 2
        assert up.stop() == 0
        assert up.told[-2]["message"] == "production/late_parcel stopped: noria up stops"
        assert up.told[-1]["message"] == (
            "stopped; servers of production/late_parcel stopped; handed back to the next `noria up`: the lead"
        )
    traced = noria("trace", after["prediction_id"], "--json", cwd=lived_copy)
    assert json.loads(traced.stdout)["prediction"]["model"] == "late_parcel:2"
