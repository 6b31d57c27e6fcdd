"""The rules as plain Python over lists of rows: slow, and plainly right."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from noria.checks.declarations import Rule, Severity

Row = dict[str, Any]


@dataclass
class Judged:
    kept: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)


def judge(rows: Sequence[Row], rules: Sequence[Rule], there: set[Any] = frozenset()) -> Judged:  # type: ignore[assignment]
    """Judge rows one after the other; `there` holds the keys that references may name."""
    done = Judged()
    greatest: dict[str, Any] = {}
    seen: dict[str, set[Any]] = {rule.name: set() for rule in rules if rule.kind == "unique"}
    for at, row in enumerate(rows):
        broken = [rule for rule in rules if _breaks(rule, row, there)]
        for rule in rules:
            if rule.kind == "increasing" and not _missing(value := row[rule.columns[0]]):
                top = greatest.get(rule.name)
                if top is not None and (value <= top if rule.strictly else value < top):
                    broken.append(rule)
                elif not any(_rejects(each) for each in broken):
                    greatest[rule.name] = value if top is None else max(top, value)
        again = []
        for rule in rules:
            key = tuple(row[name] for name in rule.columns)
            if rule.kind == "unique" and not any(map(_missing, key)) and key in seen[rule.name]:
                again.append(rule)
        broken += again
        if not any(map(_rejects, broken)):
            done.kept.append(at)
            for rule in rules:
                key = tuple(row[name] for name in rule.columns)
                if rule.kind == "unique" and not any(map(_missing, key)):
                    seen[rule.name].add(key)
        for rule in broken:
            done.failing[rule.name] = done.failing.get(rule.name, 0) + 1
        told = [rule.name for rule in rules if rule in broken and _rejects(rule)]
        if told:
            done.reasons[at] = "; ".join(told)
    return done


def _rejects(rule: Rule) -> bool:
    return rule.severity is not Severity.WARN


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _breaks(rule: Rule, row: Row, there: set[Any]) -> bool:
    values = [row[name] for name in rule.columns]
    match rule.kind:
        case "not_null":
            return any(map(_missing, values))
        case "finite":
            return any(each is not None and not math.isfinite(each) for each in values)
    if rule.kind != "expression" and any(each is None for each in values):
        return False
    match rule.kind:
        case "between":
            (value,) = values
            if isinstance(value, float) and math.isnan(value):
                return True
            return bool(
                (rule.low is not None and value < rule.low) or (rule.high is not None and value > rule.high)
            )
        case "one_of":
            return values[0] not in rule.values
        case "matches":
            return re.fullmatch(rule.pattern or "", values[0]) is None
        case "length":
            size = len(values[0])
            low, high = rule.low, rule.high
            assert not isinstance(low, str) and not isinstance(high, str)
            return bool((low is not None and size < low) or (high is not None and size > high))
        case "references":
            return tuple(values) not in there
        case "expression":
            assert rule.sql == "n < m"
            return row["n"] is not None and row["m"] is not None and row["n"] >= row["m"]
    return False
