"""The models of a dbt project, read and never written: what its Jinja says is rendered to plain SQL.

Understood are `ref`, `source`, `config`, `var`, `is_incremental`, `this`, the materializations, the four
tests of dbt itself and tests that are files. A model that uses more is refused by the name of what it uses,
and the rest is taken in. Nothing of a dbt project is run.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from jinja2 import TemplateSyntaxError, Undefined
from jinja2.exceptions import SecurityError, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from noria.errors import ConfigError
from noria.warehouse.dbt_properties import Properties, read_properties
from noria.warehouse.header import Header, Materialize, Rule
from noria.warehouse.models import Model, Models, Parsed, TestQuery
from noria.warehouse.partitions import Partition
from noria.warehouse.records import Reference

__all__ = ["add_dbt_models"]

_MATERIALIZED: Mapping[str, Materialize] = {
    "table": "table",
    "view": "view",
    "incremental": "incremental",
    "ephemeral": "view",
}
_ACTS = ("pre_hook", "post_hook", "pre-hook", "post-hook")
_UNITS: Mapping[str, Literal["hour", "day", "month", "year"]] = {
    "hour": "hour",
    "day": "day",
    "month": "month",
    "year": "year",
}
_NO_VALUE = object()
_AS_A_WHOLE = "it is incremental without partition_by of a field and a granularity, so it is built as a whole"


class _Unknown(Undefined):
    """A name that is none of dbt's that are understood: using it in any way refuses the model."""

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise UndefinedError(f"it uses {self._undefined_name!r}")

    __call__ = __getitem__ = __str__ = __iter__ = __bool__ = __len__ = _refused

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "jinja_")) or name in ("unsafe_callable", "alters_data"):  # Jinja asks
            raise AttributeError(name)
        raise UndefinedError(f"it uses {self._undefined_name}.{name}")


class _Config(msgspec.Struct):
    """What a model says of itself while it is rendered."""

    said: dict[str, Any] = {}


def add_dbt_models(models: Models, folder: Path, shown: str, parse: Callable[[str], Parsed]) -> None:
    """Take in the models and tests of a dbt project.

    Parameters
    ----------
    shown
        What paths begin with where they are told.
    parse
        Reads a SELECT.

    Raises
    ------
    ConfigError
        If there is no dbt project, or one of its files of properties cannot be read.
    """
    properties = read_properties(folder)
    models.notes += [f"{shown}: {each}" for each in properties.notes]
    for path in _files(folder, properties.model_paths):
        where = f"{shown}/{path.relative_to(folder).as_posix()}"
        name = path.stem.lower()
        try:
            text, said = _render(path, name, properties)
            config = properties.config_of(path.relative_to(folder)) | properties.configs.get(name, {}) | said
            header = _header(name, config, properties)
            if header.materialize == "table" and config.get("materialized") == "incremental":
                models.notes.append(f"{where}: {_AS_A_WHOLE}")
            parsed = parse(text).statement
            models.add(
                Model(
                    name=name,
                    path=where,
                    language="sql",
                    header=header,
                    digest=parsed.digest,
                    tables=parsed.tables,
                    sql=text,
                    is_exact=parsed.is_exact,
                    is_ordered=parsed.is_ordered,
                )
            )
        except ConfigError as error:
            models.refuse(name, f"{where}: {error}")
    for path in _files(folder, properties.test_paths):
        where = f"{shown}/{path.relative_to(folder).as_posix()}"
        try:
            text, said = _render(path, path.stem, properties)
            tested = parse(text).statement
        except ConfigError as error:
            models.refuse(f"tests/{path.stem}", f"{where}: {error}")
            continue
        rule = Rule(kind="query", name=path.stem, sql=text, severity=_severity(said))
        models.tests.append(_test(path.stem, where, rule, tested.tables, tested.digest))
    for model, column, to, field, severity in properties.relationships:
        name = f"{column} refers to {to}.{field}"
        sql = (
            f'select "{column}" from "{model}" where "{column}" is not null '
            f'and "{column}" not in (select "{field}" from "{to}" where "{field}" is not null)'
        )
        rule = Rule(kind="query", name=name, sql=sql, severity=severity)
        tables = (Reference(model, 1), Reference(to, 1))
        models.tests.append(_test(f"{model}.{name}", shown, rule, tables, parse(sql).statement.digest))


def _test(name: str, path: str, rule: Rule, tables: tuple[Reference, ...], digest: str) -> TestQuery:
    return TestQuery(name=name, path=path, rule=rule, tables=tables, digest=digest)


def _files(folder: Path, below: tuple[str, ...]) -> Iterator[Path]:
    for each in below:
        yield from sorted((folder / each).rglob("*.sql"))


def _header(name: str, config: Mapping[str, Any], properties: Properties) -> Header:
    for each in _ACTS:
        if config.get(each):
            raise ConfigError(f"it has a {each}, and noria runs none; take it out")
    kind = str(config.get("materialized", "view"))
    if kind not in _MATERIALIZED:
        raise ConfigError(f"it is materialized as {kind!r}; understood are {', '.join(_MATERIALIZED)}")
    partition = _partition(config.get("partition_by")) if kind == "incremental" else None
    tags = config.get("tags", ())
    return Header(
        materialize="table" if kind == "incremental" and partition is None else _MATERIALIZED[kind],
        partition=partition,
        description=properties.descriptions.get(name, ""),
        tags=(tags,) if isinstance(tags, str) else tuple(map(str, tags)),
        rules=tuple(properties.rules.get(name, ())),
    )


def _partition(said: Any) -> Partition | None:
    if not isinstance(said, Mapping) or "field" not in said:
        return None
    unit = _UNITS.get(str(said.get("granularity", "day")))
    return None if unit is None else Partition(unit, str(said["field"]))


def _render(path: Path, name: str, properties: Properties) -> tuple[str, dict[str, Any]]:
    """Give the SQL that a file stands for, and what it says by `config`."""
    config = _Config(said={})

    def configure(**said: Any) -> str:
        config.said.update(said)
        return ""

    def ref(*names: str, **_version: Any) -> str:
        return str(names[-1]).lower()

    def source(group: str, table: str) -> str:
        return properties.sources.get((group, table), table).lower()

    def var(wanted: str, default: Any = _NO_VALUE) -> Any:
        if wanted in properties.variables:
            return properties.variables[wanted]
        if default is _NO_VALUE:
            raise ConfigError(f"var({wanted!r}) is set nowhere; set it in dbt_project.yml, or give a default")
        return default

    environment = ImmutableSandboxedEnvironment(undefined=_Unknown, extensions=["jinja2.ext.do"])
    known: dict[str, Any] = {"ref": ref, "source": source, "config": configure, "var": var}
    known |= {"is_incremental": lambda: False, "this": name, "execute": False}
    environment.globals = known
    try:
        text = environment.from_string(path.read_text(encoding="utf-8")).render()
    except TemplateSyntaxError as error:
        raise ConfigError(f"line {error.lineno}: {error.message}") from error
    except UndefinedError as error:
        raise ConfigError(
            f"{error.message}; noria understands {', '.join(sorted(known))}: write it as plain SQL"
        ) from error
    except (TemplateError, SecurityError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"it cannot be rendered: {error}") from error
    return re.sub(r"\A(\s*--[^\n]*\n)+", lambda found: "\n" * found[0].count("\n"), text), config.said


def _severity(said: Mapping[str, Any]) -> Literal["block", "warn"]:
    return "warn" if str(said.get("severity", "")).lower() == "warn" else "block"
