"""Values become bytes and come back: what Python itself brings, what is refused, what is damaged."""

import subprocess
import sys
import threading
from datetime import UTC, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pipelines.values_shapes import VALUES, VERSION, Colour, Frozen, Locked, Plain, Plan, Point

from noria.errors import ConfigError
from noria.pipelines.values.codec import Format, Payload, Unreadable, Unstorable, digest, dump, load, summary
from noria.records import sha256_hex

NOWHERE = Path("/nowhere")  # values need no scratch
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for machines at work
zones = (
    st.none() | st.timezones() | st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23)))
)
keys = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.datetimes(timezones=zones)
    | st.sampled_from(Colour)
    | st.builds(Point, st.integers(), st.floats(allow_nan=False))
)
hashables = keys | st.tuples(keys, keys) | st.frozensets(keys, max_size=4)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
        | st.builds(Plan, st.text(), st.sets(st.text()))
        | st.builds(lambda inside: Plain(inside=inside), inner)
    ),
    max_leaves=20,
)


def kept(value: object) -> Payload:
    return dump(value, scratch=NOWHERE, where="step 'clean', result")


def back(value: object) -> Any:
    payload = kept(value)
    assert payload.data is not None
    return load(payload.format, payload.data)


def told(value: object) -> str:
    """Give a text that tells values and types apart."""
    match value:
        case float() | complex() | Decimal() | Fraction():
            return f"{type(value).__name__} {value!r}"
        case set() | frozenset():
            return f"{type(value).__name__} {sorted(map(told, value))}"
        case dict():
            return f"dict {[(told(key), told(each)) for key, each in value.items()]}"
        case list() | tuple():
            return f"{type(value).__name__} {[told(each) for each in value]}"
        case Plan() | Plain():
            return f"{type(value).__name__} {told(vars(value))}"
        case _ if getattr(value, "tzinfo", None):
            return f"{value!r} {value.fold} {type(value.tzinfo)}"  # type: ignore[attr-defined]
        case _:
            return f"{type(value).__name__} {value!r}"


@CALM
@given(value=values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    payload = kept(value)
    assert told(back(value)) == told(value)
    assert payload.format is Format.VALUE
    assert payload.data is not None
    assert payload.sha256 == sha256_hex(payload.data) == digest(back(value), scratch=NOWHERE, where="again")
    assert payload.size_bytes == len(payload.data)


@CALM
@given(one=values, other=values)
def test_bytes_differ_where_values_or_types_do(one: Any, other: Any) -> None:
    assert (kept(one).data == kept(other).data) == (told(one) == told(other))


@pytest.mark.parametrize("name", VALUES)
def test_each_kind_of_value_comes_back(name: str) -> None:
    value = VALUES[name]
    assert told(back(value)) == told(value)
    assert kept(back(value)) == kept(value)


@pytest.mark.parametrize(
    "others",
    [
        [1, 1.0, True, "1", b"1", Decimal(1), Fraction(1), 1 + 0j, Colour.RED, 1 << 70],
        [0.0, -0.0, 0, False, None, "", b"", bytearray()],
        [[], (), {}, set(), frozenset(), range(0), Point(0)],
        [[1, 2], (1, 2), {1, 2}, frozenset({1, 2}), {1: 2}, [[1, 2]], [1, [2]], Point(1, 2), [2, 1]],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [Decimal("1"), Decimal("1.0"), Decimal("1.00")],
        [Plan("a"), Frozen(Point(1)), {"name": "a"}],
        [UTC, timezone(timedelta(0), "UTC"), ZoneInfo("UTC")],
    ],
)
def test_what_can_be_told_apart_has_other_bytes(others: list[Any]) -> None:
    assert len({kept(each).sha256 for each in others}) == len(others)


def test_all_nans_are_one() -> None:
    other = float.fromhex("inf") - float.fromhex("inf")
    assert kept(other) == kept(float("nan")) == kept(-float("nan"))
    assert kept([1.0, other]) == kept([1.0, float("nan")])


def test_the_order_of_a_set_does_not_matter_and_that_of_a_dict_does() -> None:
    texts = [str(each) for each in range(1_000)]
    other = set(texts[:1])
    other.update(reversed(texts))
    assert kept(set(texts)) == kept(other)
    assert list(back(dict.fromkeys(reversed(texts)))) == list(reversed(texts))


def test_the_bytes_of_today_are_those_of_tomorrow() -> None:
    assert kept(3).data == bytes.fromhex("01 57517b68 00000000 0100000000000000 03")
    assert kept({"a": (1, None)}).sha256 == (
        "d62fa3ee8c28e3d3c03ab839c3458134cfbf8a624a46e060710d58d6e3c8c35b"
    )
    assert kept([Plan("a", {"x", "y"}), Colour.RED, VERSION]).sha256 == (
        "1b09c63e83795c5c75ebb6823e8f0314134b6dee5ff21c717594261d1d131c3f"
    )


def test_a_copy_is_fresh_each_time() -> None:
    value = {"rows": [1, 2], "tags": {"a"}, "plan": Plan("a")}
    payload = kept(value)
    assert payload.data is not None
    first = load(Format.VALUE, payload.data)
    first["rows"].append(3)
    first["tags"].clear()
    first["plan"].name = "b"
    value["rows"] = []
    assert load(Format.VALUE, payload.data) == {"rows": [1, 2], "tags": {"a"}, "plan": Plan("a")}


def test_a_dataclass_is_not_made_again_but_copied() -> None:
    plan = Plan("a")
    plan.double = "changed"
    assert plan.length == 1  # a cached property is no state
    assert back(plan) == plan
    assert kept(plan) == kept(back(plan))
    assert "length" not in vars(back(plan))


def test_a_dataclass_with_more_than_its_fields_keeps_it() -> None:
    plan = Plan("a")
    plan.extra = [1]  # type: ignore[attr-defined]
    assert vars(back(plan)) == vars(plan)
    assert kept(plan) != kept(Plan("a"))


def test_a_value_is_read_from_a_file(tmp_path: Path) -> None:
    data = kept({"a": [1, (2, "x")]}).data
    assert data is not None
    (tmp_path / "value").write_bytes(data)
    assert load(Format.VALUE, tmp_path / "value") == {"a": [1, (2, "x")]}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


@pytest.mark.parametrize(
    ("value", "place", "found", "advice"),
    [
        ({"a": [1, 2, 3, (x for x in "")]}, "value['a'][3]", "type generator", "a list of its items"),
        (lambda: 1, "value", "<lambda>, which has no name in tests.pipelines.test_values", "at the top of"),
        ([Plain(a=[0, lambda: 1])], "value[0].a[1]", "<lambda>, which has no name", "at the top of"),
        ([Locked()], "value[0].inner['lock']", "type _thread.lock", "within the step"),
        ({"f": sys.stdout}, "value['f']", "type", "return plain values"),
        (sys, "value", "type module", "return plain values"),
        ([Path("a.csv")], "value[0]", "the path 'a.csv' within another value", "the Path by itself"),
        (Plan("a", {Path("x")}), "value.tags", "the path 'x'", "the Path by itself"),  # type: ignore[arg-type]
        ({1: Frozen(Point(1, Locked()))}, "value[1].point.y.inner['lock']", "lock", ""),  # type: ignore[arg-type]
        (nested(102), "value[0][0]", "nested deeper than 100", "flatter"),
        (circle(), "['again'][1]", "that contains itself", "break the circle"),
        (Path("/nowhere/at/all"), "value", "cannot be read (No such file", "that is there"),
        (Path("/dev/null"), "value", "neither a file nor a folder", "that is there"),
    ],
)
def test_what_has_no_bytes_is_told_with_its_place(value: object, place: str, found: str, advice: str) -> None:
    with pytest.raises(Unstorable) as caught:
        kept(value)
    assert isinstance(caught.value, ConfigError)
    assert place in caught.value.place
    assert found in caught.value.found
    assert advice in caught.value.advice
    assert str(caught.value).startswith("step 'clean', result: value")
    assert len(caught.value.place) <= 90


def class_of_a_function() -> type:
    class Local:
        pass

    return Local


def test_a_class_that_others_do_not_find_is_refused() -> None:
    with pytest.raises(Unstorable, match="Local, which has no name in tests"):
        kept([class_of_a_function()()])
    code = (
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from noria.pipelines.values.codec import Unstorable, digest\n"
        "@dataclass\n"
        "class Mine:\n"
        "    n: int\n"
        "class Other: pass\n"
        "for value in (Mine(1), Other(), [Mine], lambda: 1):\n"
        "    try:\n"
        "        digest(value, scratch=Path(), where='w')\n"
        "    except Unstorable as err:\n"
        "        print(err)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all("define it in a module and import it from there" in each for each in lines)


@pytest.mark.parametrize(
    "wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: Plain(a=inner)]
)
def test_the_deepest_value_comes_back_from_a_deep_stack(wrap: Any) -> None:
    value: Any = 1
    for _ in range(100):
        value = wrap(value)

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else back(value)

    assert deeper(200) == value


def test_the_same_list_twice_is_no_circle() -> None:
    shared = [1, 2]
    assert back([shared, {"a": shared}]) == [shared, {"a": shared}]


DATA = kept({"a": [1, 2, "x" * 50], "b": (1, {2})}).data or b""


@pytest.mark.parametrize("cut", range(len(DATA)))
def test_bytes_that_are_cut_off_are_unreadable(cut: int) -> None:
    with pytest.raises(Unreadable, match="run the step that made it again"):
        load(Format.VALUE, DATA[:cut])


@CALM
@given(at=st.integers(0, len(DATA) - 1), by=st.integers(1, 255))
def test_bytes_that_were_changed_are_unreadable(at: int, by: int) -> None:
    changed = bytearray(DATA)
    changed[at] ^= by
    with pytest.raises(Unreadable):
        load(Format.VALUE, bytes(changed))


def test_bytes_of_another_format_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="its format is 2, known is 1"):
        load(Format.VALUE, b"\x02" + DATA[1:])
    with pytest.raises(Unreadable, match="wanted are"):
        load(Format.VALUE, DATA + b"more")
    (tmp_path / "empty").touch()
    with pytest.raises(Unreadable, match="too few"):
        load(Format.VALUE, tmp_path / "empty")


def test_a_class_that_has_changed_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, colour, plain = (kept(each).data or b"" for each in (Plan("a"), Colour.RED, Plain(a=1)))
    home = "tests.pipelines.values_shapes"
    monkeypatch.setattr(f"{home}.Plan", Frozen)
    with pytest.raises(Unreadable, match="has no field 'name'"):
        load(Format.VALUE, plan)
    monkeypatch.setattr(f"{home}.Colour", str)
    with pytest.raises(Unreadable, match="no longer a class of its kind"):
        load(Format.VALUE, colour)
    monkeypatch.delattr(f"{home}.Plain")
    with pytest.raises(Unreadable, match="Plain"):
        load(Format.VALUE, plain)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (True, "True"),
        (None, "None"),
        ("2013-01", "'2013-01'"),
        ([1, 2], "list of 2"),
        ({"a": 1}, "dict of 1"),
        (b"abc", "bytes of 3"),
        (1 << 300, "int of 301 bits"),
        (Colour.RED, "Colour.RED"),
        (Point(1), "Point of 2"),
        (Plan("secret"), "Plan"),
        (VERSION, "dataset rides:3"),
        (timezone, "class timezone"),
        (kept, "function kept"),
        (Path("/somewhere/rides.csv"), "path 'rides.csv'"),
        (threading, "module"),
    ],
)
def test_a_summary_is_short(value: object, text: str) -> None:
    assert summary(value) == text


@CALM
@given(value=values)
def test_a_summary_fits_a_line(value: Any) -> None:
    assert len(summary(value)) <= 60


def test_importing_values_loads_no_engine() -> None:
    code = (
        "import sys, noria.pipelines.values as values, pathlib\n"
        "values.digest({'a': [1, (2, {3})]}, scratch=pathlib.Path(), where='w')\n"
        "print({'numpy', 'pyarrow', 'pandas', 'polars', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
