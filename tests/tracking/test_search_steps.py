import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from sqlalchemy import Connection
from tests.tracking.search_oracle import Made, fill, run_of

from noria.database.store import Database
from noria.tracking.searches import searching
from noria.tracking.searches.searching import search_runs

SEARCHES = [
    ("", ()), ("metrics.m > 0.5", ()), ("metrics.m > 0.5", ("metrics.n DESC",)),
    ("metrics.m > 0.5", ("metrics.m",)),
    ("", ("metrics.m", "metrics.n")), ("", ("run_name DESC",)), ("tags.parent = '7'", ()),
    ("tags.parent = '7'", ("metrics.m",)), ("params.p = '7'", ("metrics.m",)), ("status = 'RUNNING'", ()),
    ("run_name = 'run 7'", ()), ("run_id IN ('0007', '0008')", ()), ("datasets.name = '7'", ()),
    ("tags.none LIKE 'x%'", ()), ("metrics.m > 0.5 AND metrics.n < 0.001", ("metrics.n",)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "order_by"), SEARCHES)
def test_the_steps_of_a_search_do_not_grow_with_the_runs(
    many: dict[int, Connection], text: str, order_by: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, figure in {"_FEW": 50, "_FEW_PER_ROW": 0, "_SOME": 100, "_SOME_PER_ROW": 0}.items():
        monkeypatch.setattr(searching, name, figure)  # all is smaller here
    steps = {size: _steps(connection, text, order_by) for size, connection in many.items()}
    assert steps[4_000] < 1.5 * steps[1_000] + 500


def _steps(connection: Connection, text: str, order_by: Sequence[str]) -> int:
    """Count the steps of SQLite's machine, by tens."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(count, 10)
    search_runs(connection, [1], filter=text, order_by=order_by, limit=10)
    driver.set_progress_handler(None, 0)
    return counted


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Connection]]:
    """Give databases of as many runs, 20 of each parent, dataset and value."""
    draw = random.Random(3)
    with ExitStack() as stack:
        found = {}
        for size in (1_000, 4_000):
            folder = tmp_path_factory.mktemp("many")
            database = stack.enter_context(Database.open(f"sqlite:///{folder}/noria.db"))
            made = [_one(number, size, draw) for number in range(size)]
            with database.write() as connection:
                fill(connection, made, {1: None})
            found[size] = stack.enter_context(database.read())
        yield found


def _one(number: int, size: int, draw: random.Random) -> Made:
    family = str(number // 20)
    return run_of(
        f"{number:04}",
        started_us=number,
        name=f"run {number}",
        state="running" if number < 20 else "finished",
        metrics={"m": draw.random(), "n": draw.random()},
        params={"p": str(draw.randrange(size // 20))},
        tags={"parent": family},
        datasets=((family, "1", None),),
    )
