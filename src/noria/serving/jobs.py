"""One request on its way to its answer, and the ids of the predictions that it asks for."""

from collections import Counter
from typing import TYPE_CHECKING

from noria.records import new_ids
from noria.serving.binding import Bound
from noria.serving.logs.index import MAX_ID_BYTES, Answer
from noria.serving.logs.log import PredictionFrame, ReleaseScores
from noria.serving.models import LoadedRoute, Target
from noria.serving.requests import BadRequestError, InferRequest, Prediction, shown

if TYPE_CHECKING:
    from noria.serving.features.lookups import Found

__all__ = ["Job", "resolve_ids"]


class Job:
    """One request on its way to its answer, which is `prediction` or `error`.

    Attributes
    ----------
    loaded, target
        The route by which it is answered, and what it asks there.
    arrived_ns
        `time.perf_counter_ns()` when the request arrived.
    names_ids
        Whether the client said which predictions these are, so that they may be known.
    misfit
        Why it does not fit the target: told unless all of its ids are known.
    looked_up
        The online features of its new rows.
    scores
        What the releases gave for its new rows.
    frame
        Where these are in the log, maybe among those of others.
    is_left
        Whether nobody waits for it any more.
    """

    __slots__ = (
        "arrived_ns", "bound", "digests", "error", "failed", "frame", "ids", "is_left", "known", "loaded",
        "looked_up", "misfit", "names_ids", "new", "prediction", "request", "scores", "target",
    )  # fmt: skip

    def __init__(self, request: InferRequest, loaded: LoadedRoute, target: Target, arrived_ns: int) -> None:
        self.request, self.loaded, self.target, self.arrived_ns = request, loaded, target, arrived_ns
        self.names_ids = request.prediction_ids is not None or request.id is not None
        self.ids: list[str] = []
        self.digests: list[bytes] = []
        self.known: list[Answer | None] = []
        self.new: list[int] = []
        self.bound: Bound | None = None
        self.misfit: BadRequestError | None = None
        self.scores: list[ReleaseScores] = []
        self.frame: PredictionFrame | None = None
        self.failed: dict[str, int] = {}
        self.looked_up: Found | None = None
        self.prediction: Prediction | None = None
        self.error: Exception | None = None
        self.is_left = False

    @property
    def is_done(self) -> bool:
        """Whether there is an answer."""
        return self.prediction is not None or self.error is not None


def resolve_ids(request: InferRequest) -> list[str]:
    """Give the prediction id of each row: the client's, else by the request's id, else a new one.

    Raises
    ------
    BadRequestError
        If there are too few or too many, one is there twice, or is too long.
    """
    ids = request.prediction_ids
    if ids is None:
        if request.id is None:
            return new_ids(request.rows)
        ids = [f"{request.id}-{row}" for row in range(request.rows)]
    elif len(ids) != request.rows:
        raise BadRequestError(f"there are {len(ids)} prediction ids for {request.rows} rows")
    elif len(set(ids)) < len(ids):
        twice = [each for each, count in Counter(ids).items() if count > 1]
        raise BadRequestError(
            f"{len(twice)} prediction ids are there twice: {', '.join(map(shown, twice[:5]))}"
        )
    try:
        if max(len(each.encode()) for each in ids) > MAX_ID_BYTES:
            raise BadRequestError(f"a prediction id is longer than {MAX_ID_BYTES} bytes")
    except UnicodeEncodeError as err:
        raise BadRequestError("a prediction id is no valid text") from err
    return ids
