"""Features in words, as they were written."""

from noria.features.declarations import HOUR_S, Aggregation

__all__ = ["rule_of"]


def rule_of(aggregation: Aggregation) -> str:
    """Say how a feature is made, as it was written.

    Examples
    --------
    >>> from noria.features import agg
    >>> rule_of(agg.mean("late", "7d", where=[("origin", "==", "JFK")]))
    "mean(late, 7d) where origin == 'JFK'"
    """
    parts = [] if aggregation.column is None else [aggregation.column]
    if aggregation.q_millionths is not None:
        parts.append(f"{aggregation.q_millionths / 1e6:g}")
    parts += [str(each) for each in (aggregation.dimensions, aggregation.k) if each is not None]
    for seconds in (aggregation.window_s, aggregation.half_life_s, aggregation.max_age_s):
        if seconds is not None:
            parts.append(_duration(seconds))
    if aggregation.resolution is not None and (aggregation.window_s or 0) >= HOUR_S:
        parts.append(f"by {aggregation.resolution.value}")
    made = f"{aggregation.kind.value}({', '.join(parts)})"
    if aggregation.values:
        made += f" of {len(aggregation.values)} values"
    if aggregation.where:
        terms = (f"{each.column} {each.comparison.value} {each.value!r}" for each in aggregation.where)
        made += f" where {' and '.join(terms)}"
    return made


def _duration(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
