# mypy: ignore-errors
"""Metaflow: independent tasks on this machine, two at a time, on its local metadata and datastore."""

import subprocess
import sys
from pathlib import Path

from bench.peers.counting import tell


def run(tasks: int) -> None:
    flow = str(Path(__file__).with_name("metaflow_flow.py"))
    subprocess.run(
        [sys.executable, flow, "--quiet", "run", "--max-workers", "2", "--tasks", str(tasks)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    tell("metaflow", run, few=2, many=10)
