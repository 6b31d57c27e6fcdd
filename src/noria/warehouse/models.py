"""The models of a project: SQL files, Python functions and those of a dbt project, read and checked.

What a file says is kept by its content in `parsed.json`, so that a project in which nothing was changed is
read without a parser.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

from noria.errors import ConfigError
from noria.records import digest_of, sha256_hex
from noria.warehouse.declarations import Model as PythonModel
from noria.warehouse.header import Header, Rule, read_header
from noria.warehouse.records import Reference, Statement

__all__ = ["Model", "Models", "Problem", "TestQuery", "find_models"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TESTS = "tests"
_RESERVED = "ledger_"


class Parsed(msgspec.Struct, frozen=True):
    """What the text of a file says."""

    header: Header
    statement: Statement


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model.

    Attributes
    ----------
    path
        Below the project's folder, with the line for a function.
    sql
        Empty for a function.
    digest
        Of what makes the rows; not of the header.
    tables
        What it names; where `is_exact` is false, everything that could be a table.
    changing
        What in its SQL gives something else each time; empty: nothing.
    """

    name: str
    path: str
    language: Literal["sql", "python"]
    header: Header
    digest: str
    tables: tuple[Reference, ...]
    sql: str = ""
    is_exact: bool = True
    is_ordered: bool = False
    changing: str = ""

    @property
    def is_view(self) -> bool:
        """Whether it is a query that is never stored."""
        return self.header.materialize == "view"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of its tests: those that its key stands for, too."""
        key = self.header.key
        named = ", ".join(key)
        of_key = (
            Rule(kind="not_null", name=f"not_null({named})", columns=key),
            Rule(kind="unique", name=f"unique({named})", columns=key),
        )
        partition = self.header.partition
        of_time = (
            Rule(kind="not_null", name=f"not_null({partition.column})", columns=(partition.column,))
            if partition
            else None
        )
        own = [
            *(of_key if key else ()),
            *((of_time,) if of_time else ()),
            *self.header.rules,
        ]
        return tuple({(each.name, each.kind): each for each in own}.values())


class TestQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A file in `tests`: a query that gives the rows that should not be."""

    name: str
    path: str
    rule: Rule
    tables: tuple[Reference, ...]
    digest: str


class Problem(msgspec.Struct, frozen=True):
    """Why a model cannot be built as it stands."""

    model: str
    message: str


@dataclass(slots=True)
class Models:
    """The models of a project by name, and what is wrong with others."""

    found: dict[str, Model] = field(default_factory=dict)
    functions: dict[str, PythonModel] = field(default_factory=dict)
    tests: list[TestQuery] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def views(self) -> dict[str, str]:
        """The SELECT of each view, in an order in which they can be created.

        Those whose definition is broken, or goes in a circle, are left out.
        """
        broken = {each.model for each in self.problems}
        made: dict[str, str] = {}
        waiting = {name: each for name, each in self.found.items() if each.is_view and name not in broken}
        while waiting:
            ready = [
                name
                for name, each in waiting.items()
                if not any(one.name in waiting for one in each.tables if one.name != name or each.is_exact)
            ]
            if not ready:
                break
            for name in ready:
                made[name] = waiting.pop(name).sql
        return made

    def add(self, model: Model) -> None:
        """Take up a model; a second one of a name is a problem of both."""
        other = self.found.get(model.name)
        if other is not None:
            self.problems.append(
                Problem(
                    model.name,
                    f"two models have the name {model.name!r}: {other.path} and {model.path}; rename one",
                )
            )
            return
        self.found[model.name] = model

    def refuse(self, name: str, message: str) -> None:
        """Note what is wrong with a model."""
        self.problems.append(Problem(name, message))


def find_models(
    root: Path,
    folder: str,
    *,
    functions: Iterable[PythonModel] = (),
    code_of: Callable[[PythonModel], tuple[str, str]] | None = None,
    datasets: Iterable[str] = (),
    kept: Path | None = None,
    dbt: str | None = None,
) -> Models:
    """Read all models of a project; what is wrong with one of them is noted, and the others are given.

    Parameters
    ----------
    root
        The project's folder.
    folder
        Where its SQL files are, below it. Files in a folder `tests` below that are tests.
    functions
        The Python models that its modules declare.
    code_of
        Gives path and digest of the code of a Python model.
    datasets
        Names that no model may have.
    kept
        Where what files say is kept by their content; None: nowhere.
    dbt
        The folder of a dbt project, below the root or anywhere; its models are taken in.
    """
    models = Models()
    reader = _Reader(kept)
    base = root / folder
    for path in sorted(base.rglob("*.sql")) if base.is_dir() else ():
        shown = path.relative_to(root).as_posix()
        if _TESTS in path.relative_to(base).parts[:-1]:
            _add_test(models, reader, path, shown)
        else:
            _add_sql(models, reader, path, shown)
    for each in functions:
        where, digest = ("", each.name) if code_of is None else code_of(each)
        models.functions[each.name.lower()] = each
        models.add(
            Model(
                name=each.name.lower(),
                path=where,
                language="python",
                header=each.header,
                digest=digest,
                tables=tuple(Reference(name, 0) for name in each.inputs),
            )
        )
    if dbt is not None:
        from noria.warehouse.dbt import add_dbt_models

        add_dbt_models(models, root / dbt, dbt.rstrip("/"), reader.parsed)
    taken = {each.lower() for each in datasets}
    for name, found in models.found.items():
        if name in taken:
            models.refuse(name, f"{found.path}: {name!r} is the name of a dataset; rename the model")
        elif name.startswith(_RESERVED):
            models.refuse(
                name, f"{found.path}: names with {_RESERVED}... are tables of the ledger; rename it"
            )
    reader.keep()
    return models


def _add_sql(models: Models, reader: "_Reader", path: Path, shown: str) -> None:
    name = path.stem.lower()
    if not _NAME.fullmatch(name):
        models.refuse(
            name, f"{shown}: {path.stem!r} cannot be said in SQL; use letters, digits and underscores"
        )
        return
    try:
        text, parsed = reader.read(path)
    except ConfigError as error:
        models.refuse(name, f"{shown}, {error}")
        return
    models.add(model_of(name, shown, text, parsed))


def model_of(name: str, path: str, text: str, parsed: Parsed) -> Model:
    """Give the model that a file's text is."""
    return Model(
        name=name,
        path=path,
        language="sql",
        header=parsed.header,
        digest=parsed.statement.digest,
        tables=parsed.statement.tables,
        sql=text,
        is_exact=parsed.statement.is_exact,
        is_ordered=parsed.statement.is_ordered,
        changing=parsed.statement.changing,
    )


def _add_test(models: Models, reader: "_Reader", path: Path, shown: str) -> None:
    try:
        text, parsed = reader.read(path)
        if not parsed.statement.tables:
            raise ConfigError("line 1: a test looks at a model, and this one names no table")
    except ConfigError as error:
        models.refuse(f"{_TESTS}/{path.stem}", f"{shown}, {error}")
        return
    rule = Rule(kind="query", name=path.stem, sql=text, severity=parsed.header.severity)
    models.tests.append(
        TestQuery(
            name=path.stem,
            path=shown,
            rule=rule,
            tables=parsed.statement.tables,
            digest=parsed.statement.digest,
        )
    )


class _Reader:
    """Reads files of SQL; what it has read before it knows by content."""

    def __init__(self, kept: Path | None) -> None:
        self._kept = kept
        self._made_by = digest_of({each: version(each) for each in ("duckdb", "noria", "sqlglot")})
        self._known: dict[str, Parsed] = {}
        self._used: dict[str, Parsed] = {}
        if kept is not None and kept.exists():
            try:
                made_by, known = msgspec.json.decode(kept.read_bytes(), type=tuple[str, dict[str, Parsed]])
            except msgspec.MsgspecError:  # of another release, or cut: it is made anew
                return
            self._known = known if made_by == self._made_by else {}

    def read(self, path: Path) -> tuple[str, Parsed]:
        """Give a file's text and what it says. Raises `ConfigError`, which begins with `line N`."""
        data = path.read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"line 1: it is no UTF-8 text ({error.reason} at byte {error.start})"
            ) from error
        return text, self.parsed(text)

    def parsed(self, text: str) -> Parsed:
        """Give what a text says. Raises `ConfigError`, which begins with `line N`."""
        key = sha256_hex(text.encode())
        parsed = self._known.get(key)
        if parsed is None:
            parsed = parse_text(text)
        self._used[key] = parsed
        return parsed

    def keep(self) -> None:
        """Write down what was read, for the next time."""
        if self._kept is None or self._used == self._known:
            return
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        written = self._kept.with_suffix(".new")
        written.write_bytes(msgspec.json.encode((self._made_by, self._used)))
        written.replace(self._kept)


def parse_text(text: str) -> Parsed:
    """Read the text of a model. Raises `ConfigError`, which begins with `line N`."""
    from noria.warehouse.sql import read_statement

    return Parsed(read_header(text), read_statement(text))
