"""Writing the prediction log by its rules: what share is kept, what is left out, how surely, how much."""

from collections.abc import Sequence
from hashlib import blake2b
from http import HTTPStatus

from noria.serving.logs.log import PredictionFrame, encode_frame, redacted
from noria.serving.records import LogRules, ServedModel
from noria.serving.requests import RequestError
from noria.streams.spool import Spool

__all__ = ["LogWriter", "logged_names"]


class LogWriter:
    """Puts frames of a deployment into its spool.

    Attributes
    ----------
    logged_bytes
        What was written so far.
    spool_bytes
        What waits in all spools of the deployment to be moved away; who owns this measures it now and then.
    """

    def __init__(self, spool: Spool, rules: LogRules) -> None:
        self._spool, self._rules, self._redacted = spool, rules, frozenset(rules.redact)
        self.logged_bytes = self.spool_bytes = 0

    @property
    def is_synchronous(self) -> bool:
        """Whether what is written is on the disk."""
        return self._rules.synchronous

    @property
    def is_sampled(self) -> bool:
        """Whether not all requests are kept."""
        return self._rules.sample < 1.0

    def require_room(self) -> None:
        """Raise `RequestError` (503) while as much waits as may."""
        if self.spool_bytes >= self._rules.max_spool_bytes:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too much is logged that is not moved into the lake yet; its owner finds the limit as "
                "`max_spool_bytes`",
                retry_after_s=10,
            )

    def redact(self, frame: PredictionFrame) -> PredictionFrame:
        """Give a frame without what is not to be kept."""
        return redacted(frame, self._redacted) if self._redacted else frame

    def write(self, frames: Sequence[PredictionFrame]) -> None:
        """Append frames; where requests are sampled, each is of one, and some are left out.

        Raises
        ------
        DiskFull
            If there is no room; none is in then.
        """
        rules = self._rules
        if self.is_sampled:
            frames = [each for each in frames if _place(each.ids[0]) < rules.sample]
        if frames:
            encoded = [encode_frame(each) for each in frames]
            self._spool.append_all(encoded, sync=rules.synchronous)
            size = sum(map(len, encoded))
            self.logged_bytes, self.spool_bytes = self.logged_bytes + size, self.spool_bytes + size


def logged_names(served: ServedModel) -> frozenset[str]:
    """Name the request columns and features that are logged of a model's predictions."""
    names = {each.name for each in served.inputs}
    for view in served.views:
        names.update(view.entity, view.columns, view.model_columns)
    for each in served.on_demand:
        names.update(each.columns, each.inputs)
    return frozenset(names)


def _place(prediction_id: str) -> float:
    """Place an id on [0, 1), evenly and the same way every time."""
    return int.from_bytes(blake2b(prediction_id.encode(), digest_size=8).digest(), "big") / 2**64
