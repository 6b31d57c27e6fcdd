"""What the YAML files of a dbt project say: variables, sources, configurations, descriptions, tests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noria.errors import ConfigError
from noria.warehouse.dbt_tests import TestSaid, read_test
from noria.warehouse.header import Rule

__all__ = ["Properties", "Source", "read_properties"]


@dataclass(frozen=True, slots=True)
class Source:
    """A table that a project does not make: where dbt has it, and its name."""

    place: tuple[str, str]  # database and schema
    table: str


@dataclass(slots=True)
class Properties:
    """What was found; models go by the name of their file, in small letters.

    Attributes
    ----------
    versions
        (name, version) -> the file's name, of models that have versions; `newest`: name -> the newest's.
    tests
        Those that are no rules of one table's rows.
    """

    name: str
    model_paths: tuple[str, ...]
    test_paths: tuple[str, ...]
    seed_paths: tuple[str, ...]
    snapshot_paths: tuple[str, ...]
    variables: dict[str, Any]
    by_folder: Mapping[str, Any]
    sources: dict[tuple[str, str], Source] = field(default_factory=dict)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    tests: list[TestSaid] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def config_of(self, path: Path) -> dict[str, Any]:
        """Give what the YAML files say of a model at a path below the project's folder."""
        found: dict[str, Any] = {}
        place: Any = self.by_folder
        for part in (None, self.name, *path.parts[1:-1], path.stem):
            if part is not None:
                place = place.get(part) if isinstance(place, Mapping) else None
            if not isinstance(place, Mapping):
                break
            found |= {
                str(key).removeprefix("+"): value
                for key, value in place.items()
                if str(key).startswith("+") or key in ("enabled", "materialized")
            }
        return found | self.configs.get(path.stem.lower(), {})

    def source(self, group: str, table: str) -> str:
        """Name the lake's table that is a source.

        Raises
        ------
        ConfigError
            If another source, which is elsewhere, has that name as well.
        """
        mine = self.sources.get((group, table), Source(("", group), table))
        for (other_group, other_table), other in self.sources.items():
            if other.table.lower() == mine.table.lower() and other.place != mine.place:
                raise ConfigError(
                    f"the sources {group}.{table} and {other_group}.{other_table} are two tables, and both "
                    f"would be {mine.table.lower()!r} in the lake; give one an `identifier`, the name under "
                    "which the lake has it"
                )
        return mine.table.lower()


def read_properties(folder: Path) -> Properties:
    """Read the YAML files of a dbt project.

    Raises
    ------
    ConfigError
        If there is no `dbt_project.yml`, a file is no YAML or says what cannot be, or PyYAML is missing.
    """
    main = folder / "dbt_project.yml"
    if not main.is_file():
        raise ConfigError(f"there is no {main}; correct `dbt` in [warehouse] of noria.toml")
    said = _load(main)
    name = str(said.get("name", ""))
    variables = dict(_mapping(said, "vars", main))
    own = variables.pop(name, None)
    variables |= own if isinstance(own, Mapping) else {}
    found = Properties(
        name=name,
        model_paths=_paths(said, "model-paths", "models", main),
        test_paths=_paths(said, "test-paths", "tests", main),
        seed_paths=_paths(said, "seed-paths", "seeds", main),
        snapshot_paths=_paths(said, "snapshot-paths", "snapshots", main),
        variables=variables,
        by_folder=_mapping(said, "models", main),
    )
    files = [path for below in found.model_paths for path in sorted((folder / below).rglob("*.y*ml"))]
    texts = [(path, _load(path)) for path in files]
    for path, text in texts:  # tests name sources of any file
        for source in _mappings(text, "sources", path):
            _add_source(found, source, path)
    for path, text in texts:
        for model in _mappings(text, "models", path):
            _add_model(found, model, path)
    return found


def _add_source(found: Properties, source: Mapping[str, Any], path: Path) -> None:
    group = _name(source, "a source", path)
    place = (str(source.get("database") or ""), str(source.get("schema") or group))
    for table in _mappings(source, "tables", path):
        name = _name(table, f"a table of source {group}", path)
        found.sources[group, name] = Source(place, str(table.get("identifier") or name))


def _add_model(found: Properties, model: Mapping[str, Any], path: Path) -> None:
    name = _name(model, "a model", path).lower()
    for file, config in _files_of(found, name, model, path):
        found.configs[file] = {**_mapping(model, "config", path), **config}
        found.descriptions[file] = " ".join(str(model.get("description") or "").split())
        for test in _tests_of(model, path):
            read_test(found, file, None, test, where=f"{path}: model {name}")
        for column in _mappings(model, "columns", path):
            called = _name(column, f"a column of model {name}", path)
            for test in _tests_of(column, path):
                read_test(found, file, called, test, where=f"{path}: column {called} of model {name}")


def _files_of(
    found: Properties, name: str, model: Mapping[str, Any], path: Path
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the names of a model's files: one, or one a version; each with what is said of it alone."""
    versions = _mappings(model, "versions", path)
    if not versions:
        yield name, {}
        return
    numbers = []
    for each in versions:
        if "v" not in each:
            raise ConfigError(f"{path}: a version of model {name} has no `v`; write `- v: 1`")
        number = str(each["v"])
        file = found.versions[name, number] = str(each.get("defined_in") or f"{name}_v{number}").lower()
        numbers.append(number)
        if each.get("columns") or list(_tests_of(each, path)):
            found.notes.append(f"what is said of the columns of version {number} of model {name} is not read")
        yield file, _mapping(each, "config", path)
    newest = str(model.get("latest_version") or max(numbers, key=_number))
    if (name, newest) not in found.versions:
        raise ConfigError(
            f"{path}: the latest version of model {name} is {newest}, which is none of {', '.join(numbers)}"
        )
    found.newest[name] = found.versions[name, newest]


def _number(text: str) -> tuple[int, float, str]:
    """Order versions as dbt does: numbers, then texts."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


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


def _mappings(thing: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    said = thing.get(key) or []
    if not isinstance(said, list) or not all(isinstance(each, Mapping) for each in said):
        raise ConfigError(f"{path}: {key} is {str(said)[:60]!r}, wanted is a list: `- name: ...` each")
    return said


def _mapping(thing: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    said = thing.get(key) or {}
    if not isinstance(said, Mapping):
        raise ConfigError(f"{path}: {key} is {str(said)[:60]!r}, wanted is a mapping: `name: value` each")
    return said


def _name(thing: Mapping[str, Any], what: str, path: Path) -> str:
    if not thing.get("name"):
        raise ConfigError(f"{path}: {what} has no name; write `- name: ...`")
    return str(thing["name"])


def _paths(said: Mapping[str, Any], key: str, usual: str, path: Path) -> tuple[str, ...]:
    found = said.get(key) or [usual]
    if not isinstance(found, list):
        raise ConfigError(f'{path}: {key} is {str(found)[:60]!r}, wanted is a list: ["{usual}"]')
    return tuple(map(str, found))


def _tests_of(thing: Mapping[str, Any], path: Path) -> Iterator[Any]:
    for key in ("tests", "data_tests"):
        said = thing.get(key) or []
        if not isinstance(said, list):
            raise ConfigError(f"{path}: {key} is {str(said)[:60]!r}, wanted is a list: `- unique`")
        yield from said
