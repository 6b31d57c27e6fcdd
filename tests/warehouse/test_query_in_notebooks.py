"""The magic of notebooks, in a shell of IPython, and the kernel that JupyterLab is given."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from IPython.core.interactiveshell import InteractiveShell

import noria
from noria.cli.notebook import write_kernel
from noria.errors import ConfigError, NotFound

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "metro").mkdir()
    (tmp_path / "metro" / "noria.toml").write_text('[project]\nname = "metro"\n')
    monkeypatch.setenv("NORIA_PROJECT", str(tmp_path / "metro"))
    InteractiveShell.clear_instance()
    made: Any = InteractiveShell.instance(history_length=0)
    made.history_manager.enabled = False
    made.run_line_magic("load_ext", "noria.notebook")
    made.user_ns["project"].lake.append(
        "trips", pa.table({"line": ["U1", "<b>", None], "riders": [1, 20, 300]}), batch=1, app_id="test"
    )
    with made.user_ns["project"]:
        yield made
    made.run_line_magic("unload_ext", "noria.notebook")
    InteractiveShell.clear_instance()


def html(shell: Any, value: object) -> str:
    found: str = shell.display_formatter.format(value)[0]["text/html"]
    return found


def test_the_project_is_at_hand(shell: Any) -> None:
    assert isinstance(shell.user_ns["project"], noria.Project)
    assert shell.user_ns["project"].name == "metro"


def test_a_line_and_a_cell_are_answered_as_arrow(shell: Any) -> None:
    line = shell.run_line_magic("noria", "select sum(riders) as n from trips")
    cell = shell.run_cell_magic("noria", "", "select sum(riders) as n\nfrom trips")
    assert isinstance(line, pa.Table) and line == cell and line.to_pylist() == [{"n": 321}]


def test_variables_are_parameters_and_an_answer_goes_into_one(shell: Any) -> None:
    shell.run_cell("least = 20\nlines = ['U1', '<b>']")
    shell.run_cell("%%noria few --timeout 60s\nselect * from trips where riders >= $least and line in $lines")
    assert shell.user_ns["few"].to_pylist() == [{"line": "<b>", "riders": 20}]


def test_an_answer_is_shown_as_a_table_in_which_nothing_is_markup(shell: Any) -> None:
    shown = html(shell, shell.run_line_magic("noria", "from trips"))
    assert "&lt;b&gt;" in shown and "<b>" not in shown and "3 rows" in shown and "null" in shown
    many = html(shell, pa.table({"n": range(1_000)}))
    assert "1,000 rows, the first 20 are shown" in many and many.count("<tr>") == 21


def test_runs_and_dashboards_are_shown(shell: Any) -> None:
    project = shell.user_ns["project"]
    (project.root / "dashboards").mkdir()
    (project.root / "dashboards" / "n.toml").write_text(
        "[panels.n]\nkind = 'number'\nsql = 'select 3 as n'\n[panels.bad]\nsql = 'from no'\n"
    )
    built = project.build_dashboard("n")
    shown = html(shell, built)
    assert "report n:1" in shown and "sandbox='allow-scripts'" in shown and "no table named" in shown
    run = html(shell, project.ledger.get_run(built.run))
    assert "report n" in run and "finished" in run and "failed_panels" in run


@pytest.mark.parametrize(
    ("line", "cell", "error", "match"),
    [
        ("", "from tripz", NotFound, "did you mean 'trips'"),
        ("", "select $missing", ConfigError, "no variable missing"),
        ("select 1", "select 2", ConfigError, "unrecognized arguments: 1"),
        ("--rows 3", "select 1", ConfigError, "unrecognized arguments: --rows"),
        ("a-b", "select 1", ConfigError, "no name of a variable"),
        ("", "copy trips to 'x'", ConfigError, "a query reads"),
    ],
)
def test_what_is_wrong_is_told(shell: Any, line: str, cell: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        shell.run_cell_magic("noria", line, cell)


def test_without_a_project_it_says_how_to_open_one(shell: Any) -> None:
    del shell.user_ns["project"]
    with pytest.raises(ConfigError, match=r"noria\.open"):
        shell.run_line_magic("noria", "select 1")


def test_outside_of_a_project_the_extension_loads_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("NORIA_PROJECT", str(tmp_path))
    InteractiveShell.clear_instance()
    made: Any = InteractiveShell.instance(history_length=0)
    made.history_manager.enabled = False
    made.run_line_magic("load_ext", "noria.notebook")
    assert "project" not in made.user_ns and "noria.open(DIR)" in capsys.readouterr().out
    made.run_line_magic("unload_ext", "noria.notebook")
    InteractiveShell.clear_instance()


def test_the_kernel_is_this_python_with_the_project(tiny: Path) -> None:
    with noria.open(tiny) as project:
        kernel = json.loads((write_kernel(project) / "noria" / "kernel.json").read_text())
    assert kernel["argv"][0] == sys.executable and kernel["env"] == {"NORIA_PROJECT": str(tiny)}
    assert kernel["display_name"] == "tiny (noria)"


def test_without_jupyterlab_the_command_says_what_to_install(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from noria.cli import main

    monkeypatch.setattr("noria.cli.notebook.find_spec", lambda name: None)
    assert main(["notebook", "--no-browser", "--project", str(tiny)]) == 2
    assert "install noria[notebook]" in capsys.readouterr().err
