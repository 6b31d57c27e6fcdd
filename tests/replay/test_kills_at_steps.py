"""A replay that dies between two steps of the very day that matters goes on as if it had not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import noria

# The day on which the canary is promoted and the rollback drill happens: three moves of the pointer.
DIES = """
import os, sys
import noria
from noria.ledger.store import Ledger

append, verb, day, after = Ledger.append, sys.argv[1], sys.argv[2], sys.argv[3] == "after"

def dying(self, said, **more):
    if said == verb and f"{more['at']:%Y-%m-%d}" == day and not after:
        os.kill(os.getpid(), 9)
    event = append(self, said, **more)
    if said == verb and f"{more['at']:%Y-%m-%d}" == day:
        os.kill(os.getpid(), 9)
    return event

Ledger.append = dying
noria.open(sys.argv[4]).replay()
"""


def figures(report: dict[str, Any]) -> dict[str, Any]:
    kept = ("loop", "frozen", "money", "predictions", "labelled", "parity_rows", "parity_differences")
    return {name: report[name] for name in kept} | {"decisions": len(report["decisions"])}


@pytest.mark.parametrize(
    ("verb", "when"),
    [
        ("replay.day_done", "before"),
        ("accident.settled", "after"),
        ("canary.passed", "after"),
        ("monitor.evaluated", "before"),
    ],
)
def test_a_kill_on_the_day_of_the_promotion_changes_nothing(
    tiny: Path, tiny_lived: Path, verb: str, when: str
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", DIES, verb, "2024-02-17", when, str(tiny)], capture_output=True, check=False
    )
    assert died.returncode == -9, died.stderr[-2_000:]
    with noria.open(tiny) as project:
        project.replay()
        answering = project.query("""
            select distinct version from predictions
            where environment = 'production' and answered and "at" >= timestamptz '2024-02-18 00:00:00+00'""")
        assert answering["version"].to_pylist() == [5]
        assert project.ledger.verify().ok
    again = subprocess.run(
        [sys.executable, "-m", "noria", "replay", "--project", str(tiny), "--json", "again.json"],
        cwd=tiny,
        capture_output=True,
        check=False,
    )
    assert again.returncode == 0
    wanted = json.loads((tiny_lived.parent / "report.json").read_text())
    assert figures(json.loads((tiny / "again.json").read_text())) == figures(wanted)
