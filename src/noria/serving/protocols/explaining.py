"""The routes by which explanations are asked for. Loaded when the first is."""

from collections import Counter
from http import HTTPStatus

import msgspec

from noria.serving.explaining.explanations import Explanations
from noria.serving.explaining.records import Explained
from noria.serving.http.answering import Answering, headers_of
from noria.serving.http.exchange import Reply, Request
from noria.serving.models import Target
from noria.serving.process.hosting import Hosted
from noria.serving.requests import InferRequest, RequestError
from noria.serving.wire import kserve
from noria.serving.wire.explanations import encode_explained, encode_kserve, parse_explain, read_top

__all__ = ["explain", "explain_instances"]


async def explain(answering: Answering, request: Request, name: str, version: str | None) -> Reply:
    """Answer `POST /models/NAME/explain`."""
    asking = _Asking(answering, request, name, version)
    with asking:
        body, target = await asking.body()
        asked, is_single = parse_explain(body, target.plan, name=name, max_rows=answering.limits.max_rows)
        found = await asking.explain(asked, target)
        return Reply(encode_explained(found, is_single=is_single, top=asking.top))


async def explain_instances(answering: Answering, request: Request, name: str) -> Reply:
    """Answer `POST /v1/models/NAME:explain`."""
    asking = _Asking(answering, request, name, None)
    with asking:
        body, target = await asking.body()
        asked = kserve.parse_predict(body, target.plan, name=name, max_rows=answering.limits.max_rows)
        return Reply(encode_kserve(await asking.explain(asked, target), top=asking.top))


class _Asking:
    """One request for explanations, which is counted at its end."""

    def __init__(self, answering: Answering, request: Request, name: str, version: str | None) -> None:
        self._answering, self._request, self._name, self._version = answering, request, name, version
        self._hosted = answering.hosting.find(name)
        self._rows: Counter[str] = Counter()
        self.top: int | None = None

    def __enter__(self) -> "_Asking":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        status = HTTPStatus.OK
        if error is not None:
            status = error.status if isinstance(error, RequestError) else HTTPStatus.INTERNAL_SERVER_ERROR
        counts = self._answering.metrics.of(self._hosted.name if self._hosted else "")
        is_known = self._hosted is not None and status is not HTTPStatus.NOT_FOUND
        counts.count_explained(status, model=self._name if is_known else "", rows=self._rows)

    async def body(self) -> tuple[bytes, Target]:
        """Read the body, and find who is asked."""
        body = await self._request.body()
        _, target = self._answering.find(self._name, self._version)
        self.top = read_top(self._request.query("top"))
        return body, target

    async def explain(self, asked: InferRequest | str, target: Target) -> list[Explained]:
        """Have it explained."""
        assert self._hosted is not None  # a target was found in it
        explanations = self._explanations(self._hosted)
        if isinstance(asked, str):
            found = [await explanations.of_prediction(asked, name=self._name, version=self._version)]
        else:
            if wanted := target.assignment.headers:
                asked = msgspec.structs.replace(asked, headers=headers_of(self._request, wanted))
            found = await explanations.of_request(asked, name=self._name, version=self._version)
        self._rows.update(each.release for each in found)
        return found

    def _explanations(self, hosted: Hosted) -> Explanations:
        known = self._answering.explanations
        if hosted not in known:
            known[hosted] = Explanations(hosted, self._answering.limits)
        return known[hosted]
