"""`python -m noria.serving FOLDER NUMBER LISTENER CHANNEL [METRICS]`: a worker, as a supervisor starts it."""

import os
import socket
import sys
from pathlib import Path

_USAGE = (
    "usage: python -m noria.serving FOLDER NUMBER LISTENER CHANNEL [METRICS]\n"
    "It is what a supervisor starts, with two sockets; start it by `noria serve` or `noria up`.\n"
)


def main(arguments: list[str]) -> int:
    """Run the worker; give the exit code."""
    if len(arguments) not in (4, 5) or not all(each.isdecimal() for each in arguments[1:4]):
        sys.stderr.write(_USAGE)
        return 2
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy loads it: its threads' buffers are never used
    folder, shared = Path(arguments[0]).absolute(), Path(arguments[4]) if len(arguments) == 5 else None
    if shared is not None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)  # before its library is loaded, which reads it
    number, listener, channel = map(int, arguments[1:4])
    from noria.serving.process.worker import run

    return run(
        folder,
        number=number,
        listener=socket.socket(fileno=listener),
        channel=socket.socket(fileno=channel),
        shared_metrics=shared,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
