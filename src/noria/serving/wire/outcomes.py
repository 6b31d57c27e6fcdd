"""`POST /outcomes`: what became of predictions, one, several as rows, or several as columns."""

import math
from typing import Any

import msgspec
import orjson

from noria.serving.logs.index import MAX_ID_BYTES
from noria.serving.logs.outcomes import Outcome
from noria.serving.requests import BadRequestError, shown
from noria.serving.wire.json_bodies import decode_body
from noria.serving.wire.named_values import check_rows
from noria.serving.wire.oip import read_instant

__all__ = ["MAX_LABEL_BYTES", "encode_recorded", "parse_outcomes"]

MAX_LABEL_BYTES = 1_024
_DECODER = msgspec.json.Decoder(dict[str, Any])
_FIELDS = ("prediction_id", "outcome", "known_at")
_FORMS = (
    "send `prediction_id`, `outcome` and, if it was known before now, `known_at`; or lists of them; or "
    "`outcomes`, a list of such objects; and beside them `deployment`, where several answer"
)


def parse_outcomes(body: bytes, *, max_rows: int) -> tuple[list[Outcome], str | None]:
    """Read outcomes, and the deployment that they are said to be of.

    Parameters
    ----------
    body
        JSON.
    max_rows
        More are refused.

    Raises
    ------
    BadRequestError
        If a field is unknown, missing or of another type. The message names it, and holds no values.
    """
    given = decode_body(_DECODER, body, what="no JSON object of outcomes")
    deployment = given.pop("deployment", None)
    if deployment is not None and not isinstance(deployment, str):
        raise BadRequestError("`deployment` takes the name of one as a text")
    if "outcomes" in given:
        rows = given.pop("outcomes")
        for field in given:
            raise BadRequestError(f"beside `outcomes` there is no field {shown(field)}; {_FORMS}")
        if not isinstance(rows, list):
            raise BadRequestError(f"`outcomes` takes a list of objects; {_FORMS}")
        check_rows(len(rows), max_rows)
        found = [_row(row, where=f"outcome {number}: ") for number, row in enumerate(rows, 1)]
    elif any(isinstance(each, list) for each in given.values()):
        found = _columns(given, max_rows)
    else:
        found = [_row(given, where="")]
    _check_twice(found)
    return found, deployment


def encode_recorded(*, recorded: int, repeated: int, unknown: int) -> bytes:
    """Write the answer."""
    return orjson.dumps({"recorded": recorded, "repeated": repeated, "unknown": unknown})


def _row(row: object, *, where: str) -> Outcome:
    if not isinstance(row, dict):
        raise BadRequestError(f"{where}an outcome is a JSON object; {_FORMS}")
    _check_fields(row, where)
    return Outcome(
        prediction_id=_id(row["prediction_id"], where),
        value=_value(row["outcome"], where),
        known_at=_instant(row.get("known_at"), where),
    )


def _columns(given: dict[str, Any], max_rows: int) -> list[Outcome]:
    _check_fields(given, "")
    ids, values, instants = given["prediction_id"], given["outcome"], given.get("known_at")
    if not isinstance(ids, list) or not isinstance(values, list):
        raise BadRequestError("`prediction_id` and `outcome` are lists of the same length, or neither is one")
    if not isinstance(instants, list):
        instants = [instants] * len(ids)
    if not len(ids) == len(values) == len(instants):
        raise BadRequestError(
            f"there are {len(ids)} values of `prediction_id`, {len(values)} of `outcome` and "
            f"{len(instants)} of `known_at`; send as many of each"
        )
    check_rows(len(ids), max_rows)
    return [
        Outcome(prediction_id=_id(each, where), value=_value(value, where), known_at=_instant(instant, where))
        for number, (each, value, instant) in enumerate(zip(ids, values, instants, strict=True), 1)
        for where in (f"outcome {number}: ",)
    ]


def _check_fields(row: dict[str, Any], where: str) -> None:
    for field in row:
        if field not in _FIELDS:
            raise BadRequestError(f"{where}there is no field {shown(field)}; {_FORMS}")
    for field in _FIELDS[:2]:
        if field not in row:
            raise BadRequestError(f"{where}field {shown(field)} is missing; {_FORMS}")


def _id(given: object, where: str) -> str:
    if not isinstance(given, str) or not given:
        raise BadRequestError(f"{where}`prediction_id` takes the id of a prediction as a text")
    if len(given.encode()) > MAX_ID_BYTES:
        raise BadRequestError(f"{where}`prediction_id` is longer than {MAX_ID_BYTES} bytes")
    return given


def _value(given: object, where: str) -> float | str | None:
    if isinstance(given, str):
        if len(given.encode()) > MAX_LABEL_BYTES:
            raise BadRequestError(f"{where}`outcome` is longer than {MAX_LABEL_BYTES} bytes")
        return given
    if given is None:
        return None
    if isinstance(given, int | float):  # true and false are 1 and 0
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise BadRequestError(
        f"{where}`outcome` takes a number, true or false, a text for a label, or null if none will come"
    )


def _instant(given: object, where: str) -> int | None:
    try:
        return read_instant(given)
    except BadRequestError:
        raise BadRequestError(
            f"{where}`known_at` is no instant: send ISO 8601 with an offset or whole microseconds since 1970"
        ) from None


def _check_twice(outcomes: list[Outcome]) -> None:
    """Refuse two outcomes of a prediction of which none is the later one."""
    seen: dict[tuple[str, int | None], float | str | None] = {}
    for number, each in enumerate(outcomes, 1):
        key = each.prediction_id, each.known_at
        if seen.setdefault(key, each.value) != each.value:
            raise BadRequestError(
                f"outcome {number}: the same prediction has another outcome of the same instant before; "
                "send `known_at` with both, the later one counts"
            )
