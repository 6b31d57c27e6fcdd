"""One frame of the prediction log: what a request asked, saw and was answered.

The worker appends a frame to its spool before the answer leaves; `noria.deploy.shipping` reads it into the
lake. Matrices travel as the bytes of little-endian float64, row-major.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import StoreError

__all__ = ["PredictionFrame", "ReleaseScores", "decode_frame", "encode_frame"]


class ReleaseScores(msgspec.Struct, frozen=True, array_like=True):
    """What one release gave for the rows of a frame."""

    release: str
    model: str
    version: int
    scores: bytes  # float64 (n,)
    answered: bytes  # n times 0 or 1: whether this release's score was the answer
    computed_names: tuple[str, ...] = ()  # on-demand features, `<name>__<output>`
    computed: bytes = b""  # float64 (n, len(computed_names)), as this release's code gave them

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
    """The newly scored rows of one request. Fields are only ever added, at the end, with a default."""

    at: int  # microseconds since 1970: the request's instant, on the project's clock
    recorded_at: int  # microseconds since 1970, wall
    environment: str
    deployment: str
    route: str  # id
    route_number: int
    latency_us: int  # from the request's arrival to this frame
    ids: list[str]  # prediction id per row
    digests: bytes  # 16 bytes per row: digest of the row's request columns
    texts: dict[str, list[str | None]]  # request columns that are strings, one value per row
    numbers: dict[str, bytes]  # request columns that are numbers, float64 (n,), NaN where missing
    feature_names: list[str]  # looked-up features, `<view>__<feature>`
    features: bytes  # float64 (n, len(feature_names))
    releases: list[ReleaseScores]
    feature_texts: dict[str, list[str | None]] = {}  # looked-up features that are texts, one value per row

    def feature_matrix(self) -> NDArray[np.float64]:
        """Give the looked-up features as an array of shape (rows, features)."""
        return np.frombuffer(self.features, dtype="<f8").reshape(len(self.ids), len(self.feature_names))

    def number_array(self, name: str) -> NDArray[np.float64]:
        """Give a request column that is a number."""
        return np.frombuffer(self.numbers[name], dtype="<f8")

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
