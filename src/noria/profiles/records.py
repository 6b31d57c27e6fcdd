"""Profiles as values: JSON-able, kept with the model version whose training rows they describe."""

from typing import Literal

import msgspec

__all__ = ["Calibration", "ColumnCounts", "ColumnProfile", "Profile"]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How far the reference's own contiguous windows are from the reference as a whole."""

    windows: int
    window_rows: int
    js_mean: float  # Jensen-Shannon distances, base 2
    js_sd: float
    js_max: float
    excess: float  # chi-square distance beyond sampling noise: what time itself adds
    freedom: float  # effective degrees of freedom of the windows' statistic
    missing_max: float  # the largest missing share of a window
    unseen_max: float  # the largest share of categories that no other window has


class ColumnProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a reference.

    A number falls into bin k with `edges[k-1] < value <= edges[k]`. A category has the bin of its place in
    `categories`, the most frequent first, if that is below `shown`; else one of `hashed` bins, by the CRC-32
    of its UTF-8 text. A column of few categories has no hashed bins: what it never had falls into none.
    """

    name: str
    kind: Literal["number", "category"]
    rows: int
    counts: tuple[int, ...]  # by bin, without what is missing
    missing: int
    calibration: Calibration
    edges: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    categories: tuple[str, ...] = ()
    shown: int = 0
    hashed: int = 0
    complete: bool = True  # whether `categories` holds all that the reference had

    @property
    def missing_share(self) -> float:
        """The share of rows without a value."""
        return self.missing / self.rows if self.rows else 0.0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """All columns of a reference, by name."""

    rows: int
    columns: dict[str, ColumnProfile]


class ColumnCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How rows fall into the bins of a column's profile; the counts of parts add up to those of the whole."""

    rows: int
    counts: tuple[int, ...]
    missing: int
    unseen: int

    def __add__(self, other: "ColumnCounts") -> "ColumnCounts":
        return ColumnCounts(
            rows=self.rows + other.rows,
            counts=tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)),
            missing=self.missing + other.missing,
            unseen=self.unseen + other.unseen,
        )
