"""`noria feature` on features that are computed on demand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Said

Say = Callable[..., Said]

DECLARED = '''
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", files="data/*.csv")
courier = noria.FeatureView("courier", source=trips, entity="courier", features={
    "n_7d": agg.count("7d"), "last": agg.last("minutes")})

@noria.on_demand(inputs=["distance", courier], outputs=["pace"], errors="refuse")
def pace(columns):
    """Distance per minute of the last trip."""
    if (columns["distance"] < 0).any():
        raise ValueError("no way has a length below 0")
    return {"pace": columns["distance"] / columns["courier__last"]}
'''


@pytest.fixture
def project(tmp_path: Path, say: Say) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "t"\nmodules = ["feature_on_demand_declared"]\n')
    (tmp_path / "feature_on_demand_declared.py").write_text(DECLARED)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.csv").write_text("id,ended_at,courier,minutes\na,2024-03-01T10:00:00Z,ada,20\n")
    assert say("ingest", "trips", "--project", tmp_path).code == 0
    assert say("feature", "materialize", "--project", tmp_path).code == 0
    return tmp_path


def test_on_demand_features_are_listed_beside_views(say: Say, project: Path) -> None:
    told = say("feature", "list", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert ["pace", "distance,", "courier__n_7d,", "courier__last", "pace"] in [
        line.split() for line in told.out.splitlines()
    ]
    view, feature = json.loads(say("feature", "list", "--json", "--project", project).out)
    assert (view["name"], feature["name"], feature["fields"]) == ("courier", "pace", ["distance"])


def test_one_is_shown(say: Say, project: Path) -> None:
    told = say("feature", "show", "pace", "--project", project)
    assert told.code == 0
    for text in (
        "On-demand feature pace", "Distance per minute of the last trip.", "pace__pace",
        "the request is refused", "feature_on_demand_declared.py:",
    ):  # fmt: skip
        assert text in told.out
    shown = json.loads(say("feature", "show", "pace", "--json", "--project", project).out)
    assert (shown["outputs"], shown["errors"]) == (["pace"], "refuse")


def test_one_is_computed_for_what_a_request_would_say(say: Say, project: Path) -> None:
    told = say("feature", "get", "pace", "courier=ada,distance=50", "--project", project)
    assert (told.code, told.out.split()) == (0, ["courier", "ada,", "distance", "50.0", "pace", "2.5"])
    for given, wanted in (
        ("ada", "write courier=...,distance=..."),
        ("courier=ada,distance=far", "distance=far is no number"),
        ("courier=ada,distance=-1", "'pace' refuses rows"),
    ):
        told = say("feature", "get", "pace", given, "--project", project)
        assert told.code != 0
        assert wanted in told.err
    told = say("feature", "materialize", "pace", "--project", project)
    assert told.code != 0
    assert "'pace' is an on-demand feature" in told.err
