from pathlib import Path

import pytest

import noria
from noria.errors import Conflict, StepFailed, StoreError
from noria.workspace.creation import create_project, templates


@pytest.mark.parametrize("template", templates())
def test_every_template_loads(tmp_path: Path, template: str) -> None:
    files = create_project(tmp_path / template, template=template)
    assert files[-1].name == "noria.toml"
    with noria.open(tmp_path / template) as project:
        assert project.declarations.datasets or project.declarations.pipelines
        named = {each.gate for each in project.settings.environments.values()}
        assert named <= set(project.declarations.gates)


def test_making_goes_on_after_a_kill(tmp_path: Path) -> None:
    create_project(tmp_path / "a")
    (tmp_path / "a" / "noria.toml").unlink()  # as if it had been killed before the last file
    (tmp_path / "a" / ".noria.toml.new").write_bytes(b"[proj")
    create_project(tmp_path / "a")
    with noria.open(tmp_path / "a") as project:
        assert project.name == "a"


def test_a_repositorys_own_gitignore_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n", encoding="utf-8")
    create_project(tmp_path)
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "mine\n"


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(Conflict, match="is a file"):
        create_project(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written"):
        create_project(tmp_path / "file" / "below")


def test_the_demos_project_is_short(tmp_path: Path) -> None:
    files = create_project(tmp_path / "flights", template="flights")
    (main,) = [each for each in files if each.name == "flights.py"]
    code = [line for line in main.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 150


def test_the_pipeline_runs_at_once_and_runs_again_what_changed(tmp_path: Path) -> None:
    files = create_project(tmp_path / "my-report", template="pipeline")
    assert [each.name for each in files] == [".gitignore", "orders.csv", "sales.py", "noria.toml"]
    with noria.open(tmp_path / "my-report") as project:
        assert project.name == "my-report"
        first = project.run_pipeline("monthly")
        assert first.counts == {"ran": 6}
        assert first.value.splitlines()[-1].startswith("in all ")
        assert project.run_pipeline("monthly").counts == {"cached": 6}
        assert project.run_pipeline("monthly", {"month": "2026-01"}).value != first.value
        with pytest.raises(StepFailed, match="holds no order of 2020-01"):
            project.run_pipeline("monthly", {"month": "2020-01"})
        with (tmp_path / "my-report" / "orders.csv").open("a", encoding="utf-8") as orders:
            orders.write("2026-03-31,north,1000.00\n")
        again = project.run_pipeline("monthly")
        assert again.counts == {"ran": 3, "cached": 3}
        assert again.value.startswith("north")
        (trigger,) = project.declarations.triggers.values()
        assert trigger.runs_pipeline
