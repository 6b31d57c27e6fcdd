"""Logs metrics to a run of a project, and says so by a line each once the call has returned.

`python logging_worker.py PROJECT NUMBER COUNT [MOST_BYTES]`: of every file at most so many bytes.
"""

import os
import resource
import sys

import noria
from noria.errors import StoreError


def main(project: str, number: str, count: str, most_bytes: str = "") -> None:
    with noria.open(project) as opened, opened.start_run(f"worker {number}", system_metrics=False) as run:
        os.write(1, f"{run.id}\n".encode())
        if most_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), resource.RLIM_INFINITY))
        for step in range(int(count)):
            try:
                run.log_metric("loss", step / 7)
            except StoreError as err:
                os.write(2, f"{type(err).__name__}\n".encode())
                break
            os.write(1, f"{step}\n".encode())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(*sys.argv[1:])
