"""Statistics of a frame and of a model, asked of a project and on the command line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.errors import ConfigError, NotFound, SourceError

START = datetime(2024, 3, 1, tzinfo=UTC)
ROWS = 2_000


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "trips"\nmodules = []\n')
    with noria.open(tmp_path) as opened:
        yield opened


def frame() -> pa.Table:
    rng = np.random.default_rng(1)
    late = rng.random(ROWS) < 0.3
    at = [START + timedelta(hours=each) for each in range(ROWS)]
    return pa.table(
        {
            "asked_at": pa.array(at, pa.timestamp("us", "UTC")),
            "distance": rng.exponential(5, ROWS) + late,
            "fast": rng.random(ROWS) < 0.5,
            "zone": pa.array(rng.choice(["north", "south"], ROWS)).dictionary_encode(),
            "note": [[1]] * ROWS,
            "arrived_at": pa.array([each + timedelta(hours=1) for each in at], pa.timestamp("ns")),
            "late": late,
        }
    )


def test_a_frame_is_described_beside_its_label(project: noria.Project) -> None:
    told = project.features.statistics(frame(), label="late", at="asked_at")
    assert {each.name: each.kind for each in told.features} == {
        "distance": "number",
        "fast": "number",
        "zone": "category",
        "arrived_at": "instant",
    }
    assert told.left_out == {"note": "list<item: int64> is neither a number, nor a text, nor an instant"}
    assert told.strongest(1)[0].name == "distance"
    assert {name for feature in told.features for name, _ in feature.top} == {"north", "south"}
    assert [(each.feature, each.rule) for each in told.suspicions] == [("arrived_at", "after_decision")]
    assert told.label_kind == "binary"


def test_the_order_of_rows_and_a_missing_instant_change_little(project: noria.Project) -> None:
    shuffled = frame().take(pa.array(np.random.default_rng(2).permutation(ROWS)))
    told = project.features.statistics(frame(), label="late", at="asked_at")
    assert project.features.statistics(shuffled, label="late", at="asked_at") == told
    untimed = project.features.statistics(frame().drop_columns("asked_at"), label="late")
    assert untimed.suspicions == ()
    assert {each.stability for each in untimed.features} == {None}


@pytest.mark.parametrize(
    ("label", "at", "told"),
    [
        (None, None, "name its column: `label=...`"),
        ("later", None, "the set has no column 'later'; there is asked_at, distance"),
        ("late", "then", "the set has no column 'then'"),
        ("note", None, "the label 'note' is list<item: int64>; wanted numbers or texts"),
        ("arrived_at", None, "the label 'arrived_at' is timestamp[ns]"),
        ("late", "arrived_at", "it must be a timestamp with a time zone"),
    ],
)
def test_what_cannot_be_described_is_refused(
    project: noria.Project, label: str | None, at: str | None, told: str
) -> None:
    with pytest.raises((ConfigError, SourceError)) as refused:
        project.features.statistics(frame(), label=label, at=at)
    assert told in str(refused.value)


def test_an_unknown_model_is_not_found(project: noria.Project) -> None:
    with pytest.raises(NotFound):
        project.features.statistics("late_trip")


def test_the_command_line_shows_what_features_tell(tiny_lived: Path) -> None:
    def asked(*words: str) -> str:
        command = [sys.executable, "-m", "noria", "model", "show", "late_parcel", *words]
        done = subprocess.run(command, cwd=tiny_lived, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = asked()
    assert "What features tell of the label, each alone" in shown
    assert "is suspicious." in shown
    told = json.loads(asked("--json"))["statistics"]
    with noria.open(tiny_lived) as project:
        kept = project.features.statistics("late_parcel")
    assert [each["name"] for each in told["features"]] == [each.name for each in kept.features]
    assert kept.strongest(1)[0].name in shown
