"""Forks processes that do ledger work, one for each line of JSON on stdin, until stdin ends.

This process is not pytest's, so that a fork takes a few milliseconds and inherits nothing of it. What a
worker has on record it acknowledges by one `write(2)` to its file: that survives its kill, as
the record should.
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.records import RunState


def work(url: str, acks: str, seed: int, steps: int | None) -> None:
    """Do `steps` pieces of work (None: until killed), acknowledging each."""
    rng = random.Random(seed)
    out = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(**done: Any) -> None:
        os.write(out, json.dumps(done).encode() + b"\n")

    acknowledge(began=os.getpid())
    ledger = Ledger(Database.open(url), clock=WallClock())
    acknowledge(opened=True)
    step = 0
    while steps is None or step < steps:
        step += 1
        match rng.randrange(4):
            case 0:
                acknowledge(event=ledger.append("work.done", payload={"worker": seed, "step": step}).id)
            case 1:
                acknowledge(
                    event=ledger.append("day.closed", key=f"day/{step // 4}").id, key=f"day/{step // 4}"
                )
            case 2:
                with ledger.running("train", "late", params={"step": step}) as run:
                    acknowledge(run=run.id)
                    version = run.record_version(
                        "model", "late", sha256=f"{rng.getrandbits(256):064x}", uri="u"
                    )
                    acknowledge(version=version.id)
                    run.metrics["step"] = step
                acknowledge(finished=run.id)
                moved = ledger.move_pointer("production", "late", version.id, stable=True, reason="better")
                acknowledge(event=moved.event)
            case _:
                run_id = ledger.start_run("ingest", "flights").id
                acknowledge(run=run_id)
                ledger.heartbeat(run_id)
                ledger.finish_run(run_id, state=RunState.FAILED, error="planned")
                acknowledge(failed=run_id)
    acknowledge(ended=True)


def main() -> None:
    """Fork a worker for each order; say its pid, and on the order `{}` how each worker ended."""
    children: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order:
            child = os.fork()
            if child == 0:
                with Path(order["acks"] + ".err").open("w") as errors:
                    os.dup2(errors.fileno(), 2)
                work(order["url"], order["acks"], order["seed"], order["steps"])
                os._exit(0)
            children.append(child)
            print(child, flush=True)
        else:
            ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            children.clear()
            print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()
