"""What the routes of all protocols share: finding who answers, asking, counting, telling what is there."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import msgspec

from noria.serving.http.exchange import Gone, Head, Reply, Request
from noria.serving.http.faults import fault_of
from noria.serving.http.keys import Keys
from noria.serving.http.metrics import Metrics
from noria.serving.http.tracing import read_trace
from noria.serving.jobs import Job
from noria.serving.models import Target
from noria.serving.process.hosting import Hosted, Hosting
from noria.serving.records import DeploymentState, Limits, ModelState, WorkerStatus
from noria.serving.requests import TOLD, BadRequestError, InferRequest, Prediction, RequestError, shown

if TYPE_CHECKING:
    from noria.serving.explaining.explanations import Explanations

__all__ = ["Answering", "Control", "Question", "Wire", "headers_of"]

_LOG = logging.getLogger(__name__)
_NO_HEAD = Head("POST", "", ())


class Control(Protocol):
    """What the routes ask of the worker around them."""

    def status(self) -> WorkerStatus:
        """Tell the worker's state."""
        ...

    async def reload(self, deployment: str) -> DeploymentState:
        """Read the route of a deployment anew; return when it answers or is refused."""
        ...

    async def unload(self, deployment: str) -> None:
        """Let go of a deployment's models; the next request loads them again."""
        ...

    async def wake(self, deployment: str) -> None:
        """Load models again that were let go of. Raises `NoriaError` where that cannot be done."""
        ...


class Wire(Protocol):
    """How a protocol writes requests for predictions and their answers."""

    def read(self, body: bytes, target: Target, head: Head, limits: Limits) -> tuple[InferRequest, Any]:
        """Read a request, and what tells how it is to be answered. Raises `RequestError`."""
        ...

    def write(self, prediction: Prediction, asked: InferRequest, how: Any, *, name: str) -> Reply:
        """Write an answer; `name` is the model's that was asked for."""
        ...

    def refuse(self, error: RequestError) -> Reply:
        """Write an error."""
        ...


class Question(msgspec.Struct, frozen=True):
    """What a path asks: which model, or version of it, in which protocol."""

    wire: Wire
    name: str
    version: str | None = None


class Answering:
    """Answers for the deployments of a worker.

    Parameters
    ----------
    hosting
        The deployments, by name.
    control
        Who runs the worker.
    metrics
        Who counts.
    limits
        What is refused.
    keys
        Who may ask; None: anybody.
    """

    def __init__(
        self,
        hosting: Hosting,
        *,
        control: Control,
        metrics: Metrics,
        limits: Limits,
        keys: Keys | None = None,
    ) -> None:
        self.hosting, self.control, self.metrics, self.limits = hosting, control, metrics, limits
        self.keys = keys
        self.explanations: WeakKeyDictionary[Hosted, Explanations] = WeakKeyDictionary()  # where asked for

    async def predict(self, request: Request, question: Question, *, reads_long: bool = False) -> Reply:
        """Answer a request for predictions, or refuse it in its protocol.

        Parameters
        ----------
        reads_long
            Whether reading its body takes so long that others may not wait for it.

        Raises
        ------
        Gone
            If the client left before it was read.
        """
        future = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if not future.done():  # else it was cancelled: the server stops
                future.set_result(reply)

        exchange = _Exchange(self, question, request, done)
        try:
            exchange.admit()
            body = await request.body()
            given = await asyncio.to_thread(exchange.read, body) if reads_long else None
        except RequestError as err:
            return exchange.refuse(err)
        except Gone:
            exchange.leave()
            raise
        exchange.begin(body, given)
        reply: Reply = await future
        return reply

    def begin(self, question: Question, head: Head, body: bytes, done: Callable[[Reply], None]) -> None:
        """Answer a request for predictions; `done` gets the reply, maybe at once."""
        _Exchange(self, question, head, done).begin(body)

    def refuse(self, question: Question, error: RequestError) -> Reply:
        """Refuse a request for predictions before it is read."""
        return _Exchange(self, question, _NO_HEAD, _ignore).refuse(error)

    def find(self, name: str, version: str | None = None) -> tuple[Hosted, Target]:
        """Give who answers for a name. Raises `RequestError` where nobody does."""
        hosted = self.hosting.find(name)
        if hosted is None:
            raise self.unknown(name)
        return hosted, hosted.predictor.find_target(name, version)

    def only(self, request: Head) -> str:
        """Give the name of whom a request means that names nobody: who is alone, or who a header names.

        Raises
        ------
        RequestError
            Where there are several, or none.
        """
        named = request.header(b"x-noria-model") or request.query("model")
        if named is not None:
            return named
        deployments = list(self.hosting)
        if len(deployments) == 1:
            return deployments[0]
        if not deployments:
            raise self.unknown("")
        raise BadRequestError(
            f"several models answer here: {', '.join(deployments)}; say which by the header X-Noria-Model or "
            "by `?model=NAME`"
        )

    def unknown(self, name: str) -> RequestError:
        """Give the error for a name that nobody answers to."""
        if not self.hosting.names:
            return RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "no route is loaded yet; try again soon", retry_after_s=1
            )
        there = ", ".join(self.hosting.names)
        return RequestError(HTTPStatus.NOT_FOUND, f"there is no model {shown(name)} here; there is {there}")

    def refused(self, name: str, version: str | None = None) -> str:
        """Say why releases of a model are not loaded; empty where all are."""
        states = [each for state in self.control.status().deployments.values() for each in state.models]
        return "; ".join(
            f"{each.model}:{each.version}: {each.error}"
            for each in states
            if _is_refused(each, name, version)
        )

    def is_ready(self, name: str, version: str | None = None) -> bool:
        """Tell whether a model answers. Raises `RequestError` (404) if there is none of that name."""
        try:
            self.find(name, version)
        except RequestError:
            if not self.refused(name, version):
                raise
            return False
        return True


class _Exchange:
    """One request for predictions, from its arrival to its reply."""

    __slots__ = (
        "_answering", "_arrived_ns", "_asked", "_counts", "_done", "_head", "_hosted", "_how", "_question",
    )  # fmt: skip

    def __init__(
        self, answering: Answering, question: Question, head: Head, done: Callable[[Reply], None]
    ) -> None:
        self._answering, self._question, self._head, self._done = answering, question, head, done
        self._hosted = hosted = answering.hosting.find(question.name)
        self._counts = answering.metrics.of(hosted.name if hosted else "")
        self._counts.pending += 1
        self._arrived_ns = time.perf_counter_ns()

    def admit(self) -> str | None:
        """Give who asks, where that is asked. Raises `RequestError` where they may not, or would wait."""
        keys, hosted = self._answering.keys, self._hosted
        caller = None
        if keys is not None:
            caller = keys.check(self._head.headers, None if hosted is None else hosted.name)
        if hosted is not None:
            hosted.batcher.refuse_if_behind()
        return caller

    def leave(self) -> None:
        """Forget the request, whose client has left."""
        self._counts.pending -= 1

    def read(self, body: bytes) -> tuple[InferRequest, Any]:
        """Read the body. Raises `RequestError`."""
        question, answering = self._question, self._answering
        _, target = answering.find(question.name, question.version)
        return question.wire.read(body, target, self._head, answering.limits)

    def begin(self, body: bytes, given: tuple[InferRequest, Any] | None = None) -> None:
        """Have the request answered; `given` is what was read of it already."""
        try:
            caller = self.admit()
            question, answering = self._question, self._answering
            hosted, target = answering.find(question.name, question.version)
            if hosted is not self._hosted:  # since its first bytes came
                self._count_for(hosted)
            asked, self._how = given or question.wire.read(body, target, self._head, answering.limits)
            if asked.outputs is not None:
                _check_outputs(asked.outputs, target)
            if wanted := target.assignment.headers:
                asked = msgspec.structs.replace(asked, headers=headers_of(self._head, wanted))
            if caller is not None:
                asked = msgspec.structs.replace(asked, caller=caller)
            if (told := self._head.header(b"traceparent")) is not None:
                asked = msgspec.structs.replace(asked, trace=read_trace(told))
            self._asked = asked
            job = hosted.predictor.job(asked, question.name, question.version, arrived_ns=self._arrived_ns)
            hosted.batcher.submit(job, self._answered)
        except RequestError as err:
            self._done(self.refuse(err))
        except Exception as err:  # the outermost loop of a request: the others go on  # noqa: BLE001
            reply = self._failure(err)
            self._counts.enter()
            self._done(reply)

    def _count_for(self, hosted: Hosted) -> None:
        self._counts.pending -= 1
        self._hosted, self._counts = hosted, self._answering.metrics.of(hosted.name)
        self._counts.pending += 1

    def _answered(self, job: Job) -> Callable[[], None]:
        """Count and write what came of the request, and give what sends it."""
        prediction, error = job.prediction, job.error
        try:
            if isinstance(error, RequestError):
                reply = self._refusal(error)
            elif error is not None or prediction is None:
                reply = self._failure(error)
            else:
                counts, question = self._counts, self._question
                reply = question.wire.write(prediction, self._asked, self._how, name=question.name)
                if prediction.failed:
                    counts.count_failed(prediction.failed)
                if prediction.defaulted:
                    counts.count_defaulted(prediction.defaulted)
                counts.count_answer(  # after whatever may fail: a request that did is a refusal alone
                    question.name,
                    (time.perf_counter_ns() - self._arrived_ns) / 1e9,
                    scored=prediction.scored,
                    answered=prediction.answered,
                    repeated=prediction.logged,
                )
                counts.pending -= 1
        except Exception as err:  # the outermost loop of a request: the others go on  # noqa: BLE001
            reply = self._failure(err)
        return partial(self._done, reply)

    def refuse(self, error: RequestError) -> Reply:
        """Count an error, enter it, and write it."""
        reply = self._refusal(error)
        self._counts.enter()
        return reply

    def _refusal(self, error: RequestError) -> Reply:
        counts, question = self._counts, self._question
        counts.pending -= 1
        model = question.name if error.status is not HTTPStatus.NOT_FOUND else ""
        counts.count_refusal(model, (time.perf_counter_ns() - self._arrived_ns) / 1e9, error.status)
        return question.wire.refuse(error)

    def _failure(self, error: Exception | None) -> Reply:
        _LOG.error("%s %s failed: %s", self._head.method, self._head.path, fault_of(error))
        message = "the server failed; its log says where"
        return self._refusal(RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, message))


def _ignore(_: Reply) -> None:
    """What is refused at once is not told again."""


def _check_outputs(wanted: Sequence[str], target: Target) -> None:
    there = [*(each.name for each in target.outputs), *TOLD]
    for name in wanted:
        if name not in there:
            raise BadRequestError(f"there is no output {shown(name)}; there is {', '.join(there)}")


def headers_of(head: Head, wanted: tuple[str, ...]) -> dict[str, str]:
    """Give the headers by which routes are chosen, those that a request has."""
    found = {name: head.header(name.encode("latin-1", "ignore")) for name in wanted}
    return {name: value for name, value in found.items() if value is not None}


def _is_refused(state: ModelState, name: str, version: str | None) -> bool:
    return not state.ready and state.model == name and version in (None, str(state.version))
