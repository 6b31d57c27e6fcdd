"""Logs metrics to a run that a server keeps, and says so by a line each once the call has returned.

`python remote_worker.py SERVER NUMBER COUNT`
"""

import os
import sys

import noria


def main(server: str, number: str, count: str) -> None:
    with noria.start_run(f"worker {number}", server=server, system_metrics=False) as run:
        os.write(1, f"{run.id}\n".encode())
        for step in range(int(count)):
            run.log_metric("loss", step / 7)
            os.write(1, f"{step}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
