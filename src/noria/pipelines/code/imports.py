"""What a Python file says, and which other modules it asks for, read from its source without running it."""

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from noria.records import sha256_hex

__all__ = ["Import", "PythonSource", "Target", "Unseen", "read_python", "write_tree"]

Chain = tuple[str, ...]  # `a.b.c` as it stands in the source

# Calls that import what their first argument names: seen where it is written out.
_IMPORTERS = {"builtins.__import__", "importlib.__import__", "importlib.import_module", "sys.modules.get"}
_LOOKERS = {"importlib.util.find_spec"}  # import the parents of what they are asked about
_ANCHORED = ("importlib.resources", "importlib_resources", "pkgutil.get_data")  # take a package or its name
# What runs code or imports modules that the source does not name, by its dotted name or a beginning of it.
_UNSEEN = {
    *("builtins.eval", "builtins.exec", "runpy", "zipimport", "pydoc.locate"),
    *("imp.load_module", "imp.load_source", "lazy_loader", "hydra.utils"),
    *(f"importlib.machinery.{each}" for each in ("ExtensionFileLoader", "FileFinder", "PathFinder")),
    *(f"importlib.machinery.{each}" for each in ("SourceFileLoader", "SourcelessFileLoader")),
    *("importlib.util.LazyLoader", "importlib.util.module_from_spec"),
    *("importlib.util.spec_from_file_location", "importlib.util.spec_from_loader"),
    *("pkgutil.extend_path", "pkgutil.find_loader", "pkgutil.get_importer", "pkgutil.get_loader"),
    *("pkgutil.iter_importers", "pkgutil.iter_modules", "pkgutil.resolve_name", "pkgutil.walk_packages"),
    *("sys.meta_path", "sys.modules", "sys.path", "sys.path_hooks", "site.addsitedir"),
    # A pickle names the classes that it needs; they are imported while it is read.
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "shelve", "joblib.load", "pandas.read_pickle"),
    *("cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads"),
}
_LOADED = "sys.modules"
_TYPE_CHECKING = {"typing.TYPE_CHECKING", "typing_extensions.TYPE_CHECKING"}
_POSITIONLESS = {"ctx", "kind", "type_comment", "type_ignores"}  # fields that follow from the others


@dataclass(frozen=True, slots=True)
class Import:
    """One request for modules: `import module`, or `from module import names`."""

    module: str  # "" in `from . import name`
    level: int = 0  # how many leading dots
    names: tuple[str, ...] = ()  # "*" among them: all that it offers
    is_held: bool = False  # the module is a value of the code, which may ask it for any submodule
    is_below_itself: bool = False  # dots count from the module that asks, not from its package


@dataclass(frozen=True, slots=True)
class Target:
    """What a name of the module stands for: a module, or an attribute of one."""

    module: str
    level: int = 0
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """Where a file runs code that its source does not name."""

    line: int
    what: str


@dataclass(frozen=True, slots=True)
class PythonSource:
    """A Python file, read."""

    digest: str  # of its syntax tree without positions: comments and layout do not count, docstrings do
    imports: tuple[Import, ...]
    targets: Mapping[str, tuple[Target, ...]]  # names bound by imports, anywhere in the file
    chains: frozenset[Chain]  # dotted names that are read
    exports: tuple[str, ...] | None  # `__all__`; None: not written out
    unseen: Unseen | None


@lru_cache(maxsize=4096)
def read_python(data: bytes) -> PythonSource:
    """Read a Python file.

    Raises
    ------
    SyntaxError
        If it does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes and the like: of no concern here
        try:
            tree = ast.parse(data)
        except (ValueError, RecursionError, MemoryError) as err:
            raise SyntaxError(str(err) or "nested too deeply") from err
    reading = _Reading()
    reading.read(tree)
    reading.look_at_uses()
    return PythonSource(
        digest=sha256_hex(write_tree(tree).encode("utf-8", "backslashreplace")),
        imports=tuple(dict.fromkeys(reading.imports)),
        targets={name: tuple(dict.fromkeys(targets)) for name, targets in reading.targets.items()},
        chains=frozenset(reading.uses),
        exports=reading.exports,
        unseen=min(reading.unseen, key=lambda each: each.line, default=None),
    )


_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {}  # of each kind of node, last first


def _fields_of(kind: type[ast.AST]) -> tuple[str, ...]:
    known = _FIELDS.get(kind)
    if known is None:
        known = _FIELDS[kind] = tuple(name for name in reversed(kind._fields) if name not in _POSITIONLESS)
    return known


def write_tree(tree: ast.AST) -> str:
    """Write what a syntax tree says, without positions; equal texts are equal trees.

    In preorder with the lengths of lists: half the time of `ast.dump`, at any depth.
    """
    said: list[str] = []
    waiting: list[object] = [tree]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, ast.AST):
            kind = thing.__class__
            said.append(kind.__name__)
            for name in _fields_of(kind):
                waiting.append(getattr(thing, name, None))
        elif isinstance(thing, list):
            said.append(f"[{len(thing)}")
            waiting.extend(reversed(thing))
        elif thing.__class__ is int:
            said.append(f"{thing:#x}")  # `repr` refuses integers of many digits
        else:
            said.append(repr(thing))
    return "\n".join(said)


@dataclass(slots=True)
class _Reading:
    """What is found on one walk through a tree, in the order of the source."""

    imports: list[Import] = field(default_factory=list)
    targets: dict[str, list[Target]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)  # modules whose names are all taken
    uses: dict[Chain, list[tuple[int, ast.Call | None]]] = field(default_factory=dict)
    exports: tuple[str, ...] | None = ()
    unseen: list[Unseen] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)  # names that are assigned
    passed_on: dict[str, Unseen] = field(default_factory=dict)  # bound to what runs unseen code

    def read(self, tree: ast.AST) -> None:
        """Note what `tree` says, in the order of the source."""
        waiting: list[ast.AST] = [tree]
        while waiting:
            node = waiting.pop()
            enter = _ENTER.get(node.__class__, _below)
            waiting.extend(reversed(list(enter(self, node))))

    # Each of these notes what a node says and gives the nodes below it that remain to be read.

    def _import(self, node: ast.Import) -> Iterable[ast.AST]:
        for each in node.names:
            self._import_one(each.name, each.asname)
        return ()

    def _import_one(self, module: str, alias: str | None) -> None:
        self.imports.append(Import(module))
        bound = module if alias else module.partition(".")[0]
        self.targets.setdefault(alias or bound, []).append(Target(bound))

    def _import_from(self, node: ast.ImportFrom) -> Iterable[ast.AST]:
        module, level = node.module or "", node.level
        self.imports.append(Import(module, level, tuple(each.name for each in node.names)))
        for each in node.names:
            if each.name == "*":
                if not level:
                    self.stars.append(module)
                continue
            bound = each.asname or each.name
            self.targets.setdefault(bound, []).append(Target(module, level, each.name))
            if not level and _is_unseen(f"{module}.{each.name}"):
                self.passed_on.setdefault(bound, Unseen(node.lineno, f"{module}.{each.name}"))
            if bound == "__all__":
                self.exports = None
        return ()

    def _if(self, node: ast.If) -> Iterable[ast.AST]:
        names = self._names(node.test)
        return node.orelse if names and names <= _TYPE_CHECKING else _below(self, node)

    def _call(self, node: ast.Call) -> Iterable[ast.AST]:
        chain = _chain_of(node.func)
        if chain is None:
            return _below(self, node)
        self._use(chain, node.lineno, node)
        return [*node.args, *node.keywords]

    def _compare(self, node: ast.Compare) -> Iterable[ast.AST]:
        match node:  # `"module" in sys.modules` asks for nothing
            case ast.Compare(left=ast.Constant(), ops=[ast.In() | ast.NotIn()], comparators=[loaded]):
                return () if self._names(loaded) == {_LOADED} else (loaded,)
            case _:
                return _below(self, node)

    def _name(self, node: ast.Name) -> Iterable[ast.AST]:
        if isinstance(node.ctx, ast.Load):
            self._use((node.id,), node.lineno)
        else:
            self.stored.add(node.id)
            self.exports = None if node.id == "__all__" else self.exports
        return ()

    def _attribute(self, node: ast.Attribute) -> Iterable[ast.AST]:
        chain = _chain_of(node)
        if chain is None:
            if node.attr == "__path__":
                self.unseen.append(Unseen(node.lineno, "__path__"))
            return (node.value,)
        self._use(chain, node.lineno)
        return ()

    def _subscript(self, node: ast.Subscript) -> Iterable[ast.AST]:
        if self._names(node.value) == {_LOADED}:
            match node.slice:
                case ast.Name(id="__name__"):
                    return ()
                case ast.Constant(value=str(module)):
                    self.imports.append(Import(module, is_held=True))
                    return ()
        return _below(self, node)

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> Iterable[ast.AST]:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple() as listed)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.List() | ast.Tuple() as listed)
                | ast.AugAssign(target=ast.Name(id="__all__"), value=ast.List() | ast.Tuple() as listed)
            ):
                texts = [_text_of(each) for each in listed.elts]
                if self.exports is not None and None not in texts:
                    self.exports += tuple(filter(None, texts))
                    return ()
        return _below(self, node)

    def _use(self, chain: Chain, line: int, call: ast.Call | None = None) -> None:
        self.uses.setdefault(chain, []).append((line, call))
        if chain[0] == "__all__":
            self.exports = None

    def _names(self, node: ast.expr) -> set[str]:
        """Give the full names that a dotted name may have, by what is imported up to here."""
        chain = _chain_of(node)
        return set() if chain is None or chain[0] in self.stored else set(self._full_names(chain))

    def _full_names(self, chain: Chain) -> Iterator[str]:
        root, rest = chain[0], chain[1:]
        targets = self.targets.get(root)
        if targets is None:
            for module in ("builtins", *self.stars):
                yield ".".join((module, *chain))
        for target in targets or ():
            if not target.level:
                yield ".".join((target.module, *filter(None, [target.attribute]), *rest))

    def look_at_uses(self) -> None:
        """Find imports in calls, and what cannot be seen."""
        used = {chain[0] for chain in self.uses}
        self.unseen += [each for name, each in self.passed_on.items() if name not in used]
        for chain, places in self.uses.items():
            if "__path__" in chain:
                self.unseen.append(Unseen(places[0][0], ".".join(chain)))
            for name in self._full_names(chain):
                self._look_at(name, places)

    def _look_at(self, name: str, places: list[tuple[int, ast.Call | None]]) -> None:
        if name in _IMPORTERS or name in _LOOKERS:
            for line, call in places:
                asked = None if call is None else _literal_import(call)
                if asked is None:
                    self.unseen.append(Unseen(line, f"{name} of a name that is not written out"))
                else:
                    self.imports.append(asked)
                    if name.endswith("__import__"):  # gives the package at the top
                        self.imports.append(Import(asked.module.partition(".")[0], is_held=True))
        elif name.startswith(_ANCHORED):
            for _, call in places:
                anchor = None if call is None or not call.args else _text_of(call.args[0])
                if anchor:
                    self.imports.append(Import(anchor))
        elif _is_unseen(name):
            self.unseen.append(Unseen(places[0][0], name))


def _chain_of(node: ast.expr) -> Chain | None:
    """Give `a.b.c` as its parts; None where it does not begin with a name that is read."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
        return None
    return (node.id, *reversed(parts))


def _below(_: _Reading, node: ast.AST) -> Iterator[ast.AST]:
    for name in reversed(_fields_of(node.__class__)):
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            yield from (each for each in value if isinstance(each, ast.AST))


_ENTER: dict[type[ast.AST], Callable[[_Reading, Any], Iterable[ast.AST]]] = {
    ast.AnnAssign: _Reading._assign,
    ast.Assign: _Reading._assign,
    ast.Attribute: _Reading._attribute,
    ast.AugAssign: _Reading._assign,
    ast.Call: _Reading._call,
    ast.Compare: _Reading._compare,
    ast.If: _Reading._if,
    ast.Import: _Reading._import,
    ast.ImportFrom: _Reading._import_from,
    ast.Name: _Reading._name,
    ast.Subscript: _Reading._subscript,
}


def _text_of(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_unseen(name: str) -> bool:
    parts = name.split(".")
    beginnings = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return name in _IMPORTERS or any(each in _UNSEEN for each in beginnings)


def _literal_import(call: ast.Call) -> Import | None:
    """Read `import_module("a.b")` or `import_module(".b", package=...)`; None if it is not written out."""
    given = dict(zip(("name", "package"), call.args, strict=False))
    given |= {each.arg: each.value for each in call.keywords if each.arg is not None}
    if len(given) < len(call.args) + len(call.keywords) or given.keys() - {"name", "package"}:
        return None
    module, package = _text_of(given.get("name")), given.get("package")
    if module is None or not module.startswith("."):
        return None if module is None else Import(module, is_held=True)
    bare = module.lstrip(".")
    match package:
        case ast.Name(id="__package__" | "__name__" as name):
            level = len(module) - len(bare)
            return Import(bare, level, is_held=True, is_below_itself=name == "__name__")
        case ast.Constant(value=str(anchor)) if anchor:
            return Import(_resolve(bare, anchor, len(module) - len(bare)), is_held=True)
        case _:
            return None


def _resolve(bare: str, anchor: str, level: int) -> str:
    parts = anchor.split(".")
    return ".".join(filter(None, [*parts[: max(1, len(parts) + 1 - level)], bare]))
