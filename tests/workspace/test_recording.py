"""`project.record` and `noria record`: what became of predictions, without a server."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

import noria
from noria.errors import ConfigError, Conflict, NotFound, SourceError
from noria.monitoring.outcomes import latest_outcomes

Noria = Callable[..., subprocess.CompletedProcess[str]]
WHERE = "late@production"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    """A project with an environment in which nothing is deployed yet."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "noria.toml").write_text('[project]\nname = "shop"\n\n[environments.production]\n')
    with noria.open(folder) as opened:
        yield opened


def latest(project: noria.Project, place: str = "production/late") -> dict[str, object]:
    rows = latest_outcomes(project.lake, [place]).to_pylist()
    return {
        row["prediction_id"]: row["label"] if row["label"] is not None else row["outcome"] for row in rows
    }


def test_one_several_and_frames_are_recorded_once(project: noria.Project, tmp_path: Path) -> None:
    made = project.record("a", 1, deployment=WHERE)
    assert (made.recorded, made.repeated, made.unknown, made.deployments) == (1, 0, 1, (WHERE,))
    assert project.record("a", True, deployment=WHERE).repeated == 1
    project.record(["b", "c"], [0.5, "red"], known_at=datetime(2026, 7, 1, tzinfo=UTC), deployment=WHERE)
    frame = pa.table({"prediction_id": ["c", "d"], "outcome": ["blue", None]})
    project.record(frame, deployment=WHERE)
    path = tmp_path / "more.csv"
    path.write_text(
        "prediction_id,outcome,known_at\n007,1,2026-07-01T10:00:00Z\n008,0,2026-07-01T11:00:00Z\n"
    )
    assert project.record(path, deployment=WHERE).recorded == 2
    assert project.record(path, deployment=WHERE).repeated == 2
    assert latest(project) == {"a": 1.0, "b": 0.5, "c": "blue", "d": None, "007": 1.0, "008": 0.0}
    assert project.query("select count(*) as n from outcomes")["n"].to_pylist() == [7]


def test_a_correction_is_a_later_instant(project: noria.Project) -> None:
    project.record("a", 1, known_at="2026-07-02T00:00Z", deployment=WHERE)
    project.record("a", 0, known_at="2026-07-01T00:00Z", deployment=WHERE)
    assert latest(project) == {"a": 1.0}
    with pytest.raises(Conflict, match="a correction has a later"):
        project.record("a", 0, known_at="2026-07-02T00:00Z", deployment=WHERE)
    project.record("a", 0, known_at="2026-07-03T00:00Z", deployment=WHERE)
    assert latest(project) == {"a": 0.0}


def test_what_is_no_outcome_is_refused_and_nothing_is_recorded(project: noria.Project) -> None:
    with pytest.raises(ConfigError, match="what became of 'a'"):
        project.record("a", deployment=WHERE)
    with pytest.raises(ConfigError, match="as many outcomes"):
        project.record(["a", "b"], [1], deployment=WHERE)
    with pytest.raises(ConfigError, match=r"outcome 2: outcome \[1\] is no number"):
        project.record(["a", "b"], [1, [1]], deployment=WHERE)
    with pytest.raises(ConfigError, match="known_at 'soon' is no instant"):
        project.record("a", 1, known_at="soon", deployment=WHERE)
    with pytest.raises(SourceError, match="lacks column 'prediction_id'"):
        project.record(pa.table({"id": ["a"], "outcome": [1]}), deployment=WHERE)
    with pytest.raises(ConfigError, match="nothing is deployed"):
        project.record("a", 1)
    with pytest.raises(NotFound, match="environment"):
        project.record("a", 1, deployment="late@stage")
    with pytest.raises(SourceError, match="no column outcome; it has prediction_id"):
        project.record(pa.table({"prediction_id": ["a"]}), deployment=WHERE)
    assert not project.lake.exists("outcomes")


def test_whoever_answered_is_found_and_a_correction_counts_in_every_join(
    lived_copy: Path, noria: Noria
) -> None:
    asked = noria("query", "select prediction_id, environment from predictions where answered "
                  "and environment = 'production' order by score desc limit 1",
                  "--project", lived_copy, "--json")  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    (row,) = json.loads(asked.stdout)
    done = noria("record", row["prediction_id"], 1, "--known-at", "2090-01-01T00:00Z",
                 "--project", lived_copy, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["recorded"], made["unknown"]) == (1, 0)
    traced = noria("trace", row["prediction_id"], "--project", lived_copy, "--json")
    assert json.loads(traced.stdout)["outcome"]["known_at"].startswith("2090-01-01")
    again = noria("record", row["prediction_id"], 0, "--project", lived_copy)
    assert "1 outcome of" in again.stdout, again.stderr
