"""What packages offer: sorted, there, and light to import."""

import ast
import importlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.house.conftest import faces, module_of, source_files, tree_of

ENGINES = (
    "alembic",
    "deltalake",
    "duckdb",
    "lightgbm",
    "lmdb",
    "numpy",
    "obstore",
    "pyarrow",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "uvicorn",
)
# Faces that offer functions of arrays rather than declarations, with the engine that they load.
WORKING_FACES = {"noria.evaluation": ["numpy"], "noria.serving.compiled": ["numpy"]}
# Names of the root face that begin work: they load what they need when they are asked for.
WORKING_NAMES = {"Project", "open"}
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
MODULES = [each for each in map(module_of, source_files()) if ".migrations." not in each]


def in_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by name: how ruff sorts."""
    if CONSTANT.fullmatch(name):
        return 0, name
    return (1, name) if name[0].isupper() else (2, name)


def loaded_after(code: str) -> list[str]:
    """Give the engines that a new process has loaded after `code`."""
    script = f"import sys\n{code}\nprint([each for each in {ENGINES!r} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = ast.literal_eval(done.stdout)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_offers_is_there_and_sorted(name: str) -> None:
    module = importlib.import_module(name)
    offered = list(getattr(module, "__all__", []))
    assert offered == sorted(set(offered), key=in_order)
    assert [each for each in offered if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", faces())
def test_a_face_is_a_docstring_imports_and_names(name: str) -> None:
    path = next(each for each in source_files() if module_of(each) == name and each.name == "__init__.py")
    tree = tree_of(path)
    assert ast.get_docstring(tree)
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    others = [
        each
        for each in tree.body[1:]
        if not isinstance(each, allowed)
        and not (isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING")
        and not (isinstance(each, ast.FunctionDef) and each.name in {"__getattr__", "__dir__"})
    ]
    assert [ast.unparse(each) for each in others] == []


def test_a_face_loads_no_engine() -> None:
    with ThreadPoolExecutor(2) as pool:
        loaded = dict(
            zip(faces(), pool.map(lambda name: loaded_after(f"import {name}"), faces()), strict=True)
        )
    assert {name: engines for name, engines in loaded.items() if engines} == WORKING_FACES


def test_declaring_a_project_loads_no_engine() -> None:
    code = (
        "import noria\n"
        f"for name in set(noria.__all__) - {WORKING_NAMES!r}:\n"
        "    getattr(noria, name)\n"
        "for family in (noria.agg, noria.check):\n"
        "    for name in family.__all__:\n"
        "        getattr(family, name)\n"
    )
    assert loaded_after(code) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_no_engine(arguments: list[str]) -> None:
    code = (
        "import contextlib, io, noria.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    assert noria.cli.main({arguments!r}) == 0\n"
    )
    assert loaded_after(code) == []
