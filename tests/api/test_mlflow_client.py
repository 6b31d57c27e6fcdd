"""A real MLflow client, unmodified, against the control plane; what it did is on noria's record."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.test_control_plane import SINCE
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.records import RunState
from noria.workspace.up.records import Role, UpState

PROGRAMS = Path(__file__).parent / "mlflow_programs"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[noria.Project, str]]:
    root = tmp_path / "site"
    root.mkdir()
    (root / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        yield project, plane.url


def test_the_guide_does_what_it_says(
    site: tuple[noria.Project, str],
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path: Path,
) -> None:
    project, url = site
    page = (Path(__file__).parents[2] / "docs" / "guide" / "mlflow.md").read_text(encoding="utf-8")
    block = page.partition("```python\n")[2].partition("```")[0]
    assert "http://localhost:8000" in block
    program = tmp_path / "guide.py"
    program.write_text(block.replace("http://localhost:8000", url))
    mlflow_program(program, url)
    (run,) = project.ledger.list_runs(kind="experiment")
    assert (run.name, run.params, run.metrics) == ("first", {"leaves": "31"}, {"loss": 0.5})
    found = project.query("SELECT name, value FROM tracking_metrics ORDER BY value DESC LIMIT 5")
    assert found.to_pylist() == [{"name": "loss", "value": 0.5}]
    files = project.query("SELECT path, size_bytes FROM tracking_artifacts").to_pylist()
    assert [(each["path"].rpartition("/")[2], each["size_bytes"]) for each in files] == [("report.html", 17)]


def test_a_day_of_tracking(site: tuple[noria.Project, str], mlflow_program: RunProgram) -> None:  # noqa: F811
    project, url = site
    run = mlflow_program(PROGRAMS / "tracking.py", url).split()[-1]
    kept = project.ledger.get_run(run)
    assert (kept.kind, kept.name, kept.state) == ("experiment", "first", RunState.FINISHED)
    assert kept.params == {"leaves": "31", "rate": "0.1", "text": "ä ö ü"}
    assert (kept.metrics["loss"], kept.metrics["late"]) == (0.05, 1.0)
    assert [each.name for each in project.ledger.list_runs(parent=run)] == ["inner"]
    assert project.ledger.verify().ok


def test_three_libraries_log_by_themselves_and_their_models_are_registered(
    site: tuple[noria.Project, str],
    mlflow_program: RunProgram,  # noqa: F811
) -> None:
    project, url = site
    runs = mlflow_program(PROGRAMS / "autologging.py", url).split()[-1].split(",")
    ledger = project.ledger
    for run in runs:
        assert ledger.get_run(run).state is RunState.FINISHED
        made = {ledger.get_version_by_id(each.version).kind for each in ledger.list_edges(run=run)}
        assert {"logged_model", "model"} <= made
    assert {each.name for each in ledger.list_versions(kind="model")} == {
        f"autologged {each}" for each in ("scikit-learn", "lightgbm", "xgboost")
    }
    assert ledger.verify().ok
