"""How two values differ: figure by figure, file by file, attribute by attribute."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from noria.pipelines.contents import attributes_of, differing_files, told_bytes

__all__ = ["Difference", "compare_values"]

_SHOWN = 12
_DEEPEST = 12  # how far attributes of objects are looked into


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that came out otherwise."""

    where: str
    told: str
    within: bool  # the tolerance


def compare_values(before: Any, after: Any, where: str, tolerance: float) -> list[Difference]:
    """List how two values differ, figure by figure."""
    found = sorted(_compare(before, after, where, tolerance, 0), key=lambda each: each.within)
    return found[: _SHOWN + 1]  # those that count come first


def _compare(before: Any, after: Any, where: str, tolerance: float, depth: int) -> Iterator[Difference]:
    before, after = _as_table(before), _as_table(after)
    if isinstance(before, pa.Table) and isinstance(after, pa.Table):
        yield from _compare_tables(before, after, where, tolerance)
    elif isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        yield from _compare_arrays(before, after, where, tolerance)
    elif _is_number(before) and _is_number(after):
        yield from _compare_numbers(before, after, where, tolerance)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _compare_mappings(before, after, where, tolerance, depth, place="[{!r}]")
    elif _is_list(before) and _is_list(after):
        yield from _compare_lists(before, after, where, tolerance, depth)
    elif isinstance(before, Path) and isinstance(after, Path):
        for place, told in differing_files(before, after):
            yield Difference(where=f"{where}{place}", told=told, within=False)
    elif type(before) is type(after) and depth < _DEEPEST and (old := attributes_of(before)) is not None:
        yield from _compare_mappings(old, attributes_of(after) or {}, where, tolerance, depth, place=".{}")
    elif type(before) is not type(after) or before != after:
        yield Difference(where=where, told=_became(before, after), within=False)


def _compare_mappings(
    before: Mapping[Any, Any],
    after: Mapping[Any, Any],
    where: str,
    tolerance: float,
    depth: int,
    *,
    place: str,
) -> Iterator[Difference]:
    """Compare by keys; `place` says how one of them is written."""
    for key in [*before, *(each for each in after if each not in before)]:
        inside = where + place.format(key)
        if key not in after or key not in before:
            yield Difference(
                where=inside, told="it is gone" if key not in after else "it is new", within=False
            )
        else:
            yield from _compare(before[key], after[key], inside, tolerance, depth + 1)


def _compare_lists(
    before: Sequence[Any], after: Sequence[Any], where: str, tolerance: float, depth: int
) -> Iterator[Difference]:
    if len(before) != len(after):
        yield Difference(where=where, told=f"{len(before)} items became {len(after)}", within=False)
        return
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        yield from _compare(one, other, f"{where}[{number}]", tolerance, depth + 1)


def _as_table(value: Any) -> Any:
    """Give a frame, of whatever library, as a table of Arrow."""
    is_frame = hasattr(value, "__arrow_c_stream__") and hasattr(value, "columns")
    return pa.table(value) if is_frame and not isinstance(value, pa.Table) else value


def _compare_numbers(before: Any, after: Any, where: str, tolerance: float) -> Iterator[Difference]:
    whole = isinstance(before, int) and isinstance(after, int)  # these may be larger than a float can be
    if before != after and not (not whole and math.isnan(before) and math.isnan(after)):
        within = not whole and math.isclose(before, after, rel_tol=tolerance, abs_tol=0.0)
        yield Difference(where=where, told=_became(before, after), within=within)


def _compare_tables(before: pa.Table, after: pa.Table, where: str, tolerance: float) -> Iterator[Difference]:
    if before.schema != after.schema or before.num_rows != after.num_rows:
        told = (
            f"{before.num_rows:,} rows x {before.num_columns} columns became {after.num_rows:,} x "
            f"{after.num_columns}"
        )
        yield Difference(where=where, told=told, within=False)
        return
    for name in before.column_names:
        one, other = before[name].combine_chunks(), after[name].combine_chunks()
        if not one.equals(other):
            place = f"{where}.{name}"
            if pa.types.is_floating(one.type):
                yield from _compare_arrays(
                    one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False), place, tolerance
                )
            else:
                yield Difference(where=place, told="other values", within=False)


def _compare_arrays(before: Any, after: Any, where: str, tolerance: float) -> Iterator[Difference]:
    if before.shape != after.shape or before.dtype != after.dtype:
        told = f"{before.dtype}{before.shape} became {after.dtype}{after.shape}"
        yield Difference(where=where, told=told, within=False)
        return
    if before.dtype.kind not in "fc":
        count = int(np.count_nonzero(before != after))
        if count:
            yield Difference(where=where, told=f"{count} of {before.size} values differ", within=False)
        return
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    if not same.all():
        within = bool(np.isclose(before, after, rtol=tolerance, atol=0, equal_nan=True).all())
        apart = float(np.nanmax(np.abs(before - after)))
        told = f"{int((~same).sum())} of {before.size} values differ, by at most {apart:.3g}"
        yield Difference(where=where, told=told, within=within)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _became(before: Any, after: Any) -> str:
    if isinstance(before, bytes) and isinstance(after, bytes):
        return told_bytes(before, after)
    if isinstance(before, str) and isinstance(after, str) and max(before.count("\n"), after.count("\n")) > 1:
        return told_bytes(before.encode(), after.encode())
    return f"{_short(before)} became {_short(after)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
