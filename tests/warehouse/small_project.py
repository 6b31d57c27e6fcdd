"""A project with a table of orders and models that a test writes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import pyarrow as pa

import noria

__all__ = ["START", "SmallProject", "orders"]

START = datetime(2026, 1, 1, tzinfo=UTC)
DAILY = """
    -- materialize: incremental
    -- partition: day(day)
    -- key: day, shop
    select date_trunc('day', placed_at) as day, shop, count(*) as n, sum(amount) as total
    from orders group by all
"""


def orders(*rows: tuple[float, str, int]) -> pa.Table:
    """Give orders: days after the start, shop, amount."""
    return pa.table(
        {
            "placed_at": pa.array(
                [START + timedelta(days=day) for day, _, _ in rows], pa.timestamp("us", "UTC")
            ),
            "shop": pa.array([shop for _, shop, _ in rows], pa.string()),
            "amount": pa.array([amount for _, _, amount in rows], pa.int64()),
        }
    )


@dataclass
class SmallProject:
    """A project's folder, and what tests do with it."""

    root: Path
    batches: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.write({"noria.toml": '[project]\nname = "shop"\n'})

    def write(self, files: Mapping[str, str]) -> None:
        """Write texts below the folder."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")

    def models(self, **texts: str) -> None:
        """Write models."""
        self.write({f"models/{name}.sql": text for name, text in texts.items()})

    @contextmanager
    def open(self) -> Iterator[noria.Project]:
        """Open the project."""
        with noria.open(self.root) as project:
            yield project

    def add(self, rows: pa.Table, table: str = "orders") -> None:
        """Append rows to a table of the lake."""
        self.batches[table] = self.batches.get(table, 0) + 1
        with self.open() as project:
            project.lake.append(table, rows, batch=self.batches[table], app_id="test")

    def transform(self, *models: str, **asked: object) -> dict[str, str]:
        """Transform; give what became of each model."""
        with self.open() as project:
            return {each.model: each.state for each in project.transform(*models, **asked).models}  # type: ignore[arg-type]

    def reasons(self, *models: str, **asked: object) -> dict[str, str]:
        """Transform; give what is told of each model."""
        with self.open() as project:
            return {each.model: each.reason for each in project.transform(*models, **asked).models}  # type: ignore[arg-type]

    def plan(self, *models: str) -> dict[str, tuple[str, str]]:
        """Give what would become of each model, and why."""
        with self.open() as project:
            return {each.model: (each.state, each.reason) for each in project.plan_transform(*models).models}

    def rows(self, table: str) -> list[dict[str, object]]:
        """Give the rows of a table."""
        with self.open() as project:
            found: list[dict[str, object]] = project.lake.read(table).to_pylist()
            return found

    def files(self, table: str) -> dict[str, str]:
        """Give the active files of a table by the beginning of their names."""
        with self.open() as project:
            paths = [Path(each).name for each in project.lake.reader(table).files]
        return {name.split("-")[1]: name for name in paths}


def names(found: Sequence[Mapping[str, object]], column: str) -> list[object]:
    """Give one column of rows."""
    return [each[column] for each in found]
