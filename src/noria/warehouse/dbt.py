"""The models of a dbt project, read and never written.

Understood are models, the materializations, the four tests of dbt itself and tests that are files. A model
that uses more is refused by the name of what it uses, and the rest is taken in.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from noria.errors import ConfigError
from noria.warehouse.dbt_properties import Properties, read_properties
from noria.warehouse.dbt_rendering import Renderer
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
_SNAPSHOT = re.compile(r"\{%-?\s*snapshot\s+(\w+)")
_AS_A_WHOLE = "it is incremental without partition_by of a field and a granularity, so it is built as a whole"


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
    files = list(_files(folder, properties.model_paths, "sql"))
    renderer = Renderer(properties, {path.stem.lower() for path in files})
    for path in files:
        where = f"{shown}/{path.relative_to(folder).as_posix()}"
        name = path.stem.lower()
        said: dict[str, Any] = {}
        config = properties.config_of(path.relative_to(folder))
        try:
            text = "" if _is_off(config) else renderer.render(path, name, said)
            config |= said
            if not _is_off(config):
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
            if not _is_off(said):
                models.refuse(name, f"{where}: {error}")
    for path in _files(folder, properties.test_paths, "sql"):
        if "generic" not in path.relative_to(folder).parts:  # macros, which the files of properties name
            _add_test_file(models, path, f"{shown}/{path.relative_to(folder).as_posix()}", renderer, parse)
    for each in properties.tests:
        if each.model not in models.found:
            continue
        rule = Rule(kind="query", name=each.name, sql=each.sql, severity=each.severity)
        names = filter(None, (each.model, each.other))
        try:
            digest = parse(each.sql).statement.digest
        except ConfigError as error:
            models.refuse(f"tests/{each.model}.{each.name}", f"{shown}: {error}")
            continue
        tables = tuple(Reference(name, 1) for name in names)
        models.tests.append(_test(f"{each.model}.{each.name}", shown, rule, tables, digest))
    models.notes += _not_made(folder, shown, properties, renderer.referred)


def _add_test_file(
    models: Models, path: Path, where: str, renderer: Renderer, parse: Callable[[str], Parsed]
) -> None:
    said: dict[str, Any] = {}
    try:
        text = renderer.render(path, path.stem, said)
        if _is_off(said):
            return
        tested = parse(text).statement
    except ConfigError as error:
        if not _is_off(said):
            models.refuse(f"tests/{path.stem}", f"{where}: {error}")
        return
    rule = Rule(kind="query", name=path.stem, sql=text, severity=_severity(said))
    models.tests.append(_test(path.stem, where, rule, tested.tables, tested.digest))


def _not_made(folder: Path, shown: str, properties: Properties, referred: set[str]) -> Iterator[str]:
    """Tell of tables that dbt would make and noria does not, where a model reads one."""
    for what, below, suffix, advice in (
        ("seed", properties.seed_paths, "csv", "noria loads none: ingest it into a dataset of its name"),
        ("snapshot", properties.snapshot_paths, "sql", "noria takes none: have its table in the lake"),
        ("model in Python", properties.model_paths, "py", "noria runs none: write it as one of noria's"),
    ):
        for path in _files(folder, below, suffix):
            names = {path.stem.lower()}
            if what == "snapshot":
                text = path.read_text(encoding="utf-8", errors="replace")
                names |= {each.lower() for each in _SNAPSHOT.findall(text)}
            for name in sorted(names & referred):
                place = path.relative_to(folder).as_posix()
                yield f"{shown}/{place}: {name!r} is a {what}, and {advice}"


def _is_off(config: Mapping[str, Any]) -> bool:
    return str(config.get("enabled", True)).lower() == "false"


def _test(name: str, path: str, rule: Rule, tables: tuple[Reference, ...], digest: str) -> TestQuery:
    return TestQuery(name=name, path=path, rule=rule, tables=tables, digest=digest)


def _files(folder: Path, below: tuple[str, ...], suffix: str) -> Iterator[Path]:
    for each in below:
        yield from sorted((folder / each).rglob(f"*.{suffix}"))


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


def _severity(said: Mapping[str, Any]) -> Literal["block", "warn"]:
    return "warn" if str(said.get("severity", "")).lower() == "warn" else "block"
