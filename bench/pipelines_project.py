"""A project of trivial steps, for the benches of pipelines."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import noria

__all__ = ["fresh", "steps_project"]

_SETTINGS = '[project]\nname = "bench"\nmodules = ["{module}"]\n[compute]\nworkers = 2\n'
_STEPS = '''
import time

import noria


@noria.step
def successor(number: int) -> int:
    return number + 1


@noria.step
def total(left: int, right: int, salt: int) -> int:
    return (left + right + salt) % 1_000_003


@noria.step
def shifted(number: int, by: int) -> int:
    return number + by


@noria.step
def nap(number: int, salt: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


@noria.pipeline
def chain(steps: int, salt: int) -> int:
    """One after the other."""
    number = salt
    for _ in range(steps):
        number = successor(number)
    return number


@noria.pipeline
def fan(steps: int, salt: int) -> list[int]:
    """Independent ones: a node that is mapped."""
    return shifted.map(number=list(range(steps)))(by=salt)


@noria.pipeline
def grid(steps: int, salt: int) -> int:
    """A node for each: rows of ten, each of which reads two of the row above."""
    row = [salt] * 10
    for above in range(steps // 10):
        row = [total(row[n], row[n - 1], salt + 10 * above + n) for n in range(10)]
    return row[0]


@noria.pipeline
def naps(steps: int, salt: int, seconds: float) -> list[int]:
    return nap.map(number=list(range(steps)))(salt=salt, seconds=seconds)
'''
_SALTS = itertools.count(1)
_MODULES = itertools.count(1)


def fresh() -> int:
    """Give a salt with which no step has run yet, and none will meet the numbers of another."""
    return next(_SALTS) * 10_000_000


@contextmanager
def steps_project(folder: Path) -> Iterator[noria.Project]:
    """Make the project in `folder` and open it. Its module has a name that no other in this process has."""
    module = f"bench_steps_{next(_MODULES)}"
    folder.mkdir()
    (folder / "noria.toml").write_text(_SETTINGS.format(module=module))
    (folder / f"{module}.py").write_text(_STEPS)
    with noria.open(folder) as project:
        yield project
