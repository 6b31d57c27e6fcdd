"""The published OpenLineage schema, rebuilt from the classes that its authors generate from it.

No distribution ships the schema documents themselves. `openlineage-python`, by the same authors and with
the same version numbers, ships one class for each definition, generated from those documents: its name
and version (`_get_schema`), its fields, which of them are required, their types, and as validators their
formats. From these the JSON Schema of each definition is written again, and `jsonschema` judges with it,
formats on. `tests/pipelines/openlineage/README.md` says how it was held against the documents.

Stricter than the documents in one thing: in a standard facet, names that it does not define are refused.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from types import ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attr
import openlineage.client.generated
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT202012

RUN_EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
# Which facet a key is: in the documents, but not in the classes.
KEYS = {
    "nominalTime": "NominalTimeRunFacet",
    "processing_engine": "ProcessingEngineRunFacet",
    "errorMessage": "ErrorMessageRunFacet",
    "parent": "ParentRunFacet",
    "jobType": "JobTypeJobFacet",
    "sourceCodeLocation": "SourceCodeLocationJobFacet",
    "version": "DatasetVersionDatasetFacet",
}
_BASES = {"RunFacet", "JobFacet", "DatasetFacet"}
_ALWAYS = {"producer", "schemaURL", "_producer", "_schemaURL"}  # required, the classes fill them in
_FORMATS = {"UUID": "uuid", "isoparse": "date-time", "urlparse": "uri"}  # by what a generated check calls
_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number"}


def faults(event: Mapping[str, Any]) -> list[str]:
    """Give all that is wrong with a run event: each as `path: what`."""
    found = _judge(RUN_EVENT, event, "$")
    if found:
        return found
    for path, entity, facets in _facet_places(event):
        for key, facet in facets.items():
            place, url = f"{path}.{key}", facet.get("_schemaURL", "")
            name = url.rpartition("/")[2]
            if key in KEYS:
                known = published_url(KEYS[key])
                found += [] if url == known else [f"{place}: {url} is not the published {known}"]
                extra = set(facet) - set(_definitions()[known]["properties"])
                found += [f"{place}: {each} is no field of it" for each in sorted(extra)]
            elif not key.startswith("noria_") or name != entity:
                found += [f"{place}: neither a facet of the specification nor of noria's on {entity}"]
                continue
            found += _judge(url, facet, place) if url in _definitions() else []
    return found


def published_url(name: str) -> str:
    """Give the address of a facet's definition, with its version."""
    return next(url for url in _definitions() if url.endswith(f"/{name}"))


def _facet_places(event: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    run, job = event.get("run", {}), event.get("job", {})
    yield "$.run.facets", "RunFacet", run.get("facets", {})
    yield "$.job.facets", "JobFacet", job.get("facets", {})
    for side in ("inputs", "outputs"):
        for place, each in enumerate(event.get(side, [])):
            yield f"$.{side}[{place}].facets", "DatasetFacet", each.get("facets", {})


def _judge(url: str, value: Any, path: str) -> list[str]:
    errors = _validator(url).iter_errors(value)
    return [f"{path}{each.json_path[1:]}: {each.message}" for each in errors]


@cache
def _validator(url: str) -> Draft202012Validator:
    checker = Draft202012Validator.FORMAT_CHECKER
    assert {"uri", "uuid", "date-time"} <= set(checker.checkers), "a format that is not checked"
    return Draft202012Validator({"$ref": url}, registry=_registry(), format_checker=checker)


@cache
def _registry() -> Registry[Any]:
    documents: dict[str, dict[str, Any]] = {}
    for url, definition in _definitions().items():
        address, _, name = url.partition("#/$defs/")
        documents.setdefault(address, {"$id": address, "$defs": {}})["$defs"][name] = definition
    resources = [(url, DRAFT202012.create_resource(each)) for url, each in documents.items()]
    empty: Registry[Any] = Registry()
    return empty.with_resources(resources)


@cache
def _definitions() -> Mapping[str, dict[str, Any]]:
    """Give the JSON Schema of each definition by its address."""
    classes = [
        each
        for module in _modules()
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]
    return {url: _object(each) for each in classes if (url := _address(each)) is not None}


def _address(defined: type) -> str | None:
    """Give the address of a definition; parts of one have none of their own."""
    own = vars(defined).get("_get_schema")
    return None if own is None else str(own())


def _modules() -> Iterator[ModuleType]:
    package = openlineage.client.generated
    for info in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{info.name}")


def _object(defined: type) -> dict[str, Any]:
    hints = get_type_hints(defined)
    fields = [each for each in attr.fields(defined) if each.name not in ("_deleted",)]
    return {
        "type": "object",
        "properties": {each.name: _field(each, hints[each.name]) for each in fields},
        "required": sorted(
            each.name for each in fields if each.default is attr.NOTHING or each.name in _ALWAYS
        ),
    }


def _field(field: "attr.Attribute[Any]", hint: Any) -> dict[str, Any]:
    schema = _schema(hint)
    calls = field.validator.__code__.co_names if field.validator is not None else ()
    formats = [name for call, name in _FORMATS.items() if call in calls]
    return {**schema, "format": formats[0]} if formats else schema


def _schema(hint: Any) -> dict[str, Any]:
    arguments = [each for each in get_args(hint) if each is not NoneType]
    match get_origin(hint):
        case origin if origin in (Union, UnionType):  # may be absent, may not be null
            return _schema(arguments[0]) if len(arguments) == 1 else {"anyOf": [*map(_schema, arguments)]}
        case origin if origin is list:
            return {"type": "array", "items": _schema(arguments[0])}
        case origin if origin is dict:
            return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if hint is Any or not isinstance(hint, type):
        return {}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if issubclass(hint, Enum):
        return {"enum": [each.value for each in hint]}
    address = _address(hint)
    return _object(hint) if address is None else {"$ref": address}
