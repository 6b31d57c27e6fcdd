"""The language of searches: `metrics.loss < 0.1 AND tags.team = 'a'`, and `metrics.loss DESC`. No SQL here.

A condition is `entity.key OPERATOR value`; a bare key is an attribute; conditions are joined by AND. What
may be asked for is a `Grammar`; runs and experiments have theirs here. What is no filter is refused with
`BadFilter`. The time that a text takes grows with its length and no faster: no character is looked at more
than a few times.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from noria.errors import BadFilter

__all__ = [
    "EXPERIMENTS",
    "KEYED",
    "LISTED",
    "MAX_CONDITIONS",
    "MAX_ORDERS",
    "MAX_TEXT_CHARS",
    "NUMBERS",
    "RUNS",
    "TEXTS",
    "Condition",
    "Entity",
    "Field",
    "Grammar",
    "Operator",
    "Order",
    "parse_filter",
    "parse_order",
]

MAX_TEXT_CHARS = 200_000  # 5,000 ids of runs in a list
MAX_CONDITIONS = 40  # each is a table of the statement; with the orders SQLite takes 64
MAX_ORDERS = 16
_MAX_VALUES = 10_000  # in all lists together; a statement of SQLite takes 32,766
_MAX_PATTERN_CHARS = 10_000  # SQLite takes 50,000 bytes
_SHOWN_CHARS = 24
_MAX_ORDER_CHARS = 1_000
_LARGE = 2.0**63

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\w+")
_DOTTED = re.compile(r"\w[\w.]*")
_SIGN = re.compile(r"!=|>=|<=|=|>|<")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?(?![\w.])"
)
_INTEGER = re.compile(r"[+-]?[0-9]+")


class Entity(StrEnum):
    """Of what a key is."""

    METRIC = "metrics"
    PARAM = "params"
    TAG = "tags"
    ATTRIBUTE = "attributes"
    DATASET = "datasets"


class Operator(StrEnum):
    """How a value is compared. `!=` too wants a value to be there; `IS NULL` finds what has none."""

    EQ = "="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"

    @property
    def is_existence(self) -> bool:
        """Whether it takes no value."""
        return self in {Operator.IS_NULL, Operator.IS_NOT_NULL}

    @property
    def is_list(self) -> bool:
        """Whether it takes a list."""
        return self in {Operator.IN, Operator.NOT_IN}

    @property
    def is_pattern(self) -> bool:
        """Whether `%` and `_` are wild in its value."""
        return self in {Operator.LIKE, Operator.ILIKE}


TEXTS = frozenset({Operator.EQ, Operator.NE, Operator.LIKE, Operator.ILIKE})
LISTED = TEXTS | {Operator.IN, Operator.NOT_IN}
KEYED = TEXTS | {Operator.IS_NULL, Operator.IS_NOT_NULL}
NUMBERS = frozenset({Operator.EQ, Operator.NE, Operator.GT, Operator.GE, Operator.LT, Operator.LE})
_IDS = frozenset({Operator.EQ, Operator.NE, Operator.IN, Operator.NOT_IN})


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `value` is as the operator wants it: a number, a text, texts, or None."""

    entity: Entity
    key: str
    operator: Operator
    value: int | float | str | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One key to sort by."""

    entity: Entity
    key: str
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """What may be asked of a key."""

    operators: frozenset[Operator]

    @property
    def is_number(self) -> bool:
        """Whether it is compared with numbers."""
        return Operator.GT in self.operators


@dataclass(frozen=True, slots=True)
class Grammar:
    """What may be asked of one kind of thing.

    Attributes
    ----------
    what
        The things, as an error names them.
    keyed
        Entities whose keys are anybody's choice.
    fixed
        Entities whose keys are these.
    renamed
        Other names of attributes.
    sorted_by
        Entities that may be sorted by.
    """

    what: str
    keyed: Mapping[Entity, Field]
    fixed: Mapping[Entity, Mapping[str, Field]]
    renamed: Mapping[str, str] = field(default_factory=dict)
    sorted_by: frozenset[Entity] = frozenset({Entity.ATTRIBUTE})

    def find_field(self, entity: Entity, key: str) -> Field | None:
        """Give what may be asked of a key, or None."""
        return self.keyed.get(entity) or self.fixed.get(entity, {}).get(key)


_ALIASES = {
    **dict.fromkeys(("metric", "metrics"), Entity.METRIC),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), Entity.PARAM),
    **dict.fromkeys(("tag", "tags"), Entity.TAG),
    **dict.fromkeys(("attr", "attribute", "attributes", "run"), Entity.ATTRIBUTE),
    **dict.fromkeys(("dataset", "datasets"), Entity.DATASET),
}

RUNS = Grammar(
    what="runs",
    keyed={Entity.METRIC: Field(NUMBERS), Entity.PARAM: Field(KEYED), Entity.TAG: Field(KEYED)},
    fixed={
        Entity.ATTRIBUTE: {
            "run_id": Field(LISTED),
            **dict.fromkeys(
                ("run_name", "status", "artifact_uri", "user_id", "experiment_id", "lifecycle_stage"),
                Field(TEXTS),
            ),
            **dict.fromkeys(("start_time", "end_time"), Field(NUMBERS)),
        },
        Entity.DATASET: dict.fromkeys(("name", "digest", "context"), Field(LISTED)),
    },
    renamed={
        **dict.fromkeys(("created", "Created"), "start_time"),
        **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
    },
    sorted_by=frozenset({Entity.METRIC, Entity.PARAM, Entity.TAG, Entity.ATTRIBUTE}),
)

EXPERIMENTS = Grammar(
    what="experiments",
    keyed={Entity.TAG: Field(KEYED)},
    fixed={
        Entity.ATTRIBUTE: {
            "name": Field(TEXTS),
            "experiment_id": Field(_IDS),
            **dict.fromkeys(("creation_time", "last_update_time"), Field(NUMBERS)),
        }
    },
)


def parse_filter(text: str, grammar: Grammar = RUNS) -> tuple[Condition, ...]:
    """Read the conditions of a filter; an empty one has none.

    Raises
    ------
    BadFilter
        If it is none of this grammar, or too long.

    Examples
    --------
    >>> parse_filter("metrics.loss < 0.1 and params.`odd one` = 'x'")[1].key
    'odd one'
    """
    reader = _Reader("filter", text, grammar, MAX_TEXT_CHARS)
    found: list[Condition] = []
    values = 0
    while not reader.is_at_end():
        if found:
            reader.take_and()
        if len(found) == MAX_CONDITIONS:
            raise reader.refusal(f"at most {MAX_CONDITIONS} conditions", "ask for less at once")
        condition = reader.take_condition()
        if isinstance(condition.value, tuple):
            values += len(condition.value)
            if values > _MAX_VALUES:
                raise reader.refusal(f"at most {_MAX_VALUES} values in lists", "ask for less at once")
        found.append(condition)
    return tuple(found)


def parse_order(texts: Sequence[str], grammar: Grammar = RUNS) -> tuple[Order, ...]:
    """Read keys to sort by, each `entity.key [ASC|DESC]`.

    Raises
    ------
    BadFilter
        If one is none of this grammar, or there twice.

    Examples
    --------
    >>> parse_order(["metrics.loss DESC"])[0].is_descending
    True
    """
    found: dict[tuple[Entity, str], Order] = {}
    for text in texts:
        reader = _Reader("order_by", text, grammar, _MAX_ORDER_CHARS)
        if len(found) == MAX_ORDERS:
            raise reader.refusal(f"at most {MAX_ORDERS} keys", "sort by fewer")
        order = reader.take_order()
        if (order.entity, order.key) in found:
            raise BadFilter("order_by", f"{order.entity}.{order.key} twice", "each key once")
        found[order.entity, order.key] = order
    return tuple(found.values())


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, part: str, text: str, grammar: Grammar, most_chars: int) -> None:
        self._part, self._text, self._grammar, self._at = part, text, grammar, 0
        if len(text) > most_chars:
            raise BadFilter(
                part, f"{len(text):,} characters", f"at most {most_chars:,}", "ask for less at once"
            )
        if "\0" in text or not _is_unicode(text):
            raise BadFilter(part, "a NUL or half a character", "Unicode text")

    def is_at_end(self) -> bool:
        """Tell whether only space is left."""
        self._skip()
        return self._at == len(self._text)

    def refusal(self, wanted: str, advice: str = "") -> BadFilter:
        """Give the error of what stands here."""
        self._skip()
        rest = self._text[self._at : self._at + _SHOWN_CHARS + 1]
        shown = repr(rest[:_SHOWN_CHARS]) + ("…" if len(rest) > _SHOWN_CHARS else "")
        found = f"{shown} at character {self._at + 1}" if rest else "its end"
        return BadFilter(self._part, found, wanted, advice)

    def take_and(self) -> None:
        """Go over an AND."""
        word = self._peek(_WORD).upper()
        if word != "AND":
            advice = "conditions are joined by AND alone: there is no OR and there are no parentheses"
            raise self.refusal("AND, or the end", advice)
        self._at += len(word)

    def take_condition(self) -> Condition:
        """Read `entity.key OPERATOR value`."""
        entity, key, known = self._take_key()
        self._skip()
        began = self._at
        operator = self._take_operator()
        if operator not in known.operators:
            self._at = began
            names = " ".join(each for each in Operator if each in known.operators)
            raise self.refusal(f"an operator for {entity}.{key}: {names}")
        return Condition(entity, key, operator, self._take_value(operator, known))

    def take_order(self) -> Order:
        """Read `entity.key [ASC|DESC]`, which is all."""
        entity, key, _ = self._take_key()
        if entity not in self._grammar.sorted_by:
            advice = f"sort by {', '.join(sorted(self._grammar.sorted_by))}"
            raise BadFilter(self._part, f"{entity}.{key}", "something to sort by", advice)
        self._skip()
        word = self._peek(_WORD)
        if word.upper() in {"ASC", "DESC"}:
            self._at += len(word)
        if not self.is_at_end():
            raise self.refusal("ASC, DESC or the end")
        return Order(entity, key, word.upper() == "DESC")

    def _take_key(self) -> tuple[Entity, str, Field]:
        self._skip()
        began = self._at
        first = self._take_name(_WORD)
        entity = Entity.ATTRIBUTE
        if self._next() == ".":
            self._at += 1
            if first not in _ALIASES or not self._knows(_ALIASES[first]):
                self._at = began
                raise self.refusal(f"one of {', '.join(self._entities())}, a dot and a key")
            entity, first = _ALIASES[first], self._take_name(_DOTTED)
        key = self._grammar.renamed.get(first, first) if entity is Entity.ATTRIBUTE else first
        known = self._grammar.find_field(entity, key)
        if known is None:
            self._at = began
            names = ", ".join(self._grammar.fixed[entity])
            advice = f"tags and the like are written {self._entities()[0]}.NAME"
            raise self.refusal(f"one of the {entity} of {self._grammar.what}: {names}", advice)
        return entity, key, known

    def _take_name(self, bare: re.Pattern[str]) -> str:
        if self._next() in {"`", '"'}:
            return self._take_quoted()
        match = bare.match(self._text, self._at)
        if match is None:
            raise self.refusal("a name", 'one with spaces or signs is quoted: metrics.`odd one` or "odd one"')
        self._at = match.end()
        return match[0]

    def _take_quoted(self) -> str:
        """Read what stands in quotes; a quote in it is written twice. A backslash is a backslash."""
        quote, began, parts = self._text[self._at], self._at, []
        at = began + 1
        while True:
            end = self._text.find(quote, at)
            if end < 0:
                raise self.refusal(f"a closing {quote} of what begins there")
            parts.append(self._text[at:end])
            at = end + 1
            if self._text[at : at + 1] != quote:
                break
            parts.append(quote)
            at += 1
        self._at = at
        return "".join(parts)

    def _take_operator(self) -> Operator:
        sign = self._peek(_SIGN)
        if sign:
            self._at += len(sign)
            return Operator(sign)
        words = [self._take_word()]
        if words[0] in {"NOT", "IS"}:
            words.append(self._take_word())
        if words == ["IS", "NOT"]:
            words.append(self._take_word())
        try:
            return Operator(" ".join(words))
        except ValueError:
            self._at -= len(words[-1])
            names = " ".join(Operator)
            advice = "a key with spaces or signs is quoted: metrics.`odd-one`"
            raise self.refusal(f"an operator: {names}", advice) from None

    def _take_word(self) -> str:
        self._skip()
        word = self._peek(_WORD)
        self._at += len(word)
        return word.upper() if word.isascii() else word

    def _take_value(self, operator: Operator, known: Field) -> int | float | str | tuple[str, ...] | None:
        if operator.is_existence:
            return None
        self._skip()
        if operator.is_list:
            return self._take_list()
        if known.is_number:
            return self._take_number()
        began = self._at
        text = self._take_text()
        if operator.is_pattern and len(text) > _MAX_PATTERN_CHARS:
            self._at = began
            raise self.refusal(f"a pattern of at most {_MAX_PATTERN_CHARS:,} characters")
        return text

    def _take_number(self) -> int | float:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise self.refusal("a number")
        self._at = match.end()
        number = float(match[0])
        is_exact = _INTEGER.fullmatch(match[0]) is not None and abs(number) < _LARGE
        return int(match[0]) if is_exact else number

    def _take_text(self) -> str:
        self._skip()
        if self._next() not in {"'", '"'}:
            raise self.refusal("a text in quotes")
        return self._take_quoted()

    def _take_list(self) -> tuple[str, ...]:
        if self._next() != "(":
            raise self.refusal("a list in parentheses: ('a', 'b')")
        self._at += 1
        values = [self._take_text()]
        while True:
            self._skip()
            sign = self._next()
            if sign not in {",", ")"}:
                raise self.refusal("a comma or )")
            self._at += 1
            if sign == ")":
                return tuple(dict.fromkeys(values))
            values.append(self._take_text())

    def _knows(self, entity: Entity) -> bool:
        return entity in self._grammar.keyed or entity in self._grammar.fixed

    def _entities(self) -> list[Entity]:
        return [each for each in Entity if self._knows(each)]

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _peek(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        return match[0] if match else ""

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
