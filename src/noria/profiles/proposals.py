"""Write down what rows look like as a contract that they keep: Python, for a person to edit.

Every rule that is proposed holds for the rows it was made from. Bounds of numbers lie a stated margin beyond
what was seen, because tomorrow's extremes are a little further out.
"""

import json
import keyword
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import format_instant
from noria.errors import NotFound, SourceError
from noria.profiles.patterns import find_pattern

__all__ = ["UNREAD", "Seen", "look_at", "propose_contract"]

UNREAD = "# could not be read:"

_MARGIN = 0.1  # of the range seen, beyond either end
_FEW_TEXTS = 20  # so many different values, and no more, are listed
_REPEATED = 5  # rows to each of them, at least
_LONGEST_LISTED = 40
_KEY_COLUMNS = 3  # a proposed key has at most so many
_KEY_CANDIDATES = 10
_ENOUGH_ROWS = 20  # fewer without a value twice say little
_SAMPLE = 20_000
_REJECTED_SHARE = 0.01  # which a dataset allows that declares nothing else
_KNOWN_WORDS = ("known", "load", "record", "ingest", "sync", "receiv", "arriv", "creat", "updat", "insert")


@dataclass(slots=True)
class Seen:
    """What was seen of one column."""

    name: str
    kind: pa.DataType
    rows: int
    missing: int
    distinct: int | None = None  # None: values of this type are not counted
    low: Any = None
    high: Any = None
    values: tuple[Any, ...] = ()  # all of them, where they are few
    pattern: str | None = None
    longest: int | None = None
    finite: bool = True

    @property
    def told(self) -> str:
        """The same in words, for a comment."""
        parts = [f"missing in {self.missing / self.rows:.1%}" if self.missing else "never missing"]
        if self.distinct is not None:
            parts.append(f"{self.distinct:,} different")
        if self.low is not None:
            parts.append(f"{_shown(self.low)} to {_shown(self.high)}")
        if not self.finite:
            parts.append("with NaN or infinities")
        return ", ".join(parts)


@dataclass(slots=True)
class _Draft:
    """The rules so far, and what they are made from."""

    table: pa.Table
    seen: Mapping[str, Seen]
    others: Mapping[str, pa.Table]
    lines: list[str] = field(default_factory=list)

    def rule(self, call: str, why: str = "") -> None:
        self.lines.append(f"        {call},{f'  # {why}' if why else ''}")


def propose_contract(
    name: str,
    table: pa.Table,
    *,
    source: str,
    key: Sequence[str] = (),
    event_at: str | None = None,
    known_at: str | None = None,
    others: Mapping[str, pa.Table] | None = None,
    reading: Mapping[str, Any] | None = None,
    unread: int = 0,
    why_unread: str = "",
) -> str:
    """Write the declaration of a dataset whose contract `table` keeps.

    Parameters
    ----------
    name
        Of the dataset.
    table
        Its rows, with the types under which a lake keeps them.
    source
        Where they came from, for the comment.
    key, event_at, known_at
        Columns that are known; else they are proposed.
    others
        Declared datasets, by name: the columns of the key, to which columns of this one may refer.
    reading
        How the files were read, to be declared.
    unread, why_unread
        How many of their lines could not be read, and why the first of them. Where they are more than a
        dataset may have rejected by default, the limit is raised to their share.

    Raises
    ------
    NotFound
        If a given column is not there.
    SourceError
        If there are no rows, no column of instants, or nothing that names a row.

    Examples
    --------
    >>> at = pa.array([0, 1], pa.timestamp("us", "UTC"))
    >>> text = propose_contract("sales", pa.table({"id": ["a", "b"], "at": at}), source="a test")
    >>> 'key="id"' in text, 'event_at="at"' in text
    (True, True)
    """
    if not table.num_rows:
        raise SourceError(f"{source} holds no rows to learn from; name a file or a table that does")
    for column in (*key, *filter(None, (event_at, known_at))):
        if column not in table.column_names:
            raise NotFound("column", column, table.column_names)
    seen = {each.name: look_at(table[each.name], each.name) for each in table.schema}
    event_at, events = _event_column(seen, event_at, source)
    known_at, knowns = _known_column(table, seen, event_at, known_at)
    keys = [tuple(key)] if key else _find_keys(table, seen, {event_at, known_at or event_at})
    if not keys:
        raise SourceError(
            f"{source}: no column, and no {_KEY_COLUMNS} of them together, has a different value in each "
            "row; name the key, or drop what comes twice"
        )
    draft = _Draft(table, seen, others or {})
    _propose_rules(draft, keys, {event_at, known_at or event_at})
    return "\n".join(
        [
            f'"""The contract that {table.num_rows:,} rows of {_plain(source)} keep.',
            "",
            "Read it, and edit it: what was seen is not yet what is meant.",
            '"""',
            "",
            "import noria",
            "from noria import check",
            "",
            *_candidates("key", [", ".join(each) for each in keys[1:]]),
            *_candidates("event_at", events),
            *_candidates("known_at", knowns),
            *([_told_unread(unread, why_unread)] if unread else []),
            f"{name}{'_' if keyword.iskeyword(name) else ''} = noria.Dataset(",
            f"    {_text(name)},",
            f"    key={_text(keys[0][0]) if len(keys[0]) == 1 else _tuple(keys[0])},",
            f"    event_at={_text(event_at)},",
            *([f"    known_at={_text(known_at)},"] if known_at else []),
            *(
                [f"    reading={{{', '.join(_option(*each) for each in reading.items())}}},"]
                if reading
                else []
            ),
            *_limit_lines(unread, table.num_rows),
            *_schema_lines(seen),
            "    checks=[",
            *draft.lines,
            "    ],",
            ")",
            "",
        ]
    )


def _told_unread(unread: int, why: str) -> str:
    """Give the comment of a proposal that says how many lines are not in it."""
    return f"{UNREAD} {unread:,} {'line' if unread == 1 else 'lines'}; the first: {_plain(why)}"


def look_at(column: pa.ChunkedArray, name: str) -> Seen:
    """See what one column holds."""
    kind, types = column.type, pa.types
    missing = column.null_count
    seen = Seen(name, kind, len(column), missing)
    if types.is_floating(kind):
        numbers = np.asarray(column.cast(pa.float64()).drop_null())
        seen.missing += int(np.isnan(numbers).sum())
        seen.finite = bool(np.isfinite(numbers).all())
    if types.is_nested(kind) or types.is_null(kind):
        return seen
    present = column.drop_null()
    seen.distinct = pc.count_distinct(present).as_py()
    if not len(present):
        return seen
    if types.is_integer(kind) or types.is_timestamp(kind) or types.is_date(kind) or types.is_decimal(kind):
        found = pc.min_max(present)
        seen.low, seen.high = _scalar(found["min"]), _scalar(found["max"])
    elif types.is_floating(kind) and seen.finite:
        found = pc.min_max(present).as_py()
        seen.low, seen.high = found["min"], found["max"]
    if types.is_string(kind):
        seen.longest = pc.max(pc.utf8_length(present)).as_py()
        different = present.unique().to_pylist()
        if len(different) <= _FEW_TEXTS:
            seen.values = tuple(sorted(different))
        seen.pattern = find_pattern(different)
    return seen


def _event_column(seen: Mapping[str, Seen], given: str | None, source: str) -> tuple[str, list[str]]:
    """Choose the column that says when it happened, and tell which others could."""
    instants = [each.name for each in seen.values() if _is_instant(each.kind) and not each.missing]
    if given is not None:
        if given not in instants:
            raise SourceError(
                f"{source}: column {given!r} ({seen[given].kind}, missing in {seen[given].missing} rows) "
                "cannot be event_at: that wants an instant with a time zone in each row"
            )
        return given, [each for each in instants if each != given]
    if not instants:
        clocks = [
            each.name for each in seen.values() if pa.types.is_timestamp(each.kind) and not each.kind.tz
        ]
        hint = (
            f"{', '.join(clocks)} shows a clock without a time zone: name the zone" if clocks else "name one"
        )
        raise SourceError(
            f"{source}: no column is an instant in each row, so nothing can be event_at; {hint}"
        )
    likely = sorted(instants, key=lambda each: (_sounds_known(each), not each.endswith(("_at", "_time"))))
    return likely[0], likely[1:]


def _known_column(
    table: pa.Table, seen: Mapping[str, Seen], event_at: str, given: str | None
) -> tuple[str | None, list[str]]:
    fitting = [
        each.name
        for each in seen.values()
        if _is_instant(each.kind)
        and not each.missing
        and each.name != event_at
        and pc.all(pc.greater_equal(table[each.name], table[event_at])).as_py()
    ]
    if given is not None:
        if given not in {*fitting, event_at}:
            raise SourceError(
                f"column {given!r} cannot be known_at: it is no instant in each row, or before {event_at}"
            )
        return given, [each for each in fitting if each != given]
    likely = [each for each in fitting if _sounds_known(each)]
    chosen = likely[0] if likely else None
    return chosen, [each for each in fitting if each != chosen]


def _find_keys(table: pa.Table, seen: Mapping[str, Seen], times: set[str]) -> list[tuple[str, ...]]:
    """Give columns, or few of them together, that name a row: the likeliest first."""
    fit = [
        each
        for each in seen.values()
        if not each.missing and each.distinct is not None and not pa.types.is_floating(each.kind)
    ]
    single = [(each.name,) for each in fit if each.distinct == each.rows]
    if single:
        return sorted(single, key=lambda each: (each[0] in times, not _sounds_key(each[0])))
    varied = sorted(
        (each for each in fit if (each.distinct or 0) > 1), key=lambda each: -(each.distinct or 0)
    )
    names = [each.name for each in varied[:_KEY_CANDIDATES]]
    for size in range(2, _KEY_COLUMNS + 1):
        found = [
            each
            for each in combinations(names, size)
            if math.prod(seen[name].distinct or 0 for name in each) >= table.num_rows
            and _names_rows(table.slice(0, _SAMPLE), each)
            and _names_rows(table, each)
        ]
        if found:
            return sorted(found, key=lambda each: -sum(_sounds_key(name) for name in each))
    return []


def _names_rows(table: pa.Table, columns: Sequence[str]) -> bool:
    return bool(table.select(list(columns)).group_by(list(columns)).aggregate([]).num_rows == table.num_rows)


def _propose_rules(draft: _Draft, keys: Sequence[tuple[str, ...]], times: set[str]) -> None:
    seen = draft.seen
    key = keys[0]
    alone = {each[0] for each in keys[1:] if len(each) == 1 and draft.table.num_rows >= _ENOUGH_ROWS}
    full = [each for each in seen.values() if not each.missing and each.name not in {*key, *times}]
    if full:
        draft.rule(f"check.not_null({', '.join(_text(each.name) for each in full)})")
    for each in seen.values():
        if each.name in times:
            continue
        found = _find_reference(draft, each)
        if found is not None:
            other, column = found
            draft.rule(
                f"check.references({_text(each.name)}, {_text(other)}, {_text(column)})",
                f"all {each.distinct:,} are there",
            )
        elif each.name not in key:
            _propose_values(draft, each)
        elif each.pattern is not None:
            draft.rule(f"check.matches({_text(each.name)}, {_text(each.pattern)})", "all do")
        if each.name in alone:
            draft.rule(f"check.unique({_text(each.name)})", "no value came twice")


def _propose_values(draft: _Draft, each: Seen) -> None:
    types, name = pa.types, _text(each.name)
    if (types.is_integer(each.kind) or types.is_floating(each.kind)) and each.low is not None:
        low, high = _widened(each)
        draft.rule(
            f"check.between({name}, {low!r}, {high!r})",
            f"seen {_shown(each.low)} to {_shown(each.high)}, {_MARGIN:.0%} of the range added"
            if each.low != each.high
            else f"seen {_shown(each.low)} only, {_MARGIN:.0%} of it added",
        )
    elif each.values and _is_listed(each):
        draft.rule(f"check.one_of({name}, {_list(each.values)})", "nothing else was seen")
    elif each.pattern is not None:
        draft.rule(f"check.matches({name}, {_text(each.pattern)})", "all do")
    elif each.longest:
        draft.rule(f"check.length({name}, None, {2 * each.longest})", f"twice the longest, {each.longest}")


def _is_listed(each: Seen) -> bool:
    few = len(each.values) * _REPEATED <= each.rows - each.missing
    return few and all(len(value) <= _LONGEST_LISTED for value in each.values)


def _find_reference(draft: _Draft, each: Seen) -> tuple[str, str] | None:
    """Give the dataset and the column of its key in which all values of a column are, if names agree too."""
    if not (pa.types.is_string(each.kind) or pa.types.is_integer(each.kind)) or not each.distinct:
        return None
    for other, keys in draft.others.items():
        if keys.num_columns != 1 or not keys.num_rows:
            continue
        column = keys.column_names[0]
        if keys.schema.field(0).type != each.kind or not _sounds_like(each.name, other, column):
            continue
        values = draft.table[each.name].drop_null().unique()
        if pc.all(pc.is_in(values, keys.column(0).combine_chunks())).as_py():
            return other, column
    return None


def _sounds_like(name: str, other: str, column: str) -> bool:
    """Say whether a column's name speaks of another dataset: `shop`, `shop_id`, `code` of `shops`."""
    if name == column:
        return True
    stem = other.rstrip("s").lower()
    return len(stem) > 1 and stem in name.lower()


def _widened(each: Seen) -> tuple[Any, Any]:
    """Give bounds a margin beyond what was seen; what was never negative stays so."""
    margin = (each.high - each.low or abs(each.high) or 1) * _MARGIN
    low, high = each.low - margin, each.high + margin
    if each.low >= 0:
        low = max(low, 0)
    if pa.types.is_integer(each.kind):
        step = max(round(margin), 1)
        low, high = each.low - step, each.high + step
        return (max(low, 0) if each.low >= 0 else low), high
    if not (math.isfinite(low) and math.isfinite(high)):
        return each.low, each.high
    short_low, short_high = float(f"{low:.6g}"), float(f"{high:.6g}")
    return min(short_low, each.low), max(short_high, each.high)


def _option(name: str, value: Any) -> str:
    return f"{_text(name)}: {_text(value) if isinstance(value, str) else repr(value)}"


def _limit_lines(unread: int, rows: int) -> list[str]:
    share = unread / (unread + rows)
    if share <= _REJECTED_SHARE:
        return []
    limit = min(math.ceil(share * 100) / 100, 1.0)
    return [
        f"    max_rejected_share={limit},  # {share:.1%} could not be read: repair them, and leave this out"
    ]


def _schema_lines(seen: Mapping[str, Seen]) -> list[str]:
    """Declare the types, unless one of them has no name that a declaration knows."""
    names = {each.name: _type_name(each.kind) for each in seen.values()}
    unnamed = [name for name, text in names.items() if text is None]
    if unnamed:
        return [
            f"    # no schema: the first batch decides about the types of {_plain(', '.join(unnamed))}",
            *(f"    # {_plain(each.name)}: {_plain(str(each.kind))}, {each.told}" for each in seen.values()),
        ]
    return [
        "    schema={",
        *(
            f"        {_text(each.name)}: {_text(names[each.name] or '')},  # {_about(each)}"
            for each in seen.values()
        ),
        "    },",
    ]


def _about(each: Seen) -> str:
    return "holds nothing: say what it is to hold" if pa.types.is_null(each.kind) else each.told


def _type_name(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_null(kind):
        return "string"
    if types.is_timestamp(kind):
        return str(kind)
    if types.is_nested(kind) or types.is_decimal(kind):
        return None
    return "date32" if types.is_date(kind) else str(kind)


def _is_instant(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz is not None)


def _sounds_known(name: str) -> bool:
    return any(word in name.lower() for word in _KNOWN_WORDS)


def _sounds_key(name: str) -> bool:
    lower = name.lower()
    return lower in {"id", "key", "code", "uuid"} or lower.endswith(("_id", "_key", "id", "_no", "_number"))


def _scalar(value: Any) -> Any:
    """Give a value, of an instant that Python cannot hold its number."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return value.cast(pa.int64()).as_py()


def _candidates(what: str, names: Sequence[str]) -> list[str]:
    return [f"# {what} could also be: {_plain('; '.join(names))}"] if names else []


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return format_instant(value) if value.tzinfo else value.isoformat()
    return f"{value:.6g}" if isinstance(value, float) else _plain(str(value))


def _plain(text: str) -> str:
    """Give a text that stays on the line of its comment, whatever is in it."""
    return json.dumps(text, ensure_ascii=True)[1:-1].replace('\\"', "'").replace('"""', "'")


def _text(value: str) -> str:
    """Write a literal of Python."""
    return json.dumps(value, ensure_ascii=False)


def _tuple(values: Sequence[str]) -> str:
    return f"({', '.join(map(_text, values))})"


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
