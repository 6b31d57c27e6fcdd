"""The Open Inference Protocol's words about models: what they take and give, and the repository extension."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from noria.serving.binding import RequestColumn
from noria.serving.records import Output
from noria.serving.requests import TOLD, BadRequestError, shown
from noria.serving.wire.json_bodies import decode_body

__all__ = ["IndexEntry", "encode_index", "encode_metadata", "parse_index", "parse_load"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version of a model in the index.

    Attributes
    ----------
    reason
        Why it is not ready, or not in memory; else empty.
    """

    name: str
    version: str
    is_ready: bool
    reason: str = ""


class _Index(msgspec.Struct):
    ready: bool = False


class _Load(msgspec.Struct):
    parameters: dict[str, Any] = {}


_INDEX = msgspec.json.Decoder(_Index)
_LOAD = msgspec.json.Decoder(_Load)
_LOAD_PARAMETERS = frozenset(("unload_dependents",))


def parse_index(body: bytes) -> bool:
    """Read the body of `POST /v2/repository/index`, which may be empty: whether only ready ones are wanted.

    Raises
    ------
    BadRequestError
        If it is no such request.
    """
    return decode_body(_INDEX, body, what="no index request").ready if body.strip() else False


def encode_index(entries: Iterable[IndexEntry], *, ready_only: bool = False) -> bytes:
    """Write the index."""
    return orjson.dumps(
        [
            {
                "name": each.name,
                "version": each.version,
                "state": "READY" if each.is_ready else "UNAVAILABLE",
                "reason": each.reason,
            }
            for each in entries
            if each.is_ready or not ready_only
        ]
    )


def parse_load(body: bytes) -> None:
    """Read the body of a load or unload request, which may be empty.

    Raises
    ------
    BadRequestError
        If it is no such request, or brings a model or its configuration: what is served comes from the
        registry, through the gate.
    """
    if not body.strip():
        return
    for each in decode_body(_LOAD, body, what="no load request").parameters:
        if each not in _LOAD_PARAMETERS:
            raise BadRequestError(
                f"parameter {shown(each)} is not taken: models and their configuration come from the "
                "registry; deploy a version to change what is served"
            )


def encode_metadata(
    name: str,
    *,
    versions: Iterable[int],
    platform: str,
    columns: Sequence[RequestColumn],
    outputs: Sequence[Output],
) -> bytes:
    """Write the answer of `GET /v2/models/NAME`.

    Parameters
    ----------
    name
        That was asked for.
    versions
        That score here.
    platform
        Of the model's format, such as `noria_lightgbm`.
    columns
        What a request brings.
    outputs
        What the model gives.
    """
    return orjson.dumps(
        {
            "name": name,
            "versions": [str(each) for each in versions],
            "platform": platform,
            "inputs": [
                _tensor(each.name, each.datatype, 0 if each.width == 1 else each.width) for each in columns
            ],
            "outputs": [
                *(_output(each) for each in outputs),
                *(_tensor(each, datatype, 0) for each, datatype in TOLD.items()),
            ],
        }
    )


def _output(output: Output) -> dict[str, object]:
    tensor = _tensor(output.name, output.datatype, output.width)
    if output.labels:
        tensor["parameters"] = {"labels": output.labels}
    return tensor


def _tensor(name: str, datatype: str, width: int) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [-1, width] if width else [-1]}
