import math
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest

from noria.checks.declarations import Rule, between, expression, matches, not_null, one_of, unique
from noria.errors import ConfigError


def test_rules_survive_json() -> None:
    rules = [
        between("x", 1, 2.5),
        between("t", datetime(2013, 1, 1, tzinfo=UTC), None, severity="warn"),
        not_null("a", "b"),
        unique("a", "b", severity="block"),
        one_of("c", ["x", 1]),
        matches("c", "[a-z]+"),
        expression("a < b", name="in order"),
    ]
    assert [msgspec.json.decode(msgspec.json.encode(rule), type=Rule) for rule in rules] == rules
    assert len({rule.name for rule in rules}) == len(rules)


@pytest.mark.parametrize(
    "make",
    [
        lambda: between("x", None, None),
        lambda: between("x", 5, 1),
        lambda: between("x", 1, "z"),
        lambda: between("t", datetime(2013, 1, 1), None),
        lambda: not_null(),
        lambda: unique(),
        lambda: between("x", math.nan, 1),
        lambda: between("x", -math.inf, math.inf),
        lambda: between("x", math.inf, None),
        lambda: between("x", None, -math.inf),
        lambda: one_of("c", []),
        lambda: one_of("c", "abc"),
        lambda: one_of("c", ["a", None]),  # type: ignore[list-item]
        lambda: one_of("c", [math.nan]),
        lambda: one_of("c", [datetime(2013, 1, 1)]),
        lambda: one_of("c", [object()]),  # type: ignore[list-item]
        lambda: matches("c", "("),
        lambda: between("x", 1, 2, severity="loud"),
    ],
)
def test_what_cannot_be_meant_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError):
        make()


def test_declaring_loads_no_engine() -> None:
    heavy = "('numpy', 'pyarrow', 'duckdb', 'deltalake', 'sqlalchemy')"
    script = f"import sys, noria.checks, noria.lake; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_infinite_bounds_are_open_sides() -> None:
    assert between("x", -math.inf, 3) == between("x", None, 3)
    assert between("x", 3.0, math.inf) == between("x", 3.0, None)


def test_allowed_values_are_kept_as_texts_where_json_has_no_such_value() -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    rule = one_of("x", [at, date(2024, 1, 2), Decimal("1.50"), True, 5])
    assert rule.values == ("2024-01-01T00:00:00Z", "2024-01-02", "1.50", True, 5)
    assert msgspec.json.decode(msgspec.json.encode(rule), type=Rule) == rule
