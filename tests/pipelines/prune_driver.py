"""Forgets every kept result as a process: `python prune_driver.py ROOT [before|after]`.

With a second word the process kills itself with SIGKILL just before or just after that is committed.
"""

import os
import signal
import sys
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection

import noria
from noria.pipelines.pruning import prune


def die(when: str) -> None:
    commit = Connection.commit

    def dying(self: Connection) -> None:
        if when == "after":
            commit(self)
        os.kill(os.getpid(), signal.SIGKILL)

    Connection.commit = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    root, *when = sys.argv[1:]
    with noria.open(root) as project:
        project.ledger.list_events(limit=1)  # opened, with its tables
        if when:
            die(when[0])
        told = prune(project.ledger, project.storage, before=datetime.now(UTC))
        sys.stdout.write(msgspec.json.encode(told).decode())
