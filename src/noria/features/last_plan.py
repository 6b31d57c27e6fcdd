"""The features of many entities at once, where a view keeps nothing of an entity but its last row."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from noria.errors import StoreDamaged
from noria.features.layout import Layout
from noria.features.online_format import LAST, NARROW, VALUE, VALUE_MAGIC, WIDE

__all__ = ["LastPlan"]

_VALUE = struct.Struct(VALUE.format + LAST.format.lstrip("<"))
assert _VALUE.size == VALUE.size + LAST.size
_MAGIC = frozenset(VALUE_MAGIC[each] for each in (NARROW, WIDE))
_NEVER = 1 << 62  # microseconds: no row is too old
_US_PER_MINUTE = 60e6


class LastPlan:
    """How such a view is read: the rows' bytes are put together, and are an array.

    Parameters
    ----------
    layout : Layout
        The view's.
    lasts : sequence of (int, int, int, int or None)
        Of each feature: its place, 0, its column among those kept or -1 for the age, the greatest age.
    defaults : sequence of (int, float)
        What stands where a feature is missing.
    damaged : callable
        Gives the error that a value cannot be read.
    """

    def __init__(
        self,
        layout: Layout,
        lasts: Sequence[tuple[int, int, int, int | None]],
        defaults: Sequence[tuple[int, float]],
        damaged: Callable[[], StoreDamaged],
    ) -> None:
        self._damaged = damaged
        self._values = 8 * len(layout.lasts[0].columns)
        self._nothing = np.full(len(layout.lasts[0].columns), np.nan).tobytes()
        ordered = sorted(lasts)
        self._columns = np.array([column for _, _, column, _ in ordered])
        self._ages = np.flatnonzero(self._columns < 0)
        limits = [_NEVER if max_age_us is None else max_age_us for *_, max_age_us in ordered]
        self._max_age_us = np.array(limits, dtype=np.int64) if min(limits) < _NEVER else None
        self._defaults = tuple(defaults)

    @staticmethod
    def fits(layout: Layout, features: int, lasts: int) -> bool:
        """Tell whether a view's values hold one last row and nothing else."""
        return (
            features == lasts > 0
            and len(layout.lasts) == 1
            and not layout.decayed
            and not any(each.words for each in layout.tiers)
        )

    def read(
        self, get: Callable[[bytes], Any], column: Sequence[bytes | None], at_us: int
    ) -> npt.NDArray[np.float64]:
        """Give a row of features per entity of `column`."""
        rows: list[Any] = []
        events: list[int] = []
        for entity in column:
            raw = None if entity is None else get(entity)
            if raw is None:
                rows.append(self._nothing)
                events.append(-_NEVER)
                continue
            event_us, values = self._row(raw)
            rows.append(values)
            events.append(event_us)
        kept = np.frombuffer(b"".join(rows)).reshape(len(rows), -1)
        at = np.array(events, dtype=np.int64)
        made = kept[:, self._columns] if self._values else np.empty((len(rows), len(self._columns)))
        if len(self._ages):
            made[:, self._ages] = np.where(at > -_NEVER, (at_us - at) / _US_PER_MINUTE, np.nan)[:, np.newaxis]
        if self._max_age_us is not None:
            made[at[:, np.newaxis] < at_us - self._max_age_us] = np.nan
        for place, default in self._defaults:
            made[np.isnan(made[:, place]), place] = default
        return made

    def _row(self, raw: Any) -> tuple[int, Any]:
        """Give the instant and the values of an entity's row."""
        size = len(raw)
        if size < _VALUE.size:
            raise self._damaged()
        magic, minutes, hours, days, _, last_bytes, decayed, event_us, key_bytes = _VALUE.unpack_from(raw)
        stop = VALUE.size + last_bytes
        if magic not in _MAGIC or minutes or hours or days or decayed or size != stop:
            raise self._damaged()
        if key_bytes < 0:
            return -_NEVER, self._nothing
        if stop != _VALUE.size + key_bytes + -key_bytes % 8 + self._values:
            raise self._damaged()
        return event_us, raw[stop - self._values :]
