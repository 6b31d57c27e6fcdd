"""dbt on DuckDB: `run_dbt PROJECT` runs all models of a dbt project; CPU and wall of that one process."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.peers.counting import cpu_of_tree

_ROUNDS = 3
_OPTIONS = ["--no-use-colors", "--no-send-anonymous-usage-stats", "--quiet"]


def main(project: str) -> None:
    dbt = str(Path(sys.executable).with_name("dbt"))
    taken = []
    for _ in range(_ROUNDS + 1):
        shutil.rmtree(Path(project) / "target", ignore_errors=True)
        cpu, wall = cpu_of_tree(), time.monotonic()
        subprocess.run(
            [dbt, "run", "--project-dir", project, "--profiles-dir", project, *_OPTIONS],
            check=True,
            stdout=sys.stderr,
            env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        )
        taken.append((cpu_of_tree() - cpu, time.monotonic() - wall))
    cpu_ms, wall_ms = (median(each[which] for each in taken[1:]) * 1e3 for which in (0, 1))
    print(json.dumps({"version": version("dbt-duckdb"), "cpu_ms": cpu_ms, "wall_ms": wall_ms}))


if __name__ == "__main__":
    main(sys.argv[1])
