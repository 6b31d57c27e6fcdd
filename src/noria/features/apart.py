"""What an entity has in the online store beside its value, one key each."""

from collections.abc import Callable
from typing import Any

from noria.errors import StoreDamaged
from noria.features.kept_rows import split_rows
from noria.features.layout import TierLayout
from noria.features.online_format import LAST, firsts_key, tile_key

__all__ = ["PENDING", "Apart", "opened"]

PENDING = object()  # what `get` gives for a key it has to fetch first: reading goes on with blanks

_NAN = float("nan")


class Apart:
    """What lies beside the words of an entity's tiles."""

    __slots__ = ("_entity", "_get", "damaged")

    def __init__(
        self, damaged: Callable[[], StoreDamaged], get: Callable[[bytes], Any], entity: bytes
    ) -> None:
        self.damaged, self._get, self._entity = damaged, get, entity

    def counts(self, tier: TierLayout, bucket: int) -> Any:
        """Give the counts of a tile."""
        raw: Any = self._get(tile_key(tier, self._entity, bucket))
        if raw is PENDING:
            return memoryview(bytes(4 * tier.counts)).cast("I")
        if raw is None or len(raw) != 4 * tier.counts:
            raise self.damaged()
        return raw.cast("I")

    def firsts(self, tier: TierLayout, bucket: int) -> list[tuple[int, Any] | None]:
        """Give the first rows of a tile."""
        raw = self._get(firsts_key(tier, self._entity, bucket))
        if raw is PENDING:
            return [(0, (_NAN,) * len(each.columns)) for each in tier.firsts]
        if raw is None:
            raise self.damaged()
        return [opened(each) for each in split_rows(raw, [len(each.columns) for each in tier.firsts])]


def opened(row: Any) -> tuple[int, Any] | None:
    """Give the instant and the columns of a kept row, `None` if there is none."""
    event_us, key_bytes = LAST.unpack_from(row)
    if key_bytes < 0:
        return None
    return event_us, row[LAST.size + key_bytes + -key_bytes % 8 :].cast("d")
