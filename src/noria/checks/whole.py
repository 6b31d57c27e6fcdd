"""Rules about a batch as a whole: they see its pieces go by, and judge at its end."""

from collections.abc import Callable
from datetime import timedelta
from statistics import median
from typing import NamedTuple, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from noria.checks.declarations import Rule
from noria.checks.evaluator import Evaluator, Node, first_line
from noria.checks.surroundings import Surroundings
from noria.checks.verdicts import row_json
from noria.clock import to_micros
from noria.errors import ConfigError

__all__ = ["Failed", "WholeRule", "type_test", "watch"]

_FEW_BATCHES = 5
_FAMILIES: dict[str, Callable[[pa.DataType], bool]] = {
    "integer": pa.types.is_integer,
    "number": lambda kind: (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    ),
    "text": lambda kind: (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    ),
    "instant": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "date": pa.types.is_date,
    "bool": pa.types.is_boolean,
    "binary": lambda kind: (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    ),
    "list": lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind),
    "struct": pa.types.is_struct,
}


class Failed(NamedTuple):
    """What a batch came to where a rule wants something else."""

    detail: str  # for the record: without a value of any row
    example: str  # as JSON


class WholeRule(Protocol):
    """One rule about a batch."""

    def piece(self, accepted: pa.Table) -> None:
        """See the accepted rows of the next piece."""
        ...

    def finish(self, rows: int) -> Failed | None:
        """Judge, knowing how many rows came in all. None: it holds."""
        ...

    def close(self) -> None:
        """Let go of what it kept."""
        ...


def watch(rule: Rule, evaluator: Evaluator, surroundings: Surroundings | None) -> WholeRule:
    """Give what judges `rule`.

    Raises
    ------
    ConfigError
        If it needs to know where the batch stands and is not told, or is no rule.
    """
    match rule.kind:
        case "has_type":
            return _HasType(rule)
        case "aggregate":
            return _Aggregate(rule, evaluator)
        case "row_count" if rule.span_s is None:
            return _RowCount(rule, None)
        case _ if surroundings is None:
            raise ConfigError(
                f"the check {rule.name} asks where a batch stands, which only an ingest knows; "
                "leave it out where rows are checked by themselves"
            )
        case "rejected_share":
            raise ConfigError(f"the check {rule.name} is judged by the lake, once all rows are decided about")
        case "fresh":
            return _Fresh(rule, surroundings)
        case "row_count":
            return _RowCount(rule, surroundings)
    raise ConfigError(f"{rule.name}: no check is of kind {rule.kind!r}")


def type_test(text: str) -> Callable[[pa.DataType], bool]:
    """Give what tells whether a type is `text`: a family's name, or Arrow's name of a type.

    Raises
    ------
    ConfigError
        If there is no such type.
    """
    if text in _FAMILIES:
        return _FAMILIES[text]
    if text.startswith(("timestamp[", "decimal", "list<", "struct<", "fixed_size")):
        return lambda kind: str(kind) == text
    try:
        wanted = pa.type_for_alias(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no type; write one of {', '.join(_FAMILIES)}, or Arrow's name: int64, double, "
            "string, bool, date32, timestamp[us, tz=UTC]"
        ) from None
    return lambda kind: bool(kind == wanted)


class _HasType:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._test = type_test(rule.type or "")
        self._found: pa.DataType | None = None

    def piece(self, accepted: pa.Table) -> None:
        self._found = accepted.schema.field(self._rule.columns[0]).type

    def finish(self, rows: int) -> Failed | None:
        if self._found is None or self._test(self._found):
            return None
        told = f"it is {self._found}, wanted {self._rule.type}"
        return Failed(told, row_json({self._rule.columns[0]: str(self._found)}))

    def close(self) -> None:
        pass


class _Fresh:
    def __init__(self, rule: Rule, surroundings: Surroundings) -> None:
        self._limit = timedelta(seconds=rule.span_s or 0)
        self._column = surroundings.event_at
        self._at = to_micros(surroundings.at)
        self._newest: int | None = None

    def piece(self, accepted: pa.Table) -> None:
        newest = pc.max(accepted[self._column].cast(pa.timestamp("us", "UTC")).cast(pa.int64())).as_py()
        if newest is not None:
            self._newest = newest if self._newest is None else max(self._newest, newest)

    def finish(self, rows: int) -> Failed | None:
        if self._newest is None:
            return None
        age = timedelta(microseconds=self._at - self._newest)
        if age <= self._limit:
            return None
        told = f"the newest {self._column} is {age} older than the batch, wanted at most {self._limit}"
        return Failed(told, row_json({"age": str(age)}))

    def close(self) -> None:
        pass


class _RowCount:
    def __init__(self, rule: Rule, surroundings: Surroundings | None) -> None:
        self._rule = rule
        self._surroundings = surroundings

    def piece(self, accepted: pa.Table) -> None:
        pass

    def finish(self, rows: int) -> Failed | None:
        usual, earlier = 1.0, 0
        if self._surroundings is not None:
            since = self._surroundings.at - timedelta(seconds=self._rule.span_s or 0)
            before = self._surroundings.earlier_rows(since)
            earlier = len(before)
            if earlier < _FEW_BATCHES:
                return None
            usual = float(median(before))
        low, high = self._rule.low, self._rule.high
        assert not isinstance(low, str) and not isinstance(high, str)
        if (low is None or low * usual <= rows) and (high is None or rows <= high * usual):
            return None
        wanted = _range(low, high)
        if earlier:
            wanted += f" times {usual:g}, the median of {earlier} batches"
        count = "1 row" if rows == 1 else f"{rows} rows"
        return Failed(f"it has {count}, wanted {wanted}", row_json({"rows": rows}))

    def close(self) -> None:
        pass


class _Aggregate:
    """Aggregates are kept as DuckDB's states, which are combined from piece to piece."""

    def __init__(self, rule: Rule, evaluator: Evaluator) -> None:
        self._rule = rule
        self._evaluator = evaluator
        self._name = evaluator.new_name()
        self._begun = False
        sql = rule.sql or ""
        source = f"select {sql}".encode()
        calls = _calls(evaluator.nodes(sql, what=rule.name), evaluator.aggregates, rule)
        if not calls:
            raise ConfigError(
                f"the check {rule.name} ({sql}) holds no aggregate such as avg(x); "
                "use `expression` for a condition over each row"
            )
        self._calls = [source[begin:end].decode() for begin, end in calls]
        whole = source
        for place, (begin, end) in reversed(list(enumerate(calls))):
            whole = whole[:begin] + f"finalize(s{place})".encode() + whole[end:]
        self._whole = whole.decode().removeprefix("select ")

    def piece(self, accepted: pa.Table) -> None:
        if not accepted.num_rows:
            return
        states = ", ".join(f"{call} export_state as s{place}" for place, call in enumerate(self._calls))
        try:
            if not self._begun:
                made = f"create temp table {self._name} as select {states} from batch"
                self._evaluator.execute(made, {"batch": accepted})
                self._begun = True
                self._answer()
                return
            pairs = [
                f"s{place} = combine({self._name}.s{place}, new.s{place})"
                for place in range(len(self._calls))
            ]
            joined = ", ".join(pairs)
            self._evaluator.execute(
                f"update {self._name} set {joined} from (select {states} from batch) new", {"batch": accepted}
            )
        except duckdb.Error as err:
            raise self._unfit(err) from err

    def _unfit(self, err: duckdb.Error) -> ConfigError:
        return ConfigError(
            f"the check {self._rule.name} ({self._rule.sql}) cannot be evaluated: {first_line(err)}"
        )

    def _answer(self) -> tuple[object, ...]:
        found = ", ".join(f"finalize(s{place})" for place in range(len(self._calls)))
        return self._evaluator.execute(f"select ({self._whole})::bool, {found} from {self._name}")[0]

    def finish(self, rows: int) -> Failed | None:
        if not self._begun:
            return None
        try:
            holds, *values = self._answer()
        except duckdb.Error as err:
            raise self._unfit(err) from err
        if holds is not False:
            return None
        return Failed(f"{self._rule.sql} is false", row_json(dict(zip(self._calls, values, strict=True))))

    def close(self) -> None:
        if self._begun:
            self._evaluator.execute(f"drop table if exists {self._name}")
            self._begun = False


def _calls(nodes: list[Node], aggregates: frozenset[str], rule: Rule) -> list[tuple[int, int]]:
    """Give where in the source, in bytes, the outermost aggregates stand."""
    calls: list[tuple[int, int]] = []
    for node in nodes:
        if node["class"] in {"SUBQUERY", "WINDOW"}:
            raise ConfigError(
                f"the check {rule.name} ({rule.sql}) holds a query or a window function; "
                "only aggregates of the batch's own rows can be judged"
            )
        if node["class"] != "FUNCTION" or node["function_name"] not in aggregates:
            continue
        if node["distinct"]:
            raise ConfigError(
                f"the check {rule.name} ({rule.sql}) counts distinct values, which a batch in pieces cannot; "
                "use approx_count_distinct(...), or `one_of`"
            )
        begin = node["query_location"]
        end = begin + node["query_location_length"]
        if not any(first <= begin and end <= last for first, last in calls):
            calls.append((begin, end))
    return sorted(calls)


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {low:g}"
    return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
