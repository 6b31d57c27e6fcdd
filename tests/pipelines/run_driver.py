"""Runs a pipeline as a process: `python run_driver.py ROOT PIPELINE EXECUTOR [PARAMS] [DIES] [KEY]`.

It prints what became of it as JSON. `DIES` is `PLACE:NUMBER:WHEN`: the process kills itself with SIGKILL just
before or just after it is at this place for the NUMBERth time: `put` (a blob is kept), `record` (runs are
written), `commit` (a transaction is made to last).
"""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

import noria
from noria.errors import NoriaError
from noria.pipelines.recording import Recorder
from noria.storage.local import LocalStorage


def die_at(place: str, number: int, when: str) -> None:
    owner: Any
    owner, name = {
        "put": (LocalStorage, "put"),
        "record": (Recorder, "_write"),
        "commit": (Connection, "commit"),
    }[place]
    count, work = itertools.count(1), getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        is_the_one = next(count) == number
        if is_the_one and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = work(*args, **kwargs)
        if is_the_one:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def main(root: str, pipeline: str, executor: str, params: str = "{}", dies: str = "", key: str = "") -> int:
    if dies:
        place, number, when = dies.split(":")
        die_at(place, int(number), when)
    with noria.open(root) as project:
        run: Callable[..., Any] = project.run_pipeline
        try:
            result = run(pipeline, json.loads(params), executor=executor, key=key or None)
        except NoriaError as error:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
            return 1
    told = {
        "run": result.run.id,
        "counts": result.counts,
        "outputs": result.outputs,
        "state": result.run.state,
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
