# mypy: ignore-errors
"""Dagster: a chain of ops in one job, on its SQLite instance. `run_dagster in_process|spawn|forkserver`."""

import os
import sys
from pathlib import Path

from dagster import DagsterInstance, execute_job, in_process_executor, job, multiprocess_executor, op
from dagster._core.definitions.reconstruct import build_reconstructable_job

from bench.peers.counting import tell


@op
def zero() -> int:
    return 0


@op
def successor(number: int) -> int:
    return number + 1


def chain(steps: int, start_method: str):
    """Give the job; a process of the multiprocess executor makes it again from these arguments."""
    executor = in_process_executor
    if start_method != "in_process":
        executor = multiprocess_executor.configured(
            {"max_concurrent": 2, "start_method": {start_method: {}}}, name="processes"
        )

    @job(name=f"chain_{steps}", executor_def=executor)
    def made() -> None:
        number = zero()
        for each in range(steps - 1):
            number = successor.alias(f"successor_{each}")(number)

    return made


def main(start_method: str) -> None:
    (Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml").write_text(
        "telemetry:\n  enabled: false\npython_logs:\n  python_log_level: ERROR\n"
    )
    with DagsterInstance.get() as instance:

        def run(steps: int) -> None:
            if start_method == "in_process":
                assert chain(steps, start_method).execute_in_process(instance=instance).success
                return
            again = build_reconstructable_job("bench.peers.run_dagster", "chain", (steps, start_method))
            with execute_job(again, instance=instance) as result:
                assert result.success

        few, many = (10, 110) if start_method == "in_process" else (2, 7)
        tell("dagster", run, few=few, many=many)


if __name__ == "__main__":
    main(sys.argv[1])
