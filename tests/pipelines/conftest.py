"""Projects of a few lines, written by the tests that need them."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent

import pytest

MakeProject = Callable[..., Path]


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[MakeProject]:
    """Give a function that writes a project: file names and texts, and lines to add to `noria.toml`.

    All modules at the top of the folder are listed, unless `modules` names others. What this process has
    loaded of it is forgotten in the end.
    """

    def make(
        files: Mapping[str, str],
        toml_extra: str = "",
        *,
        name: str = "proj",
        modules: Sequence[str] | None = None,
    ) -> Path:
        root = tmp_path / name
        write_files(root, files)
        if modules is None:
            modules = sorted(
                each.removesuffix(".py") for each in files if each.endswith(".py") and "/" not in each
            )
        listed = ", ".join(f'"{each}"' for each in modules)
        toml = f'[project]\nname = "{name}"\nmodules = [{listed}]\n{dedent(toml_extra)}'
        (root / "noria.toml").write_text(toml, encoding="utf-8")
        return root

    yield make
    forget_modules(tmp_path)


def write_files(root: Path, files: Mapping[str, str]) -> None:
    """Write texts below a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")


def forget_modules(folder: Path) -> None:
    """Drop the modules that were loaded from below a folder."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]
