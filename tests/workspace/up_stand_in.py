"""Stands for `noria pipeline run`, idempotent by its key: `up_stand_in.py FOLDER PIPELINE KEY PARAMS`.

What it does is said by the pipeline's name. FOLDER holds `began` and `done`, one line for each time.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path


def note(folder: Path, file: str, key: str) -> None:
    with (folder / file).open("a", encoding="utf-8") as lines:
        lines.write(f"{key} {os.getpid()}\n")


def main(folder: Path, pipeline: str, key: str, params: str) -> int:
    with (folder / f"{key.replace(':', '-')}.lock").open("a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a living one
        lock.seek(0)
        if not lock.read():
            note(folder, "began", key)
            match pipeline:
                case "fails":
                    error = {
                        "kind": "StepFailed",
                        "message": "the step `clean` found no row",
                        "exit_code": 10,
                    }
                    print(json.dumps({"error": error}), file=sys.stderr)
                    return 10
                case "slow":
                    time.sleep(1.5)
                case "stubborn":
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    time.sleep(60)
                case "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "chatty":
                    print("a step said something\n" * 20_000)
                case _:
                    pass
            note(folder, "done", key)
            lock.write("done")
    print(json.dumps({"run": f"run-of-{key}", "state": "finished", "params": json.loads(params)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:5]))
