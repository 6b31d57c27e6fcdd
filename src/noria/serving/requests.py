"""A request for predictions, whatever wire it came by, and the errors it can be answered with."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

__all__ = ["OUTPUTS", "PREDICTION_ID", "BadRequestError", "Column", "InferRequest", "RequestError", "shown"]

PREDICTION_ID = "prediction_id"
OUTPUTS: Mapping[str, str] = {"score": "FP64", PREDICTION_ID: "BYTES", "release": "BYTES", "version": "INT64"}


class RequestError(Exception):
    """A request that gets an error for an answer. The message holds none of the request's data."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class BadRequestError(RequestError):
    """A request that is malformed or does not fit the model: 400."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, message)


@dataclass(frozen=True, slots=True)
class Column:
    """One request column: as many values as there are rows, None where missing."""

    datatype: str  # of the Open Inference Protocol: BYTES for strings, else a number's
    values: list[Any]

    @property
    def is_text(self) -> bool:
        """Whether the values are strings (else numbers)."""
        return self.datatype == "BYTES"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request for predictions, read: one row per prediction."""

    id: str | None
    at: int | None  # microseconds since 1970
    rows: int
    columns: dict[str, Column]  # without the prediction ids
    prediction_ids: list[str] | None
    outputs: tuple[str, ...]


def shown(name: str) -> str:
    """Quote a name that a client gave, cut where it is long."""
    return repr(name if len(name) <= 64 else name[:64] + "…")
