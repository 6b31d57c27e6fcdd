"""An OpenAPI 3.1 document of what a server answers, written from the columns and outputs of its models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import quote

from noria.serving.binding import RequestColumn
from noria.serving.http.openapi_parts import Json, answer_of, array_of, object_of, operation_of, text_of
from noria.serving.records import Output
from noria.serving.requests import PREDICTION_ID, TOLD
from noria.serving.wire.oip import MAX_ROWS
from noria.serving.wire.tensors import DATATYPES

__all__ = ["DescribedModel", "example_row", "openapi_document"]

_JSON = "application/json"
_OCTETS = "application/octet-stream"
_CSV, _PARQUET = "text/csv", "application/vnd.apache.parquet"
_BYTES = {
    "schema": {
        "type": "string",
        "contentEncoding": "binary",
        "description": "The JSON, as many bytes as `Inference-Header-Content-Length` says, then the tensors.",
    }
}
_ERRORS = {
    "400": "Malformed, or it does not fit the model; the message says what was expected.",
    "403": "Explanations are switched off.",
    "404": "No such model, version or prediction.",
    "409": "A prediction id was answered before for other input.",
    "413": "The body is too large.",
    "415": "A content type that is not taken.",
    "422": "The model gives no number that could be explained.",
    "500": "The model raised.",
    "503": "Not ready, or too busy; try again after `Retry-After` seconds.",
    "504": "It took longer than the deadline.",
}
_PREDICT_ERRORS = ("400", "404", "409", "413", "500", "503", "504")
_EXPLAIN_ERRORS = ("400", "403", "404", "413", "422", "500", "503", "504")
_EXPLANATION: Json = {"$ref": "#/components/schemas/Explanation"}


@dataclass(frozen=True, slots=True)
class DescribedModel:
    """What a client is told of one name that a server answers to.

    Attributes
    ----------
    name
        Of the model or the deployment.
    versions
        That score.
    columns
        What a request brings.
    outputs
        What it gives.
    example
        A stored sample row by column, where there is one.
    """

    name: str
    versions: tuple[int, ...]
    columns: tuple[RequestColumn, ...]
    outputs: tuple[Output, ...]
    example: Mapping[str, object] = field(default_factory=dict)


def example_row(model: DescribedModel) -> dict[str, object]:
    """Give a row that the model takes: its stored sample, or values of the right kinds."""
    return {each.name: model.example.get(each.name, _made_up(each)) for each in model.columns}


def openapi_document(
    models: Sequence[DescribedModel], *, title: str, default: str | None = None, max_rows: int = MAX_ROWS
) -> Json:
    """Describe every route of a server.

    Parameters
    ----------
    models
        By whatever names it answers.
    title
        Of the document.
    default
        Which of them answers at `/invocations`; None: none does.
    max_rows
        That one request may bring.
    """
    paths: Json = {**_SERVER_PATHS}
    for model in models:
        paths |= _model_paths(model, max_rows)
    invoked = next((each for each in models if each.name == default), None)
    if invoked is not None:
        paths["/invocations"] = {"post": _invocations(invoked, max_rows)}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version("noria")},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": object_of({"error": {"type": "string"}}),
                "Explanation": _EXPLAINED,
                "Tensor": _TENSOR,
            },
            "responses": {
                code: {
                    "description": words,
                    "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for code, words in _ERRORS.items()
            },
        },
    }


def _made_up(column: RequestColumn) -> object:
    value: object = "text" if column.is_text else True if column.datatype == "BOOL" else 1.0
    return value if column.width == 1 else [value] * column.width


_ID: Json = {
    "type": "string",
    "minLength": 1,
    "description": "Answered once: the same id and input get the same answer, other input 409.",
}
_AT: Json = {
    "type": ["string", "integer", "null"],
    "description": "The rows' instant, where the environment's clock is `replay`; none is taken elsewhere.",
}
_TENSOR: Json = object_of(
    {
        "name": {"type": "string"},
        "shape": array_of({"type": "integer", "minimum": 1}, least=1, most=2),
        "datatype": {"type": "string", "enum": sorted(DATATYPES)},
        "data": {"type": "array", "description": "Row-major, flat or nested; null is missing."},
        "parameters": {"type": "object"},
    },
    optional=("data", "parameters"),
)
_EXPLAINED: Json = object_of(
    {
        **{name: {"type": "string"} for name in ("model", "release", "method", "unit")},
        "version": {"type": "integer"},
        **{name: {"type": ["number", "null"]} for name in ("score", "base", "total")},
        "contributions": array_of({"type": "object"}),
        "outputs": array_of({"type": "object"}) | {"description": "Of several classes: the same of each."},
    },
    optional=("score", "base", "total", "contributions", "outputs"),
)
_TOP: Json = {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1}}
_READY = object_of({"ready": {"type": "boolean"}, "parameters": {"type": "object"}}, optional=("parameters",))


_BY_NAME: Json = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_LOAD: Json = {
    "required": False,
    "content": {_JSON: {"schema": {"type": "object", "properties": {"parameters": {"type": "object"}}}}},
}
_SERVER_PATHS: Json = {
    "/": {
        "get": operation_of("alive", "Whether it lives", answer_of(object_of({"status": {"type": "string"}})))
    },
    "/v2": {"get": operation_of("server", "Name, version and extensions", answer_of({"type": "object"}))},
    "/v2/health/live": {
        "get": operation_of("live", "Whether it lives", answer_of(object_of({"live": {"const": True}})))
    },
    "/v2/health/ready": {
        "get": operation_of("ready", "Whether it can answer", answer_of(_READY))
        | {"responses": {"200": answer_of(_READY), "503": answer_of(_READY, "Not yet.")}}
    },
    "/outcomes": {
        "post": operation_of(
            "record_outcome",
            "What became of a prediction",
            answer_of(object_of({each: {"type": "integer"} for each in ("recorded", "repeated", "unknown")})),
            errors=("400", "409", "413", "503"),
            requestBody={
                "required": True,
                "content": {
                    _JSON: {
                        "schema": object_of(
                            {
                                "prediction_id": {"type": "string", "minLength": 1},
                                "outcome": {"type": ["number", "boolean", "string", "null"]},
                                "known_at": {"type": "string", "format": "date-time"},
                                "deployment": {"type": "string"},
                            },
                            optional=("known_at", "deployment"),
                            additionalProperties=False,
                        )
                    }
                },
            },
        )
    },
    "/v2/repository/index": {
        "post": operation_of(
            "index",
            "Models and whether they are ready",
            answer_of(array_of({"type": "object"})),
            errors=("400",),
            requestBody={
                "required": False,
                "content": {
                    _JSON: {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}
                },
            },
        )
    },
    **{
        f"/v2/repository/models/{{model}}/{verb}": {
            "post": operation_of(
                f"{verb}_model",
                f"{verb.capitalize()} a model that the route has",
                {"description": "Done."},
                errors=("400", "404", "503"),
                parameters=[_BY_NAME],
                requestBody=_LOAD,
            )
        }
        for verb in ("load", "unload")
    },
    **{
        path: {
            "get": operation_of(
                path[1:], "Whether a model answers", text_of(_JSON, "It does."), errors=("404",)
            )
        }
        for path in ("/ping", "/health")
    },
    "/version": {"get": operation_of("version", "Of the server", text_of("text/plain", "The version."))},
    "/metrics": {"get": operation_of("metrics", "For Prometheus", text_of("text/plain", "The metrics."))},
    "/openapi.json": {"get": operation_of("openapi", "This document", answer_of({"type": "object"}))},
    "/docs": {"get": operation_of("docs", "A page for people", text_of("text/html", "The page."))},
    "/v1/models": {
        "get": operation_of(
            "list_v1", "Names of models", answer_of(object_of({"models": array_of({"type": "string"})}))
        )
    },
}


def _model_paths(model: DescribedModel, max_rows: int) -> Json:
    name = quote(model.name, safe="")
    tag = {"tags": [model.name]}
    infer = operation_of("", "Open Inference Protocol v2", answer_of(_infer_answer()), errors=_PREDICT_ERRORS)
    infer["responses"]["200"]["content"][_OCTETS] = _BYTES
    infer |= {"requestBody": _infer_body(model, max_rows), **tag}
    about: Json = {"": ("metadata", "What it takes and gives"), "/ready": ("ready", "Whether it can answer")}
    number = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": [str(each) for each in model.versions]},
    }
    paths: Json = {
        f"/models/{name}/predict": {
            "post": operation_of(
                f"predict {model.name}",
                "Named fields in, named values out",
                answer_of({"anyOf": [_answer_row(model), object_of({"rows": array_of(_answer_row(model))})]}),
                errors=_PREDICT_ERRORS,
                requestBody=_plain_body(model, max_rows),
                **tag,
            )
        },
        f"/models/{name}/explain": {
            "post": operation_of(
                f"explain {model.name}",
                "What each input adds to a score",
                answer_of({"anyOf": [_EXPLANATION, object_of({"rows": array_of(_EXPLANATION)})]}),
                errors=_EXPLAIN_ERRORS,
                parameters=[_TOP],
                requestBody=_plain_body(model, max_rows, object_of({PREDICTION_ID: _ID})),
                **tag,
            )
        },
        f"/v1/models/{name}": {
            "get": operation_of(
                f"ready_v1 {model.name}",
                "KServe v1: whether it can answer",
                answer_of({"type": "object"}),
                errors=("503",),
                **tag,
            )
        },
        f"/v1/models/{name}:predict": {
            "post": operation_of(
                f"predict_v1 {model.name}",
                "KServe v1",
                answer_of(_predictions(model)),
                errors=_PREDICT_ERRORS,
                requestBody=_instances_body(model, max_rows),
                **tag,
            )
        },
        f"/v1/models/{name}:explain": {
            "post": operation_of(
                f"explain_v1 {model.name}",
                "KServe v1: what each input adds to a score",
                answer_of(
                    object_of({"predictions": {"type": "array"}, "explanations": array_of(_EXPLANATION)})
                ),
                errors=_EXPLAIN_ERRORS,
                parameters=[_TOP],
                requestBody=_instances_body(model, max_rows),
                **tag,
            )
        },
    }
    for middle, parameters in (("", []), ("/versions/{version}", [number])):
        which = " version" if middle else ""
        for end, (word, summary) in about.items():
            paths[f"/v2/models/{name}{middle}{end}"] = {
                "get": operation_of(
                    f"{word}{which} {model.name}",
                    summary,
                    answer_of({"type": "object"}),
                    errors=("404", "503"),
                    parameters=parameters,
                    **tag,
                )
            }
        paths[f"/v2/models/{name}{middle}/infer"] = {
            "post": infer | {"operationId": f"infer{which} {model.name}", "parameters": parameters}
        }
    return paths


def _value(column: RequestColumn) -> Json:
    kind = "string" if column.is_text else "boolean" if column.datatype == "BOOL" else "number"
    if column.width > 1:
        return array_of({"type": [kind, "null"]}, least=column.width, most=column.width) | {
            "type": ["array", "null"]
        }
    return {"type": [kind, "null"]}


def _row(model: DescribedModel) -> Json:
    fields = {each.name: _value(each) for each in model.columns}
    optional = [each.name for each in model.columns if each.optional]
    if PREDICTION_ID not in fields:
        fields[PREDICTION_ID] = _ID
        optional.append(PREDICTION_ID)
    return object_of(fields, optional=optional, additionalProperties=False)


def _instances_body(model: DescribedModel, max_rows: int) -> Json:
    schema = object_of({"instances": array_of(_row(model), least=1, most=max_rows)})
    return {
        "required": True,
        "content": {_JSON: {"schema": schema, "example": {"instances": [example_row(model)]}}},
    }


def _plain_body(model: DescribedModel, max_rows: int, *others: Json) -> Json:
    row = _row(model)
    single = row if "at" in row["properties"] else row | {"properties": row["properties"] | {"at": _AT}}
    several = object_of(
        {"rows": array_of(row, least=1, most=max_rows), "at": _AT},
        optional=("at",),
        additionalProperties=False,
    )
    return {
        "required": True,
        "content": {_JSON: {"schema": {"anyOf": [single, several, *others]}, "example": example_row(model)}},
    }


def _output(output: Output) -> Json:
    kind = {"FP64": "number", "INT64": "integer", "BOOL": "boolean", "BYTES": "string"}[output.datatype]
    return {"type": [kind, "null"]}


def _answer_row(model: DescribedModel) -> Json:
    fields: Json = {}
    for each in model.outputs:
        fields[each.name] = _output(each)
        if each.labels:
            fields[each.name] = object_of({label: _output(each) for label in each.labels})
        elif each.width:
            fields[each.name] = array_of(_output(each))
    fields |= {name: {"type": "integer" if kind == "INT64" else "string"} for name, kind in TOLD.items()}
    return object_of(fields)


def _predictions(model: DescribedModel) -> Json:
    values = {each.name: array_of(_output(each)) if each.width else _output(each) for each in model.outputs}
    items = next(iter(values.values())) if len(values) == 1 else object_of(values)
    return object_of({"predictions": array_of(items)})


def _tensor(column: RequestColumn, value: object) -> Json:
    width = column.width
    return {
        "name": column.name,
        "datatype": column.datatype,
        "shape": [1] if width == 1 else [1, width],
        "data": [value] if width == 1 else value,
    }


def _infer_body(model: DescribedModel, max_rows: int) -> Json:
    row = example_row(model)
    schema = object_of(
        {
            "id": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {"at": _AT, "binary_data_output": {"type": "boolean"}},
            },
            "inputs": array_of({"$ref": "#/components/schemas/Tensor"}, least=1)
            | {
                "description": f"One tensor for each column, [n] or [n, k], of at most {max_rows} rows; "
                "or, where all are numbers, one [n, columns]."
            },
            "outputs": array_of(
                object_of(
                    {
                        "name": {"enum": [*(each.name for each in model.outputs), *TOLD]},
                        "parameters": {
                            "type": "object",
                            "properties": {"binary_data": {"type": "boolean"}},
                        },
                    },
                    optional=("parameters",),
                )
            ),
        },
        optional=("id", "parameters", "outputs"),
    )
    example = {"inputs": [_tensor(each, row[each.name]) for each in model.columns]}
    return {"required": True, "content": {_JSON: {"schema": schema, "example": example}, _OCTETS: _BYTES}}


def _infer_answer() -> Json:
    return object_of(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": array_of({"$ref": "#/components/schemas/Tensor"}),
        },
        optional=("model_version", "id", "parameters"),
    )


def _invocations(model: DescribedModel, max_rows: int) -> Json:
    rows = array_of(_row(model), least=1, most=max_rows)
    split = object_of(
        {
            "columns": array_of({"enum": [*(each.name for each in model.columns), PREDICTION_ID]}),
            "data": array_of({"type": "array"}, least=1, most=max_rows),
            "index": {"type": "array"},
        },
        optional=("columns", "index"),
    )
    columns = {each.name: array_of(_value(each), least=1) for each in model.columns}
    optional = [each.name for each in model.columns if each.optional]
    forms: Json = {
        "dataframe_split": split,
        "dataframe_records": rows,
        "instances": {"anyOf": [rows, array_of({"type": "array"}, least=1, most=max_rows)]},
        "inputs": {"anyOf": [rows, object_of(columns, optional=optional)]},
    }
    params: Json = {"params": {"type": "object", "description": "Read, and not used."}}
    error = answer_of(
        object_of({"error_code": {"type": "string"}, "message": {"type": "string"}}), "What is wrong."
    )
    operation = operation_of(
        "invocations",
        f"MLflow's scoring protocol, answered by {model.name}",
        answer_of(_predictions(model)),
        tags=[model.name],
        requestBody={
            "required": True,
            "content": {
                _JSON: {
                    "schema": {
                        "oneOf": [
                            object_of({form: schema, **params}, optional=("params",))
                            for form, schema in forms.items()
                        ]
                    },
                    "example": {"dataframe_records": [example_row(model)]},
                },
                _CSV: {"schema": {"type": "string"}},
                _PARQUET: {"schema": {"type": "string", "contentEncoding": "binary"}},
            },
        },
    )
    operation["responses"] |= {each: error | {"description": _ERRORS[each]} for each in _PREDICT_ERRORS} | {
        "415": text_of("text/plain", _ERRORS["415"])
    }
    return operation
