# mypy: ignore-errors
"""Prefect: a chain of tasks in one flow, against the server that it starts for itself."""

from prefect import flow, task

from bench.peers.counting import tell


@task
def successor(number: int) -> int:
    return number + 1


@flow
def chain(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = successor(number)
    return number


if __name__ == "__main__":
    tell("prefect", chain, few=20, many=420, is_served=True)
