"""A request for predictions and its answer, whatever wire they go by, and the errors that can be one."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PREDICTION_ID",
    "TOLD",
    "BadRequestError",
    "Column",
    "InferRequest",
    "OutputColumn",
    "Prediction",
    "RequestError",
    "shown",
    "too_many_rows",
]

PREDICTION_ID = "prediction_id"
TOLD: Mapping[str, str] = {PREDICTION_ID: "BYTES", "release": "BYTES", "version": "INT64"}  # beside outputs


class RequestError(Exception):
    """A request that gets an error for an answer. The message holds none of the request's data.

    Parameters
    ----------
    retry_after_s
        When to try again, where that helps.
    """

    def __init__(self, status: HTTPStatus, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that go with the error."""
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            return ((b"retry-after", str(self.retry_after_s or 1).encode()),)
        if self.status is HTTPStatus.UNAUTHORIZED:
            return ((b"www-authenticate", b'Bearer realm="noria"'),)
        if self.status is HTTPStatus.FORBIDDEN:
            return ((b"www-authenticate", b'Bearer realm="noria", error="insufficient_scope"'),)
        if self.status is HTTPStatus.METHOD_NOT_ALLOWED:
            return ((b"allow", str(self).rpartition(" ")[2].encode()),)
        return ()


class BadRequestError(RequestError):
    """A request that is malformed or does not fit the model: 400."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, message)


class Column(msgspec.Struct, frozen=True, gc=False):  # made twenty times for a row: a fifth of a dataclass
    """One request column: values of as many rows as there are, None (or NaN) where missing.

    Attributes
    ----------
    datatype
        Of the Open Inference Protocol: BYTES for strings, else a number's or BOOL.
    values
        Row by row, `width` of them each: a list of str, float, int, bool or None, or an array of numbers.
    width
        Above 1 of vectors.
    """

    datatype: str
    values: list[Any] | NDArray[Any]
    width: int = 1

    @property
    def is_text(self) -> bool:
        """Whether the values are strings (else numbers)."""
        return self.datatype == "BYTES"

    @property
    def is_empty(self) -> bool:
        """Whether no row has a value, so that the column may stand for one of another kind."""
        return not isinstance(self.values, np.ndarray) and all(each is None for each in self.values)


class InferRequest(msgspec.Struct, frozen=True, gc=False):
    """A request for predictions, read: one row per prediction.

    Attributes
    ----------
    columns
        By name, without the prediction ids.
    positional
        Columns without names, in the order in which the model reads its request columns; `columns` is empty
        then.
    outputs
        Which columns are answered; None: all.
    at
        The rows' instant, microseconds since 1970.
    caller
        Who asked, as the key tells that came with the request.
    trace
        The trace that the request belongs to.
    headers
        Of the request, those that routes may be chosen by, lower case.
    misfit
        Why it does not fit the target, where it may be a retry of what an earlier version answered: it is
        answered if that is so, else refused for this.
    """

    rows: int
    columns: dict[str, Column]
    positional: tuple[Column, ...] = ()
    prediction_ids: list[str] | None = None
    id: str | None = None
    at: int | None = None
    outputs: tuple[str, ...] | None = None
    caller: str | None = None
    trace: str | None = None
    headers: Mapping[str, str] = {}
    misfit: str = ""


class OutputColumn(msgspec.Struct, frozen=True, gc=False):
    """One column of an answer: values row by row, `width` of them each where it is a vector, else one."""

    name: str
    datatype: str
    values: Sequence[Any]  # floats (NaN is missing), integers, booleans or strings
    width: int = 0
    labels: tuple[str, ...] = ()


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The answer to a request, one entry per row, in its order."""

    route_number: int
    outputs: tuple[OutputColumn, ...]  # of the model, those that were asked for
    ids: list[str]
    releases: list[str]
    versions: list[int]
    logged: int  # rows that were answered before and got that answer again
    scored: Mapping[str, int]  # newly scored rows by release
    answered: Mapping[str, int]  # newly answered rows by release
    failed: Mapping[str, int]  # rows whose on-demand features are missing because their function failed
    defaulted: Mapping[str, int] = {}  # rows that got a view's fallback, by view
    stale: Mapping[str, int] = {}  # views that are too old: how old, in seconds
    columns: tuple[str, ...] | None = None  # which columns were asked for, `TOLD` ones too; None: all

    @property
    def rows(self) -> int:
        """How many rows were asked for."""
        return len(self.ids)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What is told of its features, for protocols whose answers have no room for it."""
        if not self.defaulted and not self.stale:
            return ()
        told = ((b"x-noria-defaulted", self.defaulted), (b"x-noria-stale", self.stale))
        return tuple(
            (name, ", ".join(f"{quote(view)}={number}" for view, number in views.items()).encode())
            for name, views in told
            if views
        )

    @property
    def version(self) -> int | None:
        """The version that answered all rows; None where there were several."""
        return self.versions[0] if len(set(self.versions)) == 1 else None

    @property
    def all_columns(self) -> tuple[OutputColumn, ...]:
        """The model's outputs, and the columns that tell of the prediction; those that were asked for."""
        told = (
            OutputColumn(PREDICTION_ID, "BYTES", self.ids),
            OutputColumn("release", "BYTES", self.releases),
            OutputColumn("version", "INT64", self.versions),
        )
        found = (*self.outputs, *told)
        if self.columns is None:
            return found
        by_name = {each.name: each for each in found}
        return tuple(by_name[name] for name in self.columns if name in by_name)


def too_many_rows(rows: int, max_rows: int) -> RequestError:
    """Give the error for more rows than are taken at once: 413."""
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"there are {rows} rows; at most {max_rows} are taken at once, send several requests",
    )


def shown(name: str) -> str:
    """Quote a name that a client gave, cut where it is long."""
    return repr(name if len(name) <= 64 else name[:64] + "…")
