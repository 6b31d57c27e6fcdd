"""Online features that are asked for: by several threads, by strange columns, and what is noted of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.errors import ConfigError, SourceError
from noria.workspace.features.reads import ReadLog, ReadNote

START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=3)
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", known_at="ended_at")
courier = noria.FeatureView("courier", source=trips, entity="courier", features={"n_7d": agg.count("7d")})

@noria.on_demand(inputs=["distance"], outputs=["km"])
def far(columns):
    return {"km": columns["distance"] * 1.609}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"asked_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        ended = pa.array([START + timedelta(days=each) for each in (0, 1, 2)], pa.timestamp("us", "UTC"))
        opened.ingest(
            "trips", pa.table({"id": ["a", "b", "c"], "ended_at": ended, "courier": ["1", "1", "2"]})
        )
        opened.features.materialize()
        yield opened


def test_threads_read_at_once(project: noria.Project) -> None:
    def read(_: int) -> list[float]:
        found: list[float] = project.features.get(["courier"], {"courier": [1]}, at=NOW)[
            "courier__n_7d"
        ].to_pylist()
        assert project.features.show("courier").summary.online == "current"
        return found

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(40))) == [[2.0]] * 40


@pytest.mark.parametrize(
    "column",
    [[1, 2], ["1", "2"], np.array([1, 2]), np.array(["1", "2"]), pa.array([1, 2]), (1, "2"), range(1, 3)],
)
def test_entities_are_any_column(project: noria.Project, column: Any) -> None:
    found = project.features.get(["courier"], {"courier": column}, at=NOW)
    assert found["courier__n_7d"].to_pylist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"courier": "12"}, "give a list of values, such as \\['12'\\]"),
        ({"courier": [b"1"]}, "holds b'1'; an entity is a text"),
        ({"courier": [True]}, "holds True; an entity is a text"),
        ({"courier": ["\ud800"]}, "'courier' cannot be read"),
        ({"courier": ["1"], "x": [1, 2]}, "'courier' has 1, 'x' has 2"),
    ],
)
def test_what_is_no_column_is_refused(project: noria.Project, columns: Any, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        project.features.get(["courier"], columns, at=NOW)
    assert project.features.readers("courier").reads == ()


def test_what_comes_with_a_request_is_a_column_too(project: noria.Project) -> None:
    with pytest.raises(SourceError, match="'distance' has 1, 'x' has 2"):
        project.features.get(["far"], {"distance": [1.0], "x": [1, 2]})
    with pytest.raises(SourceError, match="'distance' cannot be read"):
        project.features.get(["far"], {"distance": [1.0, "far"]})


def test_what_is_asked_about_has_to_be_there(project: noria.Project) -> None:
    with pytest.raises(ConfigError, match="the limit is 0; give how many"):
        project.features.compare("courier", limit=0)
    with pytest.raises(SourceError, match="no row is of a missing entity"):
        project.features.trace("courier", {"courier": None})
    for ask in (
        project.features.compare,
        lambda name, at: project.features.trace(name, {"courier": 1}, at=at),
    ):
        with pytest.raises(ConfigError, match="has no time zone"):
            ask("courier", at=NOW.replace(tzinfo=None))
    with pytest.raises(ConfigError, match="has no time zone"):
        project.features.get(["courier"], {"courier": [1]}, at=NOW.replace(tzinfo=None))


@pytest.mark.parametrize("reader", ["", " ", "\x1b[2J", "a\nb", "\ud800", "x" * 201, 5])
def test_a_reader_without_a_name_that_can_be_shown_is_refused(project: noria.Project, reader: Any) -> None:
    with pytest.raises(ConfigError, match="name of 1 to 200 characters that can be shown"):
        project.features.get(["courier"], {"courier": [1]}, at=NOW, reader=reader)
    assert project.features.readers("courier").reads == ()  # and the log can be read
    project.features.get(["courier"], {"courier": [1]}, at=NOW, reader="Zoë Müller, 配送")
    assert [each.who for each in project.features.readers("courier").reads] == ["Zoë Müller, 配送"]


def test_notes_that_are_dropped_while_they_are_read_end_no_reading(tmp_path: Path) -> None:
    log, other = (ReadLog(tmp_path / "log", kept_bytes=2_000_000) for _ in range(2))

    def note(first: int, last: int) -> None:
        for place in range(first, last):
            other.note(ReadNote(START, "somebody", "get", place, {"view": "0" * 64}))

    note(0, 13_000)
    reading = log.read()
    read = [next(reading).entities]
    assert read == [0]
    note(13_000, 40_000)  # all that was there when the reading began is gone
    read += [each.entities for each in reading]
    assert read[:10_000] == list(range(10_000))  # these had been read already
    assert read[10_000] > 13_000
    assert read[10_000:] == list(range(read[10_000], 40_000))
    log.close()
    other.close()
