"""Features over real HTTP: found, shown, read, traced, audited, refused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.api.test_control_plane import SINCE, Asker

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.clock import ReplayClock
from noria.workspace.up.records import Role, UpState

START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = "2024-03-04T00:00:00Z"
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", known_at="synced_at")
courier = noria.FeatureView("courier", source=trips, entity="courier", owner="logistics", tags=("dispatch",),
    description="How couriers did lately", features={"n_7d": agg.count("7d"), "last": agg.last("minutes")})
pair = noria.FeatureView("pair", source=trips, entity=("courier", "zone"), features={"n_7d": agg.count("7d")})
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"http_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(START + timedelta(days=3)))
        ended = pa.array([START + timedelta(days=each) for each in (0, 1, 2)], pa.timestamp("us", "UTC"))
        opened.ingest(
            "trips",
            pa.table(
                {
                    "id": ["a", "b", "c"],
                    "ended_at": ended,
                    "synced_at": ended,
                    "courier": ["ada", "ada", "ben"],
                    "zone": [1, 2, 1],
                    "minutes": [20.0, None, 31.5],
                }
            ),
        )
        yield opened


@pytest.fixture
def asker(project: noria.Project) -> Iterator[Asker]:
    with ControlPlane("127.0.0.1", 0) as plane:
        made = Asker(int(plane.url.rpartition(":")[2]), project)
        made.state.append(UpState(role=Role.FOLLOWER, since=SINCE, leader=None))
        plane.start(application(project, lambda: made.state[-1], host="127.0.0.1"))
        yield made


def names(answer: dict[str, Any]) -> list[str]:
    return [each["summary"]["name"] for each in answer["views"]]


def test_views_are_found(asker: Asker) -> None:
    assert names(asker.ask("GET", "/features")[1]) == ["courier", "pair"]
    assert names(asker.ask("GET", "/features?search=lately")[1]) == ["courier"]
    assert names(asker.ask("GET", "/features?tag=dispatch&owner=logistics")[1]) == ["courier"]
    status, answer = asker.ask("GET", "/features?search=curier")
    assert (status, answer["views"], answer["meant"][0]) == (200, [], "courier")


def test_a_view_is_shown(asker: Asker) -> None:
    asker.project.features.materialize()
    status, answer = asker.ask("GET", "/features/courier")
    assert (status, answer["summary"]["online"], answer["definitions"]) == (200, "current", ["courier:1"])
    assert [each["rule"] for each in answer["features"]] == ["count(7d)", "last(minutes)"]
    assert answer["statistics"]["entities"] == 2
    status, answer = asker.ask("GET", "/features/courir")
    assert (status, answer["error"]["kind"]) == (404, "NotFound")
    assert "did you mean 'courier'?" in answer["error"]["message"]


def test_values_are_read_and_what_is_missing_is_null(asker: Asker) -> None:
    asker.project.features.materialize()
    body = {"views": ["courier"], "entities": {"courier": ["ada", "ben", "zoe", None]}, "at": NOW}
    status, answer = asker.ask("POST", "/features/get", body)
    assert status == 200
    assert answer == {
        "at": NOW,
        "entities": 4,
        "columns": {
            "courier": ["ada", "ben", "zoe", None],
            "courier__n_7d": [2.0, 1.0, 0.0, None],
            "courier__last": [None, 31.5, None, None],
        },
    }
    body = {"views": ["pair", "courier"], "entities": {"courier": ["ada"], "zone": [2]}}
    assert asker.ask("POST", "/features/get", body)[1]["columns"]["pair__n_7d"] == [1.0]


def test_what_is_asked_at_once_is_answered(asker: Asker) -> None:
    asker.project.features.materialize()
    body = {"views": ["courier"], "entities": {"courier": ["ada"]}}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: asker.ask("POST", "/features/get", body), range(40)))
        shown = list(pool.map(lambda _: asker.ask("GET", "/features/courier"), range(4)))
    assert {status for status, _ in [*answers, *shown]} == {200}
    assert all(answer["columns"]["courier__n_7d"] == [2.0] for _, answer in answers)


def test_readers_are_told_and_named_by_themselves(asker: Asker) -> None:
    asker.project.features.materialize()
    body = {"views": ["courier"], "entities": {"courier": ["ada", "ben"]}, "reader": "billing"}
    assert asker.ask("POST", "/features/get", body)[0] == 200
    traced = asker.ask("POST", "/features/courier/trace", {"entity": {"courier": "ada"}})[1]
    assert traced["values"] == {"courier__n_7d": 2.0, "courier__last": None}
    assert ([each["id"] for each in traced["rows"]], traced["found"]) == (["b", "a"], 2)
    status, answer = asker.ask("GET", "/features/courier/readers")
    assert status == 200
    told = {(each["who"], each["how"]): (each["calls"], each["entities"]) for each in answer["reads"]}
    assert told == {("billing", "http get"): (1, 2), ("unknown", "http trace"): (1, 1)}
    assert asker.ask("GET", "/features/courier__last/readers")[1]["feature"] == "last"
    assert asker.ask("GET", "/features/courier__lst/readers")[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"views": ["courier"], "entities": {}}, 400, "there is none"),
        ({"views": ["pair"], "entities": {"courier": ["ada"], "zone": []}}, 400, "'zone' has 0"),
        ({"views": ["courier"], "entities": {"courier": ["a"] * 10_001}}, 400, "at most 10000"),
        ({"views": ["courier"], "entities": {"courier": [1.5]}}, 422, "holds fractions"),
        (
            {"views": ["courier"], "entities": {"courier": ["a"]}, "at": "2024-03-04T00:00:00"},
            400,
            "timezone",
        ),
        ({"views": ["courier"], "entities": {"courier": ["a"]}, "reader": ""}, 400, "length"),
        ({"views": ["couriers"], "entities": {"courier": ["a"]}}, 404, "did you mean 'courier'"),
        ({"views": ["courier"], "entities": {"zone": ["a"]}}, 422, "courier"),
        ({"views": [], "entities": {"courier": ["a"]}}, 422, "no feature view is wanted"),
        ({"views": ["courier"], "entities": {"courier": ["a"]}, "wait": True}, 400, "wait"),
    ],
)
def test_what_cannot_be_answered_says_why(asker: Asker, body: object, status: int, told: str) -> None:
    asker.project.features.materialize()
    found, answer = asker.ask("POST", "/features/get", body)
    assert (found, told in answer["error"]["message"]) == (status, True), answer
    assert asker.project.features.readers("courier").reads == ()  # nothing was read


def test_a_store_that_was_never_loaded_says_how(asker: Asker) -> None:
    body = {"views": ["courier"], "entities": {"courier": ["ada"]}}
    status, answer = asker.ask("POST", "/features/get", body)
    assert status == 404
    assert "`noria feature materialize courier` loads it" in answer["error"]["message"]
    assert asker.ask("POST", "/features/courier/trace", {"entity": {"zone": 1}})[0] == 422
    assert asker.ask("POST", "/features/courier/trace", {"entity": {"courier": "a"}, "rows": -1})[0] == 400
    assert asker.ask("GET", "/features/courier", host="evil.example")[0] == 421
    assert asker.ask("POST", "/features/get", raw=b"{}", content_type="text/plain")[0] == 415
