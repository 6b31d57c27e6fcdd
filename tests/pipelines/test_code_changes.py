"""Which line is said to have changed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.pipelines.code.changes import first_change

BASE = '''"""Steps."""

import math

limit = 3


@step(retries=2)
def clean(rows, limit=limit):
    """Drop the rest."""
    if rows:
        return [
            row
            for row in rows
            if row > limit
        ]
    else:
        return []


sizes = {
    "a": 1,
    "b": 2,
}
'''


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("limit = 3", "limit = 5", "line 5: `limit = 3` became `limit = 5`"),
        ("limit = 3", "# at most\n\nlimit=(5)", "line 7: `limit = 3` became `limit=(5)`"),
        ("limit = 3\n", "limit = 3\nother = 4\n", "line 6 was added: `other = 4`"),
        ("limit = 3\n", "", "line 5 was removed: `limit = 3`"),
        ("retries=2", "retries=3", "line 8: `@step(retries=2)` became `@step(retries=3)`"),
        ("row > limit", "row >= limit", "line 15: `if row > limit` became `if row >= limit`"),
        ('"b": 2,', '"b": 3,', 'line 23: `"b": 2,` became `"b": 3,`'),
        ("Drop the", "Keep the", 'line 10: `"""Drop the rest."""` became `"""Keep the rest."""`'),
        ("if rows:", "if not rows:", "line 11: `if rows:` became `if not rows:`"),
        ("return []", "return None", "line 18: `return []` became `return None`"),
        ("import math", "import cmath", "line 3: `import math` became `import cmath`"),
        (
            "    else:\n        return []",
            "    return []",
            "line 17: `return []` has other indentation or another place",
        ),
        ('"a": 1,\n    "b": 2,', "'a': 1, 'b': 5,", """line 22: `"b": 2,` became `'a': 1, 'b': 5,`"""),
        ("limit = 3", "# nothing but a note\nlimit = 3", "line 5 was added: `# nothing but a note`"),
    ],
)
def test_the_first_line_that_matters_is_told(old: str, new: str, told: str) -> None:
    assert old in BASE
    assert first_change("steps.py", BASE.encode(), BASE.replace(old, new, 1).encode()) == f"steps.py {told}"


def test_other_places_are_counted() -> None:
    after = BASE.replace("limit = 3", "limit = 5").replace("math", "cmath").replace('"b": 2', '"b": 3')
    told = first_change("steps.py", BASE.encode(), after.encode())
    assert told == "steps.py line 3: `import math` became `import cmath`, and 2 more places"
    told = first_change("steps.py", b"a = 1\nb = 1\n", b"a = 2\nb = 2\n")
    assert told == "steps.py line 1: `a = 1` became `a = 2`, and 1 more place"


@pytest.mark.parametrize(
    ("name", "before", "after", "told"),
    [
        ("q.sql", b"select 1\nfrom a", b"select 1\nfrom b", "q.sql line 2: `from a` became `from b`"),
        ("q.sql", b"a\n", b"a\nb\n", "q.sql line 2 was added: `b`"),
        ("q.sql", b"a\n", b"  a\n", "q.sql line 1: `a` has other indentation or another place"),
        ("q.sql", b"", b"a", "q.sql line 1 was added: `a`"),
        ("q.sql", b"a\r\n", b"a\n", "q.sql: 3 bytes became 2 bytes"),
        ("q.sql", b"a", b"a", "q.sql: nothing changed"),
        ("conf.json", b'{\n "a": 1}', b'{\n "a": 2}', 'conf.json line 2: `"a": 1}` became `"a": 2}`'),
        ("broken.py", b"def", b"def f", "broken.py line 1: `def` became `def f`"),
        ("x.bin", b"\0", b"\0" * 1500, "x.bin: 1 byte became 1,500 bytes"),
        ("x.bin", b"\xff", b"\xfe", "x.bin: other 1 byte"),
        ("x.txt", b"a" * 1_000_001, b"b", "x.txt: 1,000,001 bytes became 1 byte"),
        ("pack.steps", b"# a\nx = 1", b"# b\nx = 2", "pack.steps line 2: `x = 1` became `x = 2`"),
        (
            "u.py",
            b"x = u'a'; y = 1",
            b"x = 'a'; y = 2",
            "u.py line 1: `x = u'a'; y = 1` became `x = 'a'; y = 2`",
        ),
        (
            "l.py",
            "# coding: latin-1\nx = 'é'".encode("latin-1"),
            "x = 'à'".encode(),
            "l.py line 1: `x = 'é'` became `x = 'à'`",
        ),
    ],
)
def test_other_files(name: str, before: bytes, after: bytes, told: str) -> None:
    assert first_change(name, before, after) == told


def test_long_lines_are_cut_around_the_difference() -> None:
    before = b"x = '" + b"a" * 200 + b"1" + b"b" * 200 + b"'"
    told = first_change("steps.py", before, before.replace(b"1", b"2"))
    one = "…" + "a" * 20 + "1" + "b" * 51 + "…"
    assert told == f"steps.py line 1: `{one}` became `{one.replace('1', '2')}`"


def test_two_large_texts_are_compared_in_time() -> None:
    lines = [str(random.Random(seed).random()) for seed in range(20_000)]
    before, after = "\n".join(lines), "\n".join(reversed(lines))
    assert first_change("x.csv", before.encode(), after.encode()).endswith(", and 19,999 more places")


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from(["x.py", "x.sql", "pack.x"]))
def test_something_is_said_of_any_bytes(before: bytes, after: bytes, name: str) -> None:
    assert first_change(name, before, after).startswith(name)
