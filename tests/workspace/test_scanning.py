"""What a project's modules declare, and that it is the newest."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.errors import ConfigError
from noria.pipelines.loading import forget_modules
from noria.workspace.scanning import is_current, scan

STEPS = """
from helping_of_tests import NAME
from noria import pipeline, step


@step(name=NAME)
def declared() -> int:
    return 1


@pipeline
def weekly() -> int:
    return declared()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "one"
    made.mkdir()
    (made / "noria.toml").write_text('[project]\nname = "one"\n', encoding="utf-8")
    (made / "steps_of_tests.py").write_text(STEPS, encoding="utf-8")
    (made / "helping_of_tests.py").write_text('NAME = "first"\n', encoding="utf-8")
    yield made
    forget_modules(tmp_path)


def names(folder: Path) -> list[str]:
    return list(scan(folder, ("steps_of_tests",)).steps)


def test_a_module_further_down_that_changed_is_loaded_anew(folder: Path) -> None:
    found = scan(folder, ("steps_of_tests",))
    assert list(found.steps) == ["first"]
    assert list(found.pipelines) == ["weekly"]
    assert is_current(found, folder)
    (folder / "helping_of_tests.py").write_text('NAME = "other"\n', encoding="utf-8")
    assert not is_current(found, folder)
    assert names(folder) == ["other"]


def test_modules_that_did_not_change_are_not_loaded_again(folder: Path) -> None:
    one = scan(folder, ("steps_of_tests",))
    two = scan(folder, ("steps_of_tests",))
    assert one.steps["first"] is two.steps["first"]


def test_modules_that_another_scan_loaded_anew_are_not_current(folder: Path) -> None:
    one = scan(folder, ("steps_of_tests",))
    del sys.modules["steps_of_tests"]
    names(folder)
    assert not is_current(one, folder)


def test_a_helper_of_another_project_does_not_stand_in(folder: Path, tmp_path: Path) -> None:
    assert names(folder) == ["first"]
    other = tmp_path / "two"
    other.mkdir()
    (other / "noria.toml").write_text('[project]\nname = "two"\n', encoding="utf-8")
    (other / "others_of_tests.py").write_text(STEPS, encoding="utf-8")  # listed under another name
    (other / "helping_of_tests.py").write_text('NAME = "second"\n', encoding="utf-8")
    assert list(scan(other, ("others_of_tests",)).steps) == ["second"]
    assert names(folder) == ["first"]


def test_a_name_that_python_has_taken_is_refused(folder: Path) -> None:
    (folder / "json.py").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="'json' has the name of a module that Python has loaded already"):
        scan(folder, ("json",))


def test_a_module_that_fails_names_the_line(folder: Path) -> None:
    (folder / "helping_of_tests.py").write_text("NAME = 1\n\nNAME / 0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"helping_of_tests.py, line 3: ZeroDivisionError"):
        names(folder)


def test_a_project_that_imports_pandera_keeps_its_time_zones(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "zones"\nmodules = ["rows"]\n')
    (tmp_path / "rows.py").write_text(
        "import warnings\n\nimport noria\n\n"
        "with warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    import pandera.polars\n\n"
        'sales = noria.Dataset("sales", key="id", event_at="at", reading={"time_zone": "Europe/Vienna"})\n'
    )
    (tmp_path / "sales.csv").write_text("id,at\na,2024-01-31 05:06\n")
    (tmp_path / "sales.jsonl").write_text('{"id": "b", "at": "2024-01-31T05:06:00+01:00"}\n')
    code = (
        "import noria\n"
        "with noria.open() as project:\n"
        "    project.ingest('sales', 'sales.csv')\n"
        "    project.ingest('sales', 'sales.jsonl')\n"
        "    print(project.query('select distinct \"at\"::varchar as t from sales')['t'].to_pylist())\n"
        "import os\n"
        "print('PYARROW_IGNORE_TIMEZONE' in os.environ)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "['2024-01-31 04:06:00+00']\nFalse\n", done.stderr
