import subprocess
import sys
from datetime import UTC, datetime

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
        lambda: one_of("c", []),
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
