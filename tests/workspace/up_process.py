"""Runs `noria up` with the stand-in for runs: `python up_process.py PROJECT FOLDER`. Prints lines of JSON."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from noria.cli.options import Options
from noria.cli.up import keep_up
from noria.workspace.up.records import Job

STAND_IN = Path(__file__).with_name("up_stand_in.py")


def stand_in(folder: str, job: Job) -> Sequence[str]:
    words = [str(STAND_IN), folder, job.pipeline, job.key, json.dumps(job.params)]
    if job.pipeline == "missing":
        return [f"{folder}/no-such-program"]
    return [sys.executable, "-S", "-E", *words]  # without site: it starts in an instant


if __name__ == "__main__":
    project, folder = sys.argv[1:3]
    keep_up(Options(project=Path(project), json=True), port=0, argv=lambda job: stand_in(folder, job))
