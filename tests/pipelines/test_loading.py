"""Modules as they are loaded: from the source that lies on disk, whatever Python has kept of it."""

import importlib
import importlib.util
import os
import py_compile
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pipelines.conftest import write_files

from noria.pipelines.loading import changed_modules, forget_modules, importing_from, loaded_sources
from noria.records import sha256_hex


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_files(
        tmp_path,
        {
            "alpha_of_tests.py": "VALUE = 1\n",
            "package_of_tests/__init__.py": "",
            "package_of_tests/inner.py": "VALUE = 1\n",
            "space_of_tests/inner.py": "VALUE = 1\n",
            "site-packages/installed_of_tests.py": "VALUE = 1\n",
        },
    )
    yield tmp_path
    forget_modules(tmp_path)
    sys.modules.pop("installed_of_tests", None)


def load(folder: Path, *names: str) -> list[int]:
    with importing_from(folder):
        return [importlib.import_module(name).VALUE for name in names]


NAMES = ("alpha_of_tests", "package_of_tests.inner", "space_of_tests.inner")


def test_nothing_has_changed_right_after_loading(folder: Path) -> None:
    assert load(folder, *NAMES) == [1, 1, 1]
    assert changed_modules(folder) == []
    assert str(folder) not in sys.path


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_source_is_seen_and_loaded_anew(folder: Path, name: str) -> None:
    load(folder, *NAMES)
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    file.write_text("VALUE = 2\n", encoding="utf-8")
    assert changed_modules(folder) == [name]
    assert load(folder, name) == [1]  # what is loaded stays until it is forgotten
    forget_modules(folder)
    assert load(folder, name) == [2]
    assert changed_modules(folder) == []


def test_a_file_that_was_touched_or_rewritten_alike_has_not_changed(folder: Path) -> None:
    load(folder, *NAMES)
    os.utime(folder / "alpha_of_tests.py", (1, 1))
    assert changed_modules(folder) == []
    (folder / "alpha_of_tests.py").write_text("VALUE = 1\n", encoding="utf-8")
    assert changed_modules(folder) == []


def test_a_file_that_is_gone_has_changed(folder: Path) -> None:
    load(folder, *NAMES)
    (folder / "alpha_of_tests.py").unlink()
    assert changed_modules(folder) == ["alpha_of_tests"]


def test_bytecode_of_the_same_second_and_size_is_not_trusted(folder: Path) -> None:
    file = folder / "alpha_of_tests.py"
    then = int(time.time()) - 1000
    os.utime(file, (then, then))
    py_compile.compile(str(file), cfile=importlib.util.cache_from_source(str(file)))
    file.write_text("VALUE = 5\n", encoding="utf-8")
    os.utime(file, (then, then))
    assert load(folder, "alpha_of_tests") == [5]


def test_sources_are_told_by_their_digests(folder: Path) -> None:
    before = loaded_sources()
    load(folder, *NAMES)
    found = loaded_sources(before)
    assert found == {
        str(folder / name): sha256_hex((folder / name).read_bytes())
        for name in (
            "alpha_of_tests.py",
            "package_of_tests/__init__.py",
            "package_of_tests/inner.py",
            "space_of_tests/inner.py",
        )
    }
    assert loaded_sources({**before, **found}) == {}


def test_what_is_installed_is_left_to_python(folder: Path) -> None:
    assert load(folder / "site-packages", "installed_of_tests") == [1]
    (folder / "site-packages/installed_of_tests.py").write_text("VALUE = 2\n", encoding="utf-8")
    assert changed_modules(folder) == []
    forget_modules(folder)
    assert "installed_of_tests" in sys.modules


EARLY = """
import os, sys
import alpha_of_tests
from pathlib import Path
from noria.pipelines.loading import changed_modules

folder = Path(sys.argv[1])
print(changed_modules(folder))
(folder / "alpha_of_tests.py").write_text("VALUE = 2\\n")
print(changed_modules(folder))
"""


def test_what_was_loaded_before_is_told_by_the_age_of_its_file(folder: Path) -> None:
    time.sleep(0.05)  # instants of files and of processes are coarse
    done = subprocess.run(
        [sys.executable, "-c", EARLY, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "['alpha_of_tests']"]
