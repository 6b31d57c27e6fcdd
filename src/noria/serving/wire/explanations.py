"""Explanations as JSON: for people, and in the form of KServe's first protocol."""

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from noria.serving.binding import RequestPlan
from noria.serving.explaining.records import Adds, Explained, OfNumber
from noria.serving.requests import PREDICTION_ID, BadRequestError, InferRequest
from noria.serving.wire.json_bodies import decode_body
from noria.serving.wire.plain import ROWS, parse_request

__all__ = ["encode_explained", "encode_kserve", "parse_explain", "read_top", "told"]

_DECODER = msgspec.json.Decoder(dict[str, Any])


def parse_explain(
    body: bytes, plan: RequestPlan, *, name: str, max_rows: int
) -> tuple[InferRequest | str, bool]:
    """Read the body of `POST /models/NAME/explain`: as of a prediction, or the id of one that was answered.

    Parameters
    ----------
    body
        An object of named fields, `rows` of such objects, or `prediction_id` alone.
    plan, name
        What the target takes, and what it is called.
    max_rows
        More are refused.

    Returns
    -------
    tuple of InferRequest or str, and bool
        The request or the id, and whether it is answered by one object.

    Raises
    ------
    BadRequestError
        If it is neither.
    """
    given = decode_body(_DECODER, body, what="no JSON object of fields")
    if list(given) != [PREDICTION_ID] or PREDICTION_ID in plan.by_name:
        return parse_request(body, plan, name=name, max_rows=max_rows)
    found = given[PREDICTION_ID]
    if not isinstance(found, str) or not found:
        raise BadRequestError(f"'{PREDICTION_ID}' is the id of one prediction, a text that is not empty")
    return found, True


def read_top(given: str | None) -> int | None:
    """Read `?top=`: how many inputs are told, None for all. Raises `BadRequestError`."""
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and int(given[:9]) > 0):
        raise BadRequestError("`top` is how many inputs are told, a whole number from 1")
    return int(given[:9])


def encode_explained(found: Sequence[Explained], *, is_single: bool, top: int | None = None) -> bytes:
    """Write explanations: an object for one row, else `rows` of them."""
    rows = [told(each, top=top) for each in found]
    return orjson.dumps(rows[0] if is_single else {ROWS: rows})


def encode_kserve(found: Sequence[Explained], *, top: int | None = None) -> bytes:
    """Write the answer of `POST /v1/models/NAME:explain`: the scores, and why they are so."""
    scores = [[each.score for each in one.numbers] for one in found]
    return orjson.dumps(
        {
            "predictions": [each[0] if len(each) == 1 else each for each in scores],
            "explanations": [told(each, top=top) for each in found],
        }
    )


def told(found: Explained, *, top: int | None = None) -> dict[str, Any]:
    """Give an explanation as plain values.

    Parameters
    ----------
    top
        So many inputs, those that add most, up or down; what the others add is one number, `others`. None:
        all.
    """
    whole: dict[str, Any] = {"model": found.model, "version": found.version, "release": found.release}
    if found.prediction_id is not None:
        whole[PREDICTION_ID] = found.prediction_id
    whole |= {"method": found.method, "unit": found.unit}
    if found.orders:
        whole |= {"orders": found.orders, "seed": found.seed}
    numbers = [_number(each, top) for each in found.numbers]
    return whole | (numbers[0] if len(numbers) == 1 else {"outputs": numbers})


def _number(number: OfNumber, top: int | None) -> dict[str, Any]:
    whole: dict[str, Any] = {"label": number.label} if number.label else {}
    shown, others = number.contributions[:top], number.contributions[len(number.contributions[:top]) :]
    whole |= {
        "score": number.score,
        "base": number.base,
        "total": number.total,
        "contributions": [_adds(each) for each in shown],
    }
    if others:
        whole["others"] = {"inputs": len(others), "contribution": sum(each.contribution for each in others)}
    return whole


def _adds(adds: Adds) -> dict[str, Any]:
    whole = {
        "name": adds.name,
        "kind": adds.kind,
        "value": adds.value,
        "contribution": adds.contribution,
    }
    return whole if adds.error is None else whole | {"standard_error": adds.error}
