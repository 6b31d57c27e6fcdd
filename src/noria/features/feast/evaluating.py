"""What a module of a Feast repository declares, from its syntax tree: nothing of it is run or imported."""

import ast
import posixpath
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from noria.errors import SourceError
from noria.features.feast.records import Made, Note, Opaque, Picked, Place, Symbol

__all__ = ["Evaluator"]

_MOST_DEPTH = 50
_COMPOUND = (ast.For, ast.AsyncFor, ast.While, ast.With, ast.If, ast.Match)


class _Feast:
    """Feast itself, one of its modules, or a name of it."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Module:
    """`os`, `os.path`, `datetime`, `pathlib`."""

    def __init__(self, name: str) -> None:
        self.name = name


class Evaluator:
    """Reads the modules of a repository, each once, and collects what is made of Feast's classes.

    Parameters
    ----------
    root
        The repository's folder, which its modules are imported from.

    Attributes
    ----------
    made : list of Made
        In the order of the files and lines.
    notes : list of Note
        What could not be read.
    """

    def __init__(self, root: Path) -> None:
        self.made: list[Made] = []
        self.notes: list[Note] = []
        self._root = root
        self._modules: dict[Path, dict[str, Any]] = {}

    def read(self, path: Path) -> Mapping[str, Any]:
        """Give what a file binds at its top level. Raises `SourceError` if it is no Python."""
        if path in self._modules:
            return self._modules[path]
        names: dict[str, Any] = {}
        self._modules[path] = names  # first, for modules that import each other
        shown = path.relative_to(self._root).as_posix()
        try:
            tree = ast.parse(path.read_bytes(), filename=shown)
            _Reading(self, path, shown, names).body(tree.body)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, SourceError):
                raise  # of a module that this one imports
            line = getattr(error, "lineno", None) or 1
            raise SourceError(f"{shown}, line {line}: no Python that can be read: {error}") from error
        return names

    def find(self, module: str, *, beside: Path, level: int) -> Path | None:
        """Find the file of a module of the repository."""
        parts = [each for each in module.split(".") if each]
        bases = [self._root, beside.parent] if level == 0 else [beside.parent]
        for _ in range(level - 1):
            bases = [each.parent for each in bases]
        for base in bases:
            file = base.joinpath(*parts)
            for candidate in (file.with_suffix(".py") if parts else None, file / "__init__.py"):
                if candidate is not None and candidate.is_file() and candidate.is_relative_to(self._root):
                    return candidate
        return None


class _Reading:
    """One module on its way."""

    def __init__(self, evaluator: Evaluator, path: Path, shown: str, names: dict[str, Any]) -> None:
        self._all, self._path, self._shown, self._names = evaluator, path, shown, names

    # -- statements

    def body(self, statements: list[ast.stmt]) -> None:
        for each in statements:
            self._statement(each)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Import():
                for name in node.names:
                    top = name.name.partition(".")[0]
                    self._names[name.asname or top] = self._imported(
                        name.name if name.asname else top, node, level=0
                    )
            case ast.ImportFrom():
                self._import_from(node)
            case ast.Assign():
                self._bind(node.targets, self._value(node.value))
            case ast.AnnAssign(value=ast.expr() as value):
                self._bind([node.target], self._value(value))
            case ast.Expr():
                self._value(node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.decorator_list:
                self._decorated(node)
            case ast.Try():
                self.body(node.body)
            case ast.With():
                self.body(node.body)
            case ast.If() if _is_idle(node):
                self.body(node.orelse)
            case _ if isinstance(node, _COMPOUND) and self._makes_something(node):
                self._note(
                    node,
                    what=f"what this `{type(node).__name__.lower()}` makes",
                    why="it depends on code that is not run",
                    instead="write each of them at the top level, or declare them in noria by hand",
                )

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for name in node.names:
            if name.name == "*":
                found = self._all.find(module, beside=self._path, level=node.level)
                if found is not None:
                    self._names |= self._all.read(found)
                continue
            value = self._member(module, name.name, node)
            self._names[name.asname or name.name] = value

    def _member(self, module: str, name: str, node: ast.ImportFrom) -> Any:
        if module.partition(".")[0] == "feast" and node.level == 0:
            return _Feast(name)
        if module in ("os", "os.path", "datetime", "pathlib") and node.level == 0:
            return _Module(f"{module}.{name}")
        file = self._all.find(module, beside=self._path, level=node.level)
        if file is not None and name in (names := self._all.read(file)):
            return names[name]
        inner = self._all.find(f"{module}.{name}", beside=self._path, level=node.level)
        return Opaque(f"{module}.{name}") if inner is None else dict(self._all.read(inner))

    def _imported(self, name: str, node: ast.stmt, *, level: int) -> Any:
        if name.partition(".")[0] == "feast":
            return _Feast(name)
        if name in ("os", "os.path", "datetime", "pathlib"):
            return _Module(name)
        file = self._all.find(name, beside=self._path, level=level)
        return Opaque(name) if file is None else dict(self._all.read(file))

    def _bind(self, targets: list[ast.expr], value: Any) -> None:
        for target in targets:
            if isinstance(target, ast.Name):
                self._names[target.id] = value
                if isinstance(value, Made) and value.variable is None:
                    value.variable = target.id
            elif isinstance(target, ast.Tuple) and isinstance(value, list | tuple):
                for one, each in zip(target.elts, value, strict=False):
                    self._bind([one], each)

    def _decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            value = self._value(decorator)
            if isinstance(value, Made):
                value.function = value.variable = node.name
                self._names[node.name] = value
                return
        self._names[node.name] = Opaque(f"{node.name}()")

    def _makes_something(self, node: ast.AST) -> bool:
        return any(
            isinstance(each, ast.Call) and isinstance(self._called(each.func), _Feast)
            for each in ast.walk(node)
        )

    def _called(self, node: ast.expr) -> Any:
        """Look a name up, and nothing else: nothing is made."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        return self._called(node.value) if isinstance(node, ast.Attribute) else None

    def _note(self, node: ast.stmt | ast.expr, *, what: str, why: str, instead: str) -> None:
        self._all.notes.append(
            Note(file=self._shown, line=node.lineno, kind="left out", what=what, why=why, instead=instead)
        )

    # -- values

    def _value(self, node: ast.expr, depth: int = 0) -> Any:
        if depth > _MOST_DEPTH:
            return Opaque(ast.unparse(node))

        def value(inner: ast.expr) -> Any:
            return self._value(inner, depth + 1)

        found: Any = None
        match node:
            case ast.Constant():
                return node.value
            case ast.Name(id="__file__"):
                found = str(self._path)
            case ast.Name():
                found = self._names.get(node.id)
                found = Symbol(found.name) if isinstance(found, _Feast) else found
            case ast.List() | ast.Tuple() | ast.Set():
                found = list(self._elements(node.elts, value))
            case ast.Dict():
                keys = [value(each) if isinstance(each, ast.Constant) else None for each in node.keys]
                found = {
                    key: value(each) for key, each in zip(keys, node.values, strict=True) if key is not None
                }
            case ast.UnaryOp(op=ast.USub()) if isinstance(number := value(node.operand), int | float):
                found = -number
            case ast.BinOp():
                found = self._combined(node, value(node.left), value(node.right))
            case ast.JoinedStr():
                found = self._formatted(node, value)
            case ast.Attribute():
                found = self._attribute(node, value)
            case ast.Subscript():
                found = self._picked(node, value)
            case ast.Call():
                found = self._call(node, value)
        return Opaque(ast.unparse(node)) if found is None else found

    def _elements(self, nodes: list[ast.expr], value: Callable[[ast.expr], Any]) -> Iterator[Any]:
        for each in nodes:
            if isinstance(each, ast.Starred):
                inner = value(each.value)
                yield from inner if isinstance(inner, list) else [Opaque(ast.unparse(each))]
            else:
                yield value(each)

    def _combined(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        both = (left, right)
        match node.op:
            case ast.Add() if all(isinstance(each, str) for each in both) or all(
                isinstance(each, list) for each in both
            ):
                return left + right
            case ast.Add() | ast.Sub() | ast.Mult() if all(
                isinstance(each, int | float) and not isinstance(each, bool) for each in both
            ):
                return _computed(node.op, left, right)
            case ast.Mult() if isinstance(left, timedelta) and isinstance(right, int):
                found = _duration(lambda: left * right)
                return Opaque(ast.unparse(node)) if found is None else found
            case ast.Div() if isinstance(left, PurePosixPath) and isinstance(right, str | PurePosixPath):
                return left / right
        return Opaque(ast.unparse(node))

    def _formatted(self, node: ast.JoinedStr, value: Callable[[ast.expr], Any]) -> Any:
        parts = []
        for each in node.values:
            inner = value(each.value if isinstance(each, ast.FormattedValue) else each)
            if not isinstance(inner, str | int | float | PurePosixPath):
                return Opaque(ast.unparse(node))
            parts.append(str(inner))
        return "".join(parts)

    def _attribute(self, node: ast.Attribute, value: Callable[[ast.expr], Any]) -> Any:
        if isinstance(self._called(node), _Feast):
            return Symbol(node.attr)
        of = value(node.value)
        if isinstance(of, _Module):
            return _Module(f"{of.name}.{node.attr}")
        if isinstance(of, PurePosixPath) and node.attr == "parent":
            return of.parent
        if isinstance(of, dict) and node.attr in of:
            return of[node.attr]
        return Opaque(ast.unparse(node))

    def _picked(self, node: ast.Subscript, value: Callable[[ast.expr], Any]) -> Any:
        of, at = value(node.value), value(node.slice)
        if isinstance(of, Made) and isinstance(at, list) and all(isinstance(each, str) for each in at):
            return Picked(of, tuple(at))
        if isinstance(of, dict) and isinstance(at, str) and at in of:
            return of[at]
        if isinstance(of, list) and isinstance(at, int) and -len(of) <= at < len(of):
            return of[at]
        return Opaque(ast.unparse(node))

    def _call(self, node: ast.Call, value: Callable[[ast.expr], Any]) -> Any:
        if isinstance(self._called(node.func), _Feast):
            made = Made(
                kind=node.func.attr if isinstance(node.func, ast.Attribute) else _id(self._called(node.func)),
                place=Place(self._shown, node.lineno),
            )
            self._all.made.append(made)  # before its arguments are: a note names the outer one first
            made.args = tuple(self._elements(node.args, value))
            named: dict[str, Any] = {}
            for each in node.keywords:
                inner = value(each.value)
                if each.arg is not None:
                    named[each.arg] = inner
                elif isinstance(inner, dict):
                    named |= {str(key): one for key, one in inner.items()}
            made.named = named
            return made
        args = [value(each) for each in node.args]
        named = {each.arg: value(each.value) for each in node.keywords if each.arg is not None}
        function = value(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else None
        if isinstance(function, _Module):
            found = _of_library(function.name, args, named)
        elif isinstance(node.func, ast.Name) and node.func.id == "str" and len(args) == 1:
            found = str(args[0]) if isinstance(args[0], str | PurePosixPath) else None
        elif isinstance(node.func, ast.Attribute):
            found = _of_path(value(node.func.value), node.func.attr, args)
        else:
            found = None
        return Opaque(ast.unparse(node)) if found is None else found


def _id(found: Any) -> str:
    name: str = found.name
    return name


def _computed(op: ast.operator, left: float, right: float) -> float:
    if isinstance(op, ast.Add):
        return left + right
    return left - right if isinstance(op, ast.Sub) else left * right


def _of_library(name: str, args: list[Any], named: Mapping[str, Any]) -> Any:
    """Give what a call of the standard library gives, of the few that are known; None else."""
    values = [*args, *named.values()]
    if name.endswith("timedelta"):
        numbers = all(isinstance(each, int | float) for each in values)
        return _duration(lambda: timedelta(*args, **named)) if numbers else None
    if not all(isinstance(each, str | PurePosixPath) for each in values):
        return None
    texts = [str(each) for each in values]
    kind = name.rpartition(".")[2]
    if kind in ("Path", "PurePath"):
        return PurePosixPath(*texts)
    if kind == "join" and texts:
        return posixpath.join(*texts)
    if len(texts) == 1 and kind in ("abspath", "realpath", "normpath"):
        return posixpath.normpath(texts[0])
    return posixpath.dirname(texts[0]) if len(texts) == 1 and kind == "dirname" else None


def _duration(make: Callable[[], timedelta]) -> timedelta | None:
    """Make a duration; None where Python would refuse to."""
    try:
        return make()
    except (OverflowError, TypeError, ValueError):
        return None


def _of_path(of: Any, method: str, args: list[Any]) -> Any:
    if not isinstance(of, PurePosixPath):
        return None
    if method in ("resolve", "absolute") and not args:
        return PurePosixPath(posixpath.normpath(of))
    if method == "as_posix":
        return str(of)
    if method == "joinpath" and all(isinstance(each, str | PurePosixPath) for each in args):
        return of.joinpath(*args)
    return None


def _is_idle(node: ast.If) -> bool:
    """Tell whether a condition is for running as a program, or for type checkers."""
    names = {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
    return "__name__" in names or "TYPE_CHECKING" in names
