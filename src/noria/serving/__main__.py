"""`python -m noria.serving FOLDER [--watch-parent]`: run the worker of a deployment's folder."""

import os
import sys
from pathlib import Path

_USAGE = "usage: python -m noria.serving FOLDER [--watch-parent]\n"


def main(arguments: list[str]) -> int:
    """Run the worker; give the exit code."""
    folders = [each for each in arguments if each != "--watch-parent"]
    if len(folders) != 1 or folders[0].startswith("-"):
        sys.stderr.write(_USAGE)
        return 2
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy loads it: its threads' buffers are never used
    from noria.serving.worker import run

    return run(Path(folders[0]).absolute(), watch_parent="--watch-parent" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
