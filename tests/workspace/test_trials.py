"""What a trial tells is what the ingest does, also where that changes the table's columns."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

import noria
from noria.workspace.ingesting import try_out
from noria.workspace.project import Project
from noria.workspace.source_openings import Request

SALES = noria.Dataset("sales", key="id", event_at="sold_at")
MERGED = noria.Dataset("sales", key="id", event_at="sold_at", known_at="seen_at", write="merge")
EVOLVED = noria.Dataset(
    "sales",
    key="name",
    event_at="sold_at",
    schema={"name": "string", "n": "double", "sold_at": "timestamp[us, tz=UTC]", "shop": "string"},
    renamed={"id": "name"},
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = []\n')
    with noria.open(tmp_path) as opened:
        yield opened


def begin(project: Project, *ids: str) -> None:
    at = pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * len(ids), pa.timestamp("us", "UTC"))
    project.ingest(SALES, pa.table({"id": ids, "n": [1] * len(ids), "sold_at": at}))


def tried_and_taken(project: Project, dataset: noria.Dataset, text: str) -> None:
    path = project.root / "next.csv"
    path.write_text(text)
    events = project.ledger.list_events()
    schema = project.lake.schema("sales")
    (trial,) = try_out(project, dataset, Request(what=path))
    assert trial.error is None
    assert (project.ledger.list_events(), project.lake.schema("sales")) == (events, schema)
    (done,) = project.ingest(dataset, path)
    assert (trial.accepted, trial.rejected, trial.repeated) == (done.accepted, done.rejected, done.repeated)


def test_a_trial_of_rows_that_merge_tells_which_are_no_newer(project: Project) -> None:
    def lines(**found: tuple[int, int]) -> str:
        rows = [
            f"{key},{n},2024-01-01T00:00:00Z,2024-01-0{day}T00:00:00Z\n" for key, (n, day) in found.items()
        ]
        return "".join(["id,n,sold_at,seen_at\n", *rows])

    path = project.root / "first.csv"
    path.write_text(lines(a=(1, 3), b=(1, 3), c=(1, 3)))
    (done,) = project.ingest(MERGED, path)
    assert done.accepted == 3
    tried_and_taken(project, MERGED, lines(a=(2, 2), b=(2, 4), c=(1, 3), d=(1, 3)))
    found = project.lake.read("sales").sort_by("id")
    assert (found["id"].to_pylist(), found["n"].to_pylist()) == (["a", "b", "c", "d"], [1, 2, 1, 1])


def test_a_trial_knows_the_columns_that_an_ingest_would_make(project: Project) -> None:
    begin(project, "a", "b")
    rows = "a,1.0,2024-01-01T00:00:00Z,\nb,1,2024-01-01T00:00:00Z,\nc,2.5,2024-01-01T00:00:00Z,north\n"
    tried_and_taken(project, EVOLVED, f"name,n,sold_at,shop\n{rows}")
    found = project.lake.read("sales").sort_by("name")
    assert (found["name"].to_pylist(), found["shop"].to_pylist()) == (["a", "b", "c"], [None, None, "north"])


def test_a_table_gets_its_columns_though_the_first_rows_cannot_be_read(project: Project) -> None:
    begin(project, "a")
    tolerant = dataclasses.replace(EVOLVED, max_rejected_share=1.0)
    tried_and_taken(project, tolerant, "name,n,sold_at,shop\nx,many,2024-01-01T00:00:00Z,north\n")
    assert project.lake.schema("sales").names == ["name", "n", "sold_at", "known_at", "shop"]


def test_a_column_is_renamed_without_a_declared_schema(project: Project) -> None:
    begin(project, "a")
    renamed = dataclasses.replace(EVOLVED, schema=None)
    tried_and_taken(project, renamed, "name,n,sold_at\na,1,2024-01-01T00:00:00Z\nb,1,2024-01-01T00:00:00Z\n")
    assert sorted(project.lake.read("sales")["name"].to_pylist()) == ["a", "b"]
