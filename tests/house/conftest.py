"""The repository as these tests see it: its files, as text and as syntax trees."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "noria"
TEMPLATES = SOURCE / "workspace" / "templates"


@cache
def source_files() -> tuple[Path, ...]:
    """Every Python file of the library; templates are a user's code, not the library's."""
    return tuple(each for each in sorted(SOURCE.rglob("*.py")) if TEMPLATES not in each.parents)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def short(path: Path) -> str:
    """Name a file of the library as messages do: `lake/store.py`."""
    return path.relative_to(SOURCE).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def faces() -> list[str]:
    return [module_of(each) for each in source_files() if each.name == "__init__.py"]


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Give every node with the name of the function it is in, the outermost one; '' at module level."""
    for statement in tree.body:
        yield from _named(statement, "")


def _named(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.AST]]:
    yield inside, node
    if not inside and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = node.name
    for child in ast.iter_child_nodes(node):
        yield from _named(child, inside)
