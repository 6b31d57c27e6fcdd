"""The route by which a server is told what became of its predictions."""

import asyncio
import logging
from http import HTTPStatus

from noria.errors import Conflict, DiskFull, NoriaError
from noria.serving.http.answering import Answering
from noria.serving.http.exchange import Reply, Request
from noria.serving.logs.outcomes import Outcome
from noria.serving.process.hosting import Hosted
from noria.serving.requests import BadRequestError, RequestError
from noria.serving.wire.outcomes import encode_recorded, parse_outcomes

__all__ = ["answer"]

_LOG = logging.getLogger(__name__)
_FEW = 500  # outcomes that are recorded at once; for more, others do not wait


async def answer(answering: Answering, request: Request, parts: list[str]) -> Reply | None:
    """Answer `POST /outcomes`; None for what is below it."""
    if parts:
        return None
    request.allow("POST")
    outcomes, named = parse_outcomes(await request.body(), max_rows=answering.limits.max_rows)
    named = named or request.header(b"x-noria-model") or request.query("model")
    recorded = repeated = unknown = 0
    whose = _whose(answering, outcomes, named)
    if answering.keys is not None:
        for hosted, _ in whose:
            answering.keys.check(request.headers, hosted.name)
    for hosted, mine in whose:
        known = _count_known(hosted, mine)
        again = await _record(hosted, mine)
        answering.metrics.of(hosted.name).count_outcomes(len(mine) - again, unknown=len(mine) - known)
        recorded, repeated, unknown = recorded + len(mine), repeated + again, unknown + len(mine) - known
    return Reply(encode_recorded(recorded=recorded, repeated=repeated, unknown=unknown))


def _whose(
    answering: Answering, outcomes: list[Outcome], named: str | None
) -> list[tuple[Hosted, list[Outcome]]]:
    """Say which deployments outcomes are of: the one that is named, is alone, or has answered."""
    hosting = answering.hosting
    if named is not None:
        hosted = hosting.find(named)
        if hosted is None:
            raise answering.unknown(named)
        return [(hosted, outcomes)]
    if not hosting:
        raise answering.unknown("")
    deployments = list(hosting.values())
    if len(deployments) == 1:
        return [(deployments[0], outcomes)]
    ids = [each.prediction_id for each in outcomes]
    answers = [hosted.index.find(ids) for hosted in deployments]
    split: dict[str, tuple[Hosted, list[Outcome]]] = {}
    unclear = 0
    for place, outcome in enumerate(outcomes):
        whose = [each for each, found in zip(deployments, answers, strict=True) if found[place]]
        if len(whose) == 1:
            split.setdefault(whose[0].name, (whose[0], []))[1].append(outcome)
        else:
            unclear += 1
    if unclear:
        raise BadRequestError(
            f"{unclear} of {len(outcomes)} outcomes are of predictions that none or several of "
            f"{', '.join(hosting)} have answered; say which by `deployment`"
        )
    return list(split.values())


def _count_known(hosted: Hosted, outcomes: list[Outcome]) -> int:
    return sum(each is not None for each in hosted.index.find([one.prediction_id for one in outcomes]))


async def _record(hosted: Hosted, outcomes: list[Outcome]) -> int:
    """Record outcomes; give how many were recorded before."""
    predictor = hosted.predictor
    predictor.log.require_room()
    now = predictor.now()
    if now is None:
        if any(each.known_at is None for each in outcomes):
            raise BadRequestError("this environment's clock is 'replay': send `known_at` with each outcome")
        now = 0
    try:
        async with hosted.recording:
            book = hosted.outcomes
            if len(outcomes) > _FEW:
                return await asyncio.to_thread(book.record, outcomes, now=now)
            return book.record(outcomes, now=now)
    except Conflict as err:
        raise RequestError(HTTPStatus.CONFLICT, str(err)) from err
    except NoriaError as err:
        _LOG.warning("outcomes of %s cannot be recorded: %s", hosted.name, err)
        what = "the disk is full" if isinstance(err, DiskFull) else "outcomes cannot be recorded now"
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"{what}; send them again, each is kept once", retry_after_s=1
        ) from err
