"""`noria stream list`, `push`, `consume`, and what `noria up` does with streams, as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from noria.workspace.project import open as open_project
from noria.workspace.streaming import PartitionStanding, StreamStanding, list_streams

Noria = Callable[..., subprocess.CompletedProcess[str]]
DECLARED = """
import noria

clicks = noria.Dataset("clicks", key="id", event_at="at",
                       schema={"id": "string", "at": "timestamp[us, tz=UTC]"})
stream = noria.Stream("clicks", into=clicks, every="1s")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "noria.toml").write_text(
        '[project]\nname = "shop"\nmodules = ["shop_declared"]\n\n[server]\nport = 0\nlook_every_s = 0.1\n'
    )
    (folder / "shop_declared.py").write_text(DECLARED)
    return folder


def lines(count: int, *, start: int = 0) -> str:
    return "".join(f'{{"id":"{each}","at":"2024-05-01T10:00:00Z"}}\n' for each in range(start, start + count))


def listed(shop: Path) -> StreamStanding:
    with open_project(shop) as project:
        (found,) = list_streams(project)
        return found


def part(shop: Path) -> PartitionStanding:
    (found,) = listed(shop).partitions
    return found


def wait_until_landed(shop: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while part(shop).committed != count - 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_file_is_pushed_listed_and_consumed(shop: Path, noria: Noria) -> None:
    assert part(shop).end is None
    (shop / "events.jsonl").write_text(lines(120) + "\n" + lines(1, start=500).strip())
    pushed = noria("stream", "push", "clicks", "events.jsonl", cwd=shop)
    assert pushed.stdout == "121 events are in stream clicks.\n"
    waiting = json.loads(noria("stream", "list", "--json", cwd=shop).stdout)[0]
    (there,) = waiting["partitions"]
    assert (there["end"], there["committed"], there["lag_events"]) == (120, None, 121)
    assert there["lag_s"] > 0
    assert (waiting["into"], waiting["consumer"]) == ("clicks", None)
    consumed = noria("stream", "consume", "clicks", "--until-empty", cwd=shop)
    assert consumed.stdout.endswith("121 events of clicks have landed: 121 accepted.\n"), consumed.stderr
    table = noria("stream", "list", cwd=shop).stdout.splitlines()
    assert table[0].split()[:5] == ["stream", "into", "partition", "end", "landed"]
    assert table[1].split() == ["clicks", "clicks", "0", "120", "120", "0", "0.0", "-", "finished"]
    with open_project(shop) as project:
        (run,) = project.ledger.list_runs(kind="stream", name="clicks")
    assert run.metrics["events"] == 121
    assert run.metrics["events_per_s"] > 0


def test_standard_input_is_pushed_as_it_comes(shop: Path, noria: Noria) -> None:
    command = [sys.executable, "-m", "noria", "stream", "push", "clicks", "-", "--json"]
    child = subprocess.Popen(command, cwd=shop, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    child.stdin.write(lines(3))
    child.stdin.flush()
    deadline = time.monotonic() + 30
    while part(shop).end != 2:  # before its input has ended
        assert time.monotonic() < deadline
        time.sleep(0.05)
    out, _ = child.communicate(lines(2, start=3), timeout=30)
    assert json.loads(out) == {"accepted": 5, "offset": 4}


def test_a_line_that_is_no_event_tells_what_is_in_the_stream(shop: Path, noria: Noria) -> None:
    (shop / "bad.jsonl").write_text(lines(30_000) + '{"id":\n')
    done = noria("stream", "push", "clicks", "bad.jsonl", cwd=shop)
    assert done.returncode == 4
    assert "bad.jsonl: line 30001 is no JSON object" in done.stderr
    end = part(shop).end
    assert end is not None
    assert f"The {end + 1} events before line {end + 2} are in the stream" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("push", "cliks", "-"), 3, "did you mean 'clicks'?"),
        (("push", "clicks", "nowhere.jsonl"), 4, "nowhere.jsonl cannot be read: No such file"),
        (("push", "clicks", "."), 4, "cannot be read: Is a directory"),
        (("consume", "cliks"), 3, "no stream named 'cliks'"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(
    shop: Path, noria: Noria, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = noria("stream", *arguments, cwd=shop)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_a_broker_that_is_away_is_told_by_the_list(shop: Path, noria: Noria) -> None:
    pytest.importorskip("nats")
    settings = (shop / "noria.toml").read_text() + '\n[stores]\nstream = "nats://127.0.0.1:1"\n'
    (shop / "noria.toml").write_text(settings)
    found = listed(shop)
    assert found.partitions == ()
    assert "the NATS server at nats://127.0.0.1:1 is away" in (found.error or "")
    assert "is away" in noria("stream", "list", cwd=shop).stdout
    done = noria("stream", "consume", "clicks", "--until-empty", cwd=shop)
    assert done.returncode == 9


def test_ctrl_c_ends_a_consumer_after_what_it_read_has_landed(shop: Path, noria: Noria) -> None:
    command = [sys.executable, "-m", "noria", "stream", "consume", "clicks", "--json"]
    child = subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, text=True)
    (shop / "events.jsonl").write_text(lines(10))
    noria("stream", "push", "clicks", "events.jsonl", cwd=shop)
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["events"] == 10
    child.send_signal(signal.SIGINT)
    last = json.loads(child.communicate(timeout=30)[0].splitlines()[-1])
    assert (child.returncode, last["state"], last["metrics"]["accepted"]) == (0, "finished", 10)


def test_noria_up_consumes_starts_a_killed_consumer_again_and_takes_it_down_with_it(
    shop: Path, noria: Noria
) -> None:
    command = [sys.executable, "-m", "noria", "up", "--json"]
    up = subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None

    def wait_for(kind: str) -> dict[str, Any]:
        assert up.stdout is not None
        for line in up.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["kind"] == kind:
                return told
        raise AssertionError("noria up has ended")

    url = wait_for("started")["facts"]["url"]
    first = int(wait_for("stream")["message"].rpartition(" ")[2])

    def push(start: int) -> None:
        body = lines(5, start=start).encode()
        asked = Request(f"{url}/streams/clicks", body, {"content-type": "application/x-ndjson"})
        with urlopen(asked, timeout=20) as answer:
            assert json.loads(answer.read())["accepted"] == 5

    push(0)
    wait_until_landed(shop, 5)
    os.kill(first, signal.SIGKILL)
    assert (
        "the consumer of stream clicks ended: its process was ended by SIGKILL"
        in wait_for("warning")["message"]
    )
    second = int(wait_for("stream")["message"].rpartition(" ")[2])
    assert second != first
    push(5)
    wait_until_landed(shop, 10)
    with urlopen(f"{url}/api/noria/status", timeout=20) as answer:
        (stream,) = json.loads(answer.read())["up"]["streams"]
    assert (stream["stream"], stream["pid"]) == ("clicks", second)
    up.send_signal(signal.SIGKILL)  # its consumer ends with it
    up.wait()
    up.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{second}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with open_project(shop) as project:
        assert project.lake.read("clicks").num_rows == 10
