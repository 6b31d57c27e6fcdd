"""What the YAML files of a dbt project say: variables, sources, configurations, descriptions, tests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from noria.errors import ConfigError
from noria.warehouse.header import Rule

__all__ = ["Properties", "read_properties"]

Severity = Literal["block", "warn"]
_REF = ("ref(", "source(")


@dataclass(slots=True)
class Properties:
    """What was found. `relationships` are model, column, table, field, severity."""

    name: str
    model_paths: tuple[str, ...]
    test_paths: tuple[str, ...]
    variables: dict[str, Any]
    by_folder: Mapping[str, Any]
    sources: dict[tuple[str, str], str] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    relationships: list[tuple[str, str, str, str, Severity]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def config_of(self, path: Path) -> dict[str, Any]:
        """Give what `dbt_project.yml` says of a model at a path below the project's folder."""
        found: dict[str, Any] = {}
        place: Any = self.by_folder
        for part in (None, self.name, *path.parts[1:-1], path.stem):
            if part is not None:
                place = place.get(part) if isinstance(place, Mapping) else None
            if not isinstance(place, Mapping):
                if part == self.name:
                    return found
                break
            found |= {
                key.removeprefix("+"): value
                for key, value in place.items()
                if str(key).startswith("+") or key == "materialized"
            }
        return found


def read_properties(folder: Path) -> Properties:
    """Read the YAML files of a dbt project.

    Raises
    ------
    ConfigError
        If there is no `dbt_project.yml`, a file is no YAML, or PyYAML is not installed.
    """
    main = folder / "dbt_project.yml"
    if not main.is_file():
        raise ConfigError(f"there is no {main}; correct `dbt` in [warehouse] of noria.toml")
    said = _load(main)
    name = str(said.get("name", ""))
    variables = dict(said.get("vars") or {})
    own = variables.pop(name, None)
    variables |= own if isinstance(own, Mapping) else {}
    found = Properties(
        name=name,
        model_paths=tuple(said.get("model-paths") or ("models",)),
        test_paths=tuple(said.get("test-paths") or ("tests",)),
        variables=variables,
        by_folder=said.get("models") or {},
    )
    for below in found.model_paths:
        for path in sorted((folder / below).rglob("*.y*ml")):
            _take_in(found, _load(path))
    return found


def _load(path: Path) -> Mapping[str, Any]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ConfigError(
            "models of a dbt project need PyYAML; install noria with its extra `dbt`"
        ) from error
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return said if isinstance(said, Mapping) else {}


def _take_in(found: Properties, said: Mapping[str, Any]) -> None:
    for source in said.get("sources") or ():
        for table in source.get("tables") or ():
            name = str(table["name"])
            found.sources[str(source["name"]), name] = str(table.get("identifier", name))
    for model in said.get("models") or ():
        name = str(model.get("name", "")).lower()
        found.configs[name] = dict(model.get("config") or {})
        found.descriptions[name] = " ".join(str(model.get("description", "")).split())
        for test in _tests_of(model):
            _add_test(found, name, None, test)
        for column in model.get("columns") or ():
            for test in _tests_of(column):
                _add_test(found, name, str(column["name"]), test)


def _tests_of(thing: Mapping[str, Any]) -> Iterator[Any]:
    yield from thing.get("tests") or ()
    yield from thing.get("data_tests") or ()


def _add_test(found: Properties, model: str, column: str | None, test: Any) -> None:
    kind, said = (test, {}) if isinstance(test, str) else next(iter(test.items()))
    said = dict(said or {})
    config = said.get("config") or {}
    told = str(said.get("severity") or config.get("severity") or "")
    severity: Severity = "warn" if told.lower() == "warn" else "block"
    arguments = said | dict(said.get("arguments") or {})
    rules = found.rules.setdefault(model, [])
    column = column or arguments.get("column_name")
    match kind:
        case "unique" if column:
            rules.append(Rule(kind="unique", name=f"unique({column})", columns=(column,), severity=severity))
        case "not_null" if column:
            rules.append(
                Rule(kind="not_null", name=f"not_null({column})", columns=(column,), severity=severity)
            )
        case "accepted_values" if column and arguments.get("values"):
            quoted = arguments.get("quote", True)
            values = ", ".join(_literal(each, quoted) for each in arguments["values"])
            sql = f'"{column}" in ({values})'
            rules.append(Rule(kind="row", name=f"{column} in ({values})", sql=sql, severity=severity))
        case "relationships" if column and "to" in arguments and "field" in arguments:
            to = _referred(found, str(arguments["to"]))
            found.relationships.append((model, column, to, str(arguments["field"]), severity))
        case _:
            found.notes.append(f"test {kind} of model {model} is not understood, and not run")


def _referred(found: Properties, text: str) -> str:
    """Give the table that `ref('x')` or `source('a', 'b')` names."""
    inner = text.strip()
    for each in _REF:
        inner = inner.removeprefix(each)
    names = [each.strip(" '\")") for each in inner.split(",")]
    if text.strip().startswith("source") and len(names) == 2:
        return found.sources.get((names[0], names[1]), names[1]).lower()
    return names[-1].lower()


def _literal(value: Any, quoted: bool) -> str:
    if isinstance(value, bool) or (isinstance(value, int | float) and not quoted):
        return str(value).lower()
    return "'" + str(value).replace("'", "''") + "'" if quoted else str(value)
