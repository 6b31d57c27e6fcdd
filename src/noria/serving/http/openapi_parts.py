"""The parts that an OpenAPI document is made of."""

from collections.abc import Sequence
from typing import Any

__all__ = ["Json", "answer_of", "array_of", "object_of", "operation_of", "text_of"]

Json = dict[str, Any]
_JSON = "application/json"


def object_of(properties: Json, *, optional: Sequence[str] = (), **more: object) -> Json:
    """Give the schema of an object; all properties are required but those that are optional."""
    return {
        "type": "object",
        "properties": properties,
        "required": [each for each in properties if each not in optional],
        **more,
    }


def array_of(items: Json, *, least: int = 0, most: int | None = None) -> Json:
    """Give the schema of a list of so many items."""
    found: Json = {"type": "array", "items": items}
    if least:
        found["minItems"] = least
    if most is not None:
        found["maxItems"] = most
    return found


def answer_of(schema: Json, words: str = "The answer.") -> Json:
    """Give a response of JSON."""
    return {"description": words, "content": {_JSON: {"schema": schema}}}


def operation_of(
    name: str, summary: str, answer: Json, *, errors: Sequence[str] = (), **more: object
) -> Json:
    """Give what a verb does at a path; `errors` are statuses."""
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": answer,
            **{each: {"$ref": f"#/components/responses/{each}"} for each in errors},
        },
        **more,
    }


def text_of(media_type: str, words: str) -> Json:
    """Give a response that is text."""
    return {"description": words, "content": {media_type: {"schema": {"type": "string"}}}}
