"""The demo as a child process, whole or killed at random instants, and its figures for comparison."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TIMES = re.compile(r"answers took at most [0-9.e+-]+ ms")


def demo_command(folder: Path, *, until: str | None, figures: Path) -> list[str]:
    command = [sys.executable, "-m", "noria", "demo", str(folder), "--json", str(figures)]
    return command if until is None else [*command, "--until", until]


def run_demo(folder: Path, *, until: str | None, timeout_s: float = 900) -> dict[str, Any]:
    figures = folder.with_suffix(".json")
    done = subprocess.run(
        demo_command(folder, until=until, figures=figures),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
    made: dict[str, Any] = json.loads(figures.read_text())
    return made


def run_demo_with_kills(
    folder: Path, *, until: str | None, kills: int, seed: int, undisturbed_s: float
) -> tuple[dict[str, Any], list[float]]:
    """Kill the demo `kills` times, each at a random instant of what is left, then let it end."""
    rng = random.Random(seed)
    instants = []
    for _ in range(kills):
        # Together they take no longer than the undisturbed run, so every kill finds it at work.
        after_s = rng.uniform(0.3, 0.95 * undisturbed_s / kills)
        process = subprocess.Popen(
            demo_command(folder, until=until, figures=folder.with_suffix(".json")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            instants.append(after_s)
        else:
            break  # it had ended before its time came
    return run_demo(folder, until=until), instants


def comparable(figures: dict[str, Any]) -> dict[str, Any]:
    """Keep what may not depend on kills: everything but timings and the numbers of events."""
    kept = {
        name: figures[name]
        for name in ("loop", "frozen", "months", "accidents", "retrains", "predictions", "labelled")
    }
    kept["money"] = figures["money"]
    kept["decisions"] = [
        {
            name: _TIMES.sub("answers took some ms", str(value))
            for name, value in decision.items()
            if name != "event"
        }
        for decision in figures["decisions"]
    ]
    return kept


def timed_demo(folder: Path, *, until: str | None) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    return run_demo(folder, until=until), time.monotonic() - began
