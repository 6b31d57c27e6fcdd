"""Rows as Parquet, which a process of its own reads: no server loads that library, or ends by a bad file."""

import subprocess
import sys
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any

import msgspec
import numpy as np

from noria.serving.binding import RequestPlan
from noria.serving.requests import (
    PREDICTION_ID,
    BadRequestError,
    Column,
    InferRequest,
    RequestError,
    too_many_rows,
)
from noria.serving.wire.named_values import column_of, named_request

__all__ = ["REFUSED", "TOO_MANY", "Asked", "ReadColumn", "parse_parquet"]

_CHILD = "noria.serving.wire.parquet_child"
REFUSED, TOO_MANY = 2, 3  # how the process ends that tells what is wrong with the file, or its rows
_TIMEOUT_S = 60.0


class Asked(msgspec.Struct, frozen=True):
    """What is to be read.

    Attributes
    ----------
    names
        Columns that may be there.
    """

    body: bytes
    names: tuple[str, ...]
    max_rows: int


class ReadColumn(msgspec.Struct, frozen=True):
    """A column as it was read: an array's bytes, little-endian of eight each, or values one by one."""

    name: str
    datatype: str
    array: bytes | None = None
    values: list[Any] | None = None  # lists where it is of vectors


_DECODER = msgspec.msgpack.Decoder(list[ReadColumn])


def parse_parquet(body: bytes, plan: RequestPlan, *, name: str, max_rows: int) -> InferRequest:
    """Read rows of a Parquet file, such as `DataFrame.to_parquet` writes.

    Takes half a second, most of it the start of the process: call it beside the loop that answers.

    Parameters
    ----------
    body
        The file.
    plan, name
        What the target takes, and what it is called.
    max_rows
        More are refused before any is read.

    Raises
    ------
    RequestError
        415 if pyarrow is not installed; 400 if it is no such file, or a column is unknown or of a type that
        is not taken.
    """
    if find_spec("pyarrow") is None:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Parquet is not read here: pyarrow is not installed; send JSON"
        )
    asked = msgspec.msgpack.encode(Asked(body, (*plan.by_name, PREDICTION_ID), max_rows))
    try:
        done = subprocess.run(
            [sys.executable, "-m", _CHILD], input=asked, capture_output=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as err:
        raise BadRequestError("the Parquet file takes too long to read; send several requests") from err
    if done.returncode == TOO_MANY:
        raise too_many_rows(int(done.stdout), max_rows)
    if done.returncode == REFUSED:
        raise BadRequestError(f"{done.stdout.decode()}; {plan.expected(name)}")
    if done.returncode:
        raise BadRequestError("the body is no Parquet file that can be read")
    read = _DECODER.decode(done.stdout)
    if not read:
        raise BadRequestError(f"the Parquet file has no columns; {plan.expected(name)}")
    columns = {each.name: _column(each, plan) for each in read}
    first = next(iter(columns.values()))
    return named_request(columns, rows=len(first.values) // first.width)


def _column(read: ReadColumn, plan: RequestPlan) -> Column:
    if read.array is not None:
        return Column(read.datatype, np.frombuffer(read.array, "<i8" if read.datatype == "INT64" else "<f8"))
    assert read.values is not None
    if read.datatype:
        return Column(read.datatype, read.values)
    wanted = plan.by_name.get(read.name)
    return column_of(read.name, read.values, width=wanted.width if wanted else 1)
