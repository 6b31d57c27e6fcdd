"""One frame of the prediction log: what requests asked, saw and were answered.

The worker appends a frame to its spool before the answer leaves; `noria.deploy.shipping` reads it into the
lake. Matrices travel as the bytes of little-endian float64, row-major.
"""

from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import StoreError

__all__ = ["PredictionFrame", "ReleaseScores", "decode_frame", "encode_frame", "redacted"]


class ReleaseScores(msgspec.Struct, frozen=True, array_like=True):
    """What one release gave for the rows of a frame."""

    release: str
    model: str
    version: int
    scores: bytes  # float64 (n,)
    answered: bytes  # n times 0 or 1: whether this release's score was the answer
    computed_names: tuple[str, ...] = ()  # on-demand features, `<name>__<output>`
    computed: bytes = b""  # float64 (n, len(computed_names)), as this release's code gave them
    outputs: dict[str, bytes | list[Any]] = {}  # where it gives other than one score: float64, or values

    def score_array(self) -> NDArray[np.float64]:
        """Give the scores as an array, one per row."""
        return np.frombuffer(self.scores, dtype="<f8")

    def computed_matrix(self) -> NDArray[np.float64]:
        """Give the on-demand features as an array of shape (rows, features)."""
        shape = len(self.answered), len(self.computed_names)
        return np.frombuffer(self.computed, dtype="<f8").reshape(shape)

    def answered_array(self) -> NDArray[np.bool_]:
        """Give the mask of the rows that this release answered."""
        return np.frombuffer(self.answered, dtype=np.bool_)


class PredictionFrame(msgspec.Struct, frozen=True, array_like=True):
    """Newly scored rows of one request, or of several to which all holds that is not told of each row.

    Fields are only ever added, at the end, with a default.
    """

    at: int  # microseconds since 1970: the request's instant, on the project's clock
    recorded_at: int  # microseconds since 1970, wall
    environment: str
    deployment: str
    route: str  # id
    route_number: int
    latency_us: int  # from the request's arrival to this frame; of several the longest
    ids: list[str]  # prediction id per row
    digests: bytes  # 16 bytes per row: digest of the row's request columns
    texts: dict[str, list[str | None]]  # request columns that are strings, one value per row
    numbers: dict[str, bytes]  # request columns that are numbers, float64 (n,) or (n, width) of a vector
    feature_names: list[str]  # looked-up features, `<view>__<feature>`
    features: bytes  # float64 (n, len(feature_names))
    releases: list[ReleaseScores]
    feature_texts: dict[str, list[str | None]] = {}  # looked-up features that are texts, one value per row
    number_names: list[str] = []  # more request columns that are numbers
    number_values: bytes = b""  # float64 (n, len(number_names)), NaN where missing
    stamp: int = 0  # tells the frames of one deployment apart, whichever worker wrote them; 0: not told
    caller: str | None = None  # who asked, by the key that came with the request
    trace: str | None = None  # the trace that the request belongs to, as `traceparent` names it
    fallbacks: list[str] = []  # views whose features are a declared fallback in these rows
    latencies_us: list[int] = []  # row by row, where there are several requests; so the next two
    callers: list[str | None] = []  # empty: `caller` is everybody's
    traces: list[str | None] = []  # empty: `trace` is everybody's

    def feature_matrix(self) -> NDArray[np.float64]:
        """Give the looked-up features as an array of shape (rows, features)."""
        return np.frombuffer(self.features, dtype="<f8").reshape(len(self.ids), len(self.feature_names))

    def number_array(self, name: str) -> NDArray[np.float64]:
        """Give a request column that is a number: (n,), or (n, width) of a vector."""
        if name not in self.numbers:
            matrix = np.frombuffer(self.number_values, dtype="<f8").reshape(len(self.ids), -1)
            return matrix[:, self.number_names.index(name)]
        values = np.frombuffer(self.numbers[name], dtype="<f8")
        return values if len(values) == len(self.ids) else values.reshape(len(self.ids), -1)

    @property
    def answered_rows(self) -> int:
        """How many of its rows are answers; what a shadow scored is none."""
        return sum(each.answered.count(1) for each in self.releases)

    @property
    def row_latencies_us(self) -> list[int]:
        """How long after each row's request arrived this frame was made."""
        return self.latencies_us or [self.latency_us] * len(self.ids)

    @property
    def row_callers(self) -> list[str | None]:
        """Who asked for each row."""
        return self.callers or [self.caller] * len(self.ids)

    @property
    def row_traces(self) -> list[str | None]:
        """The trace that each row's request belongs to."""
        return self.traces or [self.trace] * len(self.ids)

    @property
    def all_number_names(self) -> tuple[str, ...]:
        """The request columns that are numbers."""
        return (*self.numbers, *self.number_names)

    def digest(self, row: int) -> bytes:
        """Give the input digest of a row."""
        return self.digests[16 * row : 16 * row + 16]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(PredictionFrame)


def encode_frame(frame: PredictionFrame) -> bytes:
    """Write a frame as MessagePack."""
    return _ENCODER.encode(frame)


def decode_frame(data: bytes) -> PredictionFrame:
    """Read what `encode_frame` wrote.

    Raises
    ------
    StoreError
        If it is something else.
    """
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as err:
        raise StoreError(
            f"a frame of the prediction log cannot be read ({err}); it is of another program"
        ) from err


def redacted(frame: PredictionFrame, names: Collection[str]) -> PredictionFrame:
    """Give a frame without the values of some request columns and features: they are missing in it."""
    rows = len(frame.ids)
    matrix = np.frombuffer(frame.number_values, dtype="<f8").reshape(rows, -1).copy()
    features = frame.feature_matrix().copy()
    matrix[:, [place for place, name in enumerate(frame.number_names) if name in names]] = np.nan
    features[:, [place for place, name in enumerate(frame.feature_names) if name in names]] = np.nan
    return msgspec.structs.replace(
        frame,
        texts={name: [None] * rows if name in names else each for name, each in frame.texts.items()},
        numbers={
            name: np.full(len(each) // 8, np.nan).tobytes() if name in names else each
            for name, each in frame.numbers.items()
        },
        feature_texts={
            name: [None] * rows if name in names else each for name, each in frame.feature_texts.items()
        },
        number_values=matrix.tobytes(),
        features=features.tobytes(),
        releases=[_without(each, names) for each in frame.releases],
    )


def _without(scores: ReleaseScores, names: Collection[str]) -> ReleaseScores:
    if not any(each in names for each in scores.computed_names):
        return scores
    computed = scores.computed_matrix().copy()
    computed[:, [place for place, name in enumerate(scores.computed_names) if name in names]] = np.nan
    return msgspec.structs.replace(scores, computed=computed.tobytes())
