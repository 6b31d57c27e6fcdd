"""Fields that requests of several families have in common."""

from typing import Annotated

import msgspec

from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.requests import Text
from noria.records import RunId

__all__ = ["KeyValue", "Required", "Search", "run_of"]

Required = Annotated[str, Text]


class KeyValue(msgspec.Struct):
    """A tag or a parameter."""

    key: Required
    value: str = ""


class Search(msgspec.Struct):
    """What is searched for in the registry."""

    max_results: int | None = None
    filter: str | None = None
    order_by: list[str] = []
    page_token: str | None = None


def run_of(run_id: str, run_uuid: str) -> RunId:
    """Give a run's id, under its name or the one that it had before. Raises `MlflowFault` without one."""
    id = run_id or run_uuid
    if not id:
        raise MlflowFault.invalid("Missing value for required parameter 'run_id'. Send it.")
    return RunId(id)
