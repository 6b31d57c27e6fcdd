"""What a monitor looks at: a window of traffic, the look back over outcomes, and what was found before."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from noria.clock import parse_duration
from noria.profiles.build import Columns
from noria.records import Version

__all__ = ["DAY_US", "LabelledRows", "Past", "WindowData"]

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowData:
    """What happened at a deployment in a window that ends at the instant of the evaluation.

    Parameters
    ----------
    version
        The model version in charge. Give its rows only: a look back over two versions judges neither.
    environment, deployment
        Where it answered.
    columns
        Its inputs in the window by name: float arrays (NaN is missing), or sequences of texts and None. Those
        that the training profile knows are compared.
    scores
        Its scores in the window.
    y, y_scores, y_at
        Its predictions in the monitor's look back: outcome (NaN where none is known), score, instant in
        microseconds since 1970.
    rows
        Predictions asked for in the window. Default: the number of scores.
    """

    version: Version
    environment: str
    deployment: str
    columns: Columns
    scores: npt.ArrayLike
    y: npt.ArrayLike
    y_scores: npt.ArrayLike
    y_at: npt.ArrayLike
    rows: int | None = None

    def scores_within(self, window: str, *, until: int) -> npt.NDArray[np.float64]:
        """Give the scores of the last `window` up to `until`, with or without an outcome."""
        at = np.asarray(self.y_at, dtype=np.int64)
        since = until - int(parse_duration(window).total_seconds() * 1e6)
        return np.asarray(self.y_scores, dtype=np.float64)[(at > since) & (at <= until)]

    @property
    def size(self) -> int:
        """Rows in the window."""
        return len(np.asarray(self.scores)) if self.rows is None else self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What earlier evaluations left behind, newest first."""

    volumes: tuple[int, ...] = ()  # rows of windows without bad data
    streaks: Mapping[str, int] = field(default_factory=dict)  # of the same version, by check
    bad: tuple[tuple[int, int], ...] = ()  # windows with bad data: later than, up to, in microseconds


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Predictions whose outcome is known."""

    y: npt.NDArray[np.float64]
    p: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]

    @classmethod
    def of(cls, window: WindowData, *, since: int, until: int, past: Past) -> "LabelledRows":
        """Take the labelled rows later than `since`, up to `until`, those of bad windows left out.

        Raises
        ------
        ValueError
            If the arrays differ in length.
        """
        y, p = (np.asarray(each, dtype=np.float64) for each in (window.y, window.y_scores))
        at = np.asarray(window.y_at, dtype=np.int64)
        if not y.shape == p.shape == at.shape:
            raise ValueError(
                f"outcomes, scores and instants have shapes {y.shape}, {p.shape}, {at.shape}; wanted equal"
            )
        keep = ~(np.isnan(y) | np.isnan(p)) & (at > since) & (at <= until)
        for later_than, up_to in past.bad:
            keep &= (at <= later_than) | (at > up_to)
        return cls(y[keep], p[keep], at[keep])

    def within(self, window: str, *, until: int) -> "LabelledRows":
        """Take those of the last `window`."""
        keep = self.at > until - int(parse_duration(window).total_seconds() * 1e6)
        return LabelledRows(self.y[keep], self.p[keep], self.at[keep])

    def __len__(self) -> int:
        return int(self.y.size)

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """The day of each row, counted from 1970."""
        return self.at // DAY_US

    @property
    def has_both(self) -> bool:
        """Whether both outcomes are there."""
        return 0 < float(self.y.sum()) < len(self)
