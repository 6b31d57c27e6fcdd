"""Texts, vectors and lists, defaults and ttl, windows by the minute: what is declared and what is refused."""

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from noria.clock import to_micros
from noria.errors import ConfigError, SourceError, StoreDamaged
from noria.features import FeatureView, ViewSpec, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.declarations import Tier
from noria.features.offline import point_in_time
from noria.features.online_format import values_key
from noria.features.telling import rule_of
from noria.lake.declarations import Dataset

AT = datetime(2013, 3, 1, 12, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
SOURCE = Dataset("things", key="id", event_at="event_at", known_at="event_at")
SPINE = pa.table({"who": ["a", "b", None], "at": pa.array([AT] * 3, INSTANT)})
VIEW = FeatureView(
    "v",
    source=SOURCE,
    entity="who",
    features={"n": agg.count("1d"), "said": agg.last_text("said"), "at": agg.embedding("at", 2)},
)


def view(*, ttl: str | None = None, defaults: Any = None, **features: Any) -> FeatureView:
    return FeatureView("v", source=SOURCE, entity="who", features=features, ttl=ttl, defaults=defaults or {})


def things(**columns: Any) -> pa.Table:
    size = len(next(iter(columns.values())))
    events = [AT - timedelta(minutes=size - 1 - number) for number in range(size)]
    given = {"id": [*range(size)], "event_at": pa.array(events, INSTANT), "who": ["a"] * size}
    return pa.table({**given, **columns})


def ask(given: FeatureView, rows: pa.Table) -> list[dict[str, Any]]:
    return [
        {name[3:]: value for name, value in row.items()}
        for row in point_in_time(given, rows, SPINE).to_pylist()
    ]


def test_the_digest_of_a_definition_without_anything_new_is_what_it_was() -> None:
    source = Dataset("things", key="id", event_at="event_at")
    features = {
        "n": agg.count("6h"),
        "p": agg.quantile("x", 0.9, "30d", low=0, high=10, width=1),
        "d": agg.distinct("x", "2d", where=[("y", "in", ["a", "b"])]),
        "l": agg.last("x"),
        "f": agg.decayed_mean("x", "1d"),
    }
    spec = FeatureView("v", source=source, entity="who", features=features).spec()
    assert spec.digest == "fd8610c73cc1090a37c26c560b864335b8b75fa126d18f24d43cf2d0803eaa5e"


def test_all_that_is_declared_survives_the_wire() -> None:
    spec = view(
        ttl="9d",
        defaults={"n": 1, "said": "nothing", "at": [1, 2], "top": ["b"], "number": [3]},
        n=agg.mean("x", "1h", resolution="minute"),
        said=agg.last_text("said"),
        at=agg.embedding("at", 2),
        top=agg.top("said", 1, "1d", values=["b", "a"]),
        number=agg.top("x", 1, "1d", values=[3, 1]),
    ).spec()
    again = msgspec.json.decode(msgspec.json.encode(spec), type=ViewSpec)
    assert (again, again.digest) == (spec, spec.digest)
    assert [each.default for each in spec.features] == [1.0, "nothing", (1.0, 2.0), ("b",), (3,)]
    assert [each.type for each in spec.features] == ["number", "text", "vector", "list", "list"]
    assert (spec.number_columns, spec.is_numbers_only) == (("v__n",), False)


def test_types_are_those_of_the_declaration_whatever_the_rows() -> None:
    given = view(
        said=agg.last_text("said"), at=agg.embedding("at", 2), top=agg.top("said", 1, "1d", values=["b"])
    )
    types = [pa.string(), pa.list_(pa.float32(), 2), pa.list_(pa.string())]
    for rows in (things(said=["b"], at=[[1, 2]]), things(said=pa.nulls(1), at=pa.nulls(1)).slice(0, 0)):
        assert point_in_time(given, rows, SPINE).schema.types == types


def test_the_latest_text_and_vector_are_those_of_one_row() -> None:
    rows = things(said=["x", "y", None], at=[[1, 2], None, [0.5, None]])
    first, unseen, missing = ask(VIEW, rows)
    assert (first["n"], first["said"]) == (3, None)
    np.testing.assert_array_equal(first["at"], [0.5, np.nan])
    assert (unseen["n"], unseen["said"], unseen["at"]) == (0, None, None)
    assert np.isnan(missing["n"]) and (missing["said"], missing["at"]) == (None, None)
    assert ask(VIEW, rows.slice(0, 2))[0]["said"] == "y"


def test_a_default_stands_wherever_there_is_no_value() -> None:
    given = view(
        defaults={"mean": 0.2, "n": 5, "said": "-", "at": (1, 2), "top": ["c"]},
        mean=agg.mean("x", "1d"),
        n=agg.count("1d"),
        said=agg.last_text("said"),
        at=agg.embedding("at", 2),
        top=agg.top("said", 2, "1d", values=["a", "b", "c"]),
    )
    rows = things(x=pa.array([None], pa.int64()), said=pa.array([None], pa.string()), at=pa.nulls(1))
    nothing = {"mean": 0.2, "said": "-", "at": [1, 2], "top": ["c"]}
    assert ask(given, rows) == [{**nothing, "n": 1}, {**nothing, "n": 0}, {**nothing, "n": 5}]


def test_the_most_frequent_come_first_and_of_equals_the_lesser() -> None:
    given = view(
        top=agg.top("said", 2, "1d", values=["é", "b", "a"]),
        whole=agg.top("x", 3, "1d", values=[5, -1, 7]),
        lately=agg.top("said", 2, "1m", values=["a", "b"]),
    )
    rows = things(said=["b", "other", "é", "a", None], x=[7, 7, 5, -1, None])
    assert ask(given, rows)[0] == {"top": ["a", "b"], "whole": [7, -1, 5], "lately": ["a"]}
    assert ask(given, rows)[1] == {"top": None, "whole": None, "lately": None}


def test_whole_numbers_without_a_sign_are_counted_as_they_are() -> None:
    given = view(
        top=agg.top("x", 3, "1d", values=[-1, 0, 7, 2**63 - 1]), less=agg.top("x", 1, "1d", values=[-1, 5])
    )
    rows = things(x=pa.array([0, 0, 7, 2**64 - 1, None], pa.uint64()))
    assert ask(given, rows)[0] == {"top": [0, 7], "less": None}


def test_a_window_by_the_minute_begins_with_a_full_minute() -> None:
    given = view(n=agg.count("2m"), hour=agg.count("1h", resolution="minute"), wide=agg.count("1h"))
    rows = things(x=[0] * 200)
    assert ask(given, rows)[0] == {"n": 3, "hour": 61, "wide": 61}
    late = pa.table({"who": ["a"], "at": pa.array([AT + timedelta(minutes=59, seconds=59)], INSTANT)})
    assert point_in_time(given, rows, late).to_pylist() == [{"v__n": 0, "v__hour": 2, "v__wide": 61}]
    assert agg.count("59m").tier == agg.count("3h", resolution="minute").tier == Tier.MINUTE
    assert agg.count("1h").tier == Tier.HOUR


def test_nothing_looks_back_further_than_the_ttl() -> None:
    given = view(
        ttl="2m", last=agg.last("x"), age=agg.age(max_age="1m"), said=agg.last_text("said"), n=agg.count("2m")
    )
    assert [rule_of(each.aggregation) for each in given.spec().features] == [
        *("last(x, 2m)", "age(1m)", "last_text(said, 2m)", "count(2m)")
    ]
    assert given.spec().longest_window_s == 120
    rows = things(x=[1], said=["x"])
    for minutes, last in ((2, 1.0), (3, None)):
        spine = pa.table({"who": ["a"], "at": pa.array([AT + timedelta(minutes=minutes)], INSTANT)})
        (found,) = point_in_time(given, rows, spine).to_pylist()
        assert (found["v__last"] if last else None) == last
        assert found["v__said"] == ("x" if last else None)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: agg.count("30s"), "shorter than a minute"),
        (lambda: agg.count("4h", resolution="minute"), "3 hours at most"),
        (lambda: agg.count("2h", resolution="hour"), "'minute' can"),
        (lambda: agg.embedding("v", 0), "no whole number from 1 to 4096"),
        (lambda: agg.top("x", 1, "1d", values=["a", 1]), "texts, or integers"),  # type: ignore[arg-type]
        (lambda: agg.top("x", 1, "1d", values=["a", "a"]), "each once"),
        (lambda: agg.top("x", 1, "1d", values=[]), "each once"),
        (lambda: agg.top("x", 3, "1d", values=["a", "b"]), "no whole number from 1 to 2"),
        (lambda: agg.top("x", 1, "1d", values=[2**63]), "beyond 64 bits"),
        (lambda: agg.top("x", 1, "1d", values="EWR"), "the text 'EWR'.*its letters"),
        (lambda: agg.by("x", "EWR", agg.count("1d")), "the text 'EWR'.*its letters"),
        (lambda: agg.top("x", 1, "1d", values=["\ud800"]), "no valid text"),
        (lambda: agg.top("x", 1.5, "1d", values=["a", "b"]), "k = 1.5 .* whole number"),  # type: ignore[arg-type]
        (lambda: agg.top("x", True, "1d", values=["a", "b"]), "k = True .* whole number"),
        (lambda: agg.embedding("x", 2.0), "dimensions = 2.0 .* whole number"),  # type: ignore[arg-type]
        (lambda: agg.distinct("x", "1d", buckets="64"), "buckets = '64' .* whole number"),  # type: ignore[arg-type]
        (lambda: agg.sum("x", "1d", scale=1.5), "scale = 1.5 .* whole number"),  # type: ignore[arg-type]
        (lambda: agg.quantile("x", 0.5, "1d", low=0, high=float("inf"), width=1), "high = inf .* number"),
        (lambda: agg.quantile("x", 0.5, "1d", low=float("nan"), high=1, width=1), "low = nan .* number"),
        (lambda: agg.quantile("x", "0.5", "1d", low=0, high=1, width=1), "q = '0.5' .* number"),  # type: ignore[arg-type]
        (lambda: agg.count(7), "7 is no duration"),  # type: ignore[arg-type]
        (lambda: agg.count("99999999999d"), "longer than ten thousand years"),
        (lambda: agg.last("x", max_age="200000000d"), "longer than ten thousand years"),
        (lambda: view(ttl="200000000d", n=agg.count("2d")), "longer than ten thousand years"),
        (lambda: view(v=agg.embedding("x", 2), v_1=agg.count("1d")), "two columns 'v__v_1'.*embedding"),
        (lambda: view(ttl="1d", n=agg.count("2d")), "looks back 172800 seconds, ttl = '1d' is 86400"),
        (lambda: view(ttl="1d", n=agg.last("x", max_age="2d")), "looks back"),
        (lambda: view(ttl="1d", n=agg.decayed_count("1h")), "decays"),
        (lambda: view(ttl="soon", n=agg.count("2d")), "ttl of view 'v'"),
        (lambda: view(defaults={"m": 1}, n=agg.count("1d")), "no feature of it; there is n"),
        (lambda: view(defaults={"n": "x"}, n=agg.count("1d")), "wanted is a number"),
        (lambda: view(defaults={"n": float("nan")}, n=agg.count("1d")), "wanted is a number"),
        (lambda: view(defaults={"n": 1}, n=agg.last_text("x")), "wanted is a text"),
        (lambda: view(defaults={"n": "\ud800"}, n=agg.last_text("x")), "wanted is a text"),
        (lambda: view(defaults={"n": 10**400}, n=agg.count("1d")), "wanted is a number"),
        (lambda: view(defaults={"n": AT}, n=agg.count("1d")), "wanted is a number"),
        (lambda: view(defaults={"n": [1, 1e39]}, n=agg.embedding("x", 2)), "wanted is 2 numbers"),
        (lambda: view(defaults={"n": [2**63]}, n=agg.top("x", 1, "1d", values=[1])), "at most 1 values"),
        (lambda: view(defaults={"n": [1]}, n=agg.embedding("x", 2)), "wanted is 2 numbers"),
        (lambda: view(defaults={"n": [1]}, n=agg.top("x", 1, "1d", values=["a"])), "at most 1 values"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_declared(wrong: Callable[[], Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        wrong()


@pytest.mark.parametrize(
    ("feature", "column", "told"),
    [
        (agg.last("x"), ["a"], "there is `agg.last_text`"),
        (agg.last_text("x"), [1], "needs a column of texts"),
        (agg.embedding("x", 2), ["a"], "needs lists of 2 numbers"),
        (agg.embedding("x", 2), [[1, 2, 3]], "1 vectors of column 'x' have not 2 elements"),
        (agg.top("x", 1, "1d", values=["a"]), [1], "the values to count are texts"),
        (agg.top("x", 1, "1d", values=[1]), ["a"], "the values to count are integers"),
    ],
)
def test_a_column_of_another_type_is_refused(feature: Any, column: list[Any], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        ask(view(f=feature), things(x=column))


@pytest.mark.parametrize(("half_lives", "left"), [(900, True), (1_020, False), (5_000, False)])
def test_a_mean_of_which_nothing_is_left_is_missing_offline_and_online(
    tmp_path: Path, half_lives: int, left: bool
) -> None:
    trips = Dataset("trips", key="id", event_at="at", known_at="at")
    view = FeatureView("v", source=trips, entity="who", features={"mean": agg.decayed_mean("n", "1h")})
    instant, then = pa.timestamp("us", "UTC"), datetime(2024, 3, 1, tzinfo=UTC)
    rows = pa.table({"id": ["a"], "at": pa.array([then], instant), "who": ["ada"], "n": [7]})
    asked = then + timedelta(hours=half_lives)
    spine = pa.table({"who": ["ada"], "at": pa.array([asked], instant)})
    offline = point_in_time(view, rows, spine)["v__mean"].to_pylist()
    with LmdbOnlineStore(tmp_path / "online", map_size=1 << 20) as store:
        store.load(view, rows)
        online = store.read([view.spec()], {"who": ["ada"]}, to_micros(asked))[:, 0]
    np.testing.assert_array_equal(offline, [7.0 if left else np.nan])
    np.testing.assert_array_equal(online, offline)


def test_what_decays_is_as_of_its_newest_row_where_the_clock_was_set_back(tmp_path: Path) -> None:
    given = view(n=agg.decayed_count("1s"), mean=agg.decayed_mean("x", "1s"))
    with LmdbOnlineStore(tmp_path) as store:
        store.load(given, things(x=[1]))
        for back in (timedelta(), timedelta(minutes=1), timedelta(days=1)):
            assert store.read([given.spec()], {"who": ["a"]}, to_micros(AT - back)).tolist() == [[1.0, 1.0]]


WRITER = """
import sys
from pathlib import Path
from noria.features.backends.lmdb import LmdbOnlineStore
from tests.features.test_kinds import VIEW, numbered
store = LmdbOnlineStore(Path(sys.argv[1]))
prepared = store.prepare(VIEW, numbered(5_000))
for at in range(0, 5_000, 2):
    store.apply([(VIEW.spec(), prepared, at, at + 2)], position=at + 2)
    if at == 40:
        print("going", flush=True)
"""


def numbered(size: int) -> pa.Table:
    """Give rows of which the text and the vector tell how many there were."""
    return things(
        said=[f"after {number + 1}" for number in range(size)], at=[[number + 1, 0] for number in range(size)]
    )


def test_a_killed_writer_leaves_number_text_and_vector_of_one_change(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "going\n"
        writer.send_signal(signal.SIGKILL)
    with LmdbOnlineStore(tmp_path) as store:
        count = store.position()
        assert count is not None and 42 <= count < 5_000
        (found,) = store.read_values([VIEW.spec()], {"who": ["a"]}, to_micros(AT))
        assert found["v__said"] == [f"after {count}"]
        assert [each.tolist() for each in found["v__at"]] == [[count, 0]]  # type: ignore[union-attr]


def test_a_text_that_was_replaced_is_nowhere_after_a_scrub(tmp_path: Path) -> None:
    with LmdbOnlineStore(tmp_path) as store:
        store.load(VIEW, things(said=["a secret"], at=[[1, 2]]))
        assert b"a secret" in (tmp_path / "data.mdb").read_bytes()
        store.load(VIEW, things(said=["a fact"], at=[[1, 2]]))
        store.scrub()
        raw = (tmp_path / "data.mdb").read_bytes()
        assert (raw.count(b"a secret"), b"a fact" in raw) == (0, True)


@pytest.mark.parametrize("damage", [b"", b"\x91", msgspec.msgpack.encode([[1, b"", ["x"]]])])
def test_damaged_texts_are_told(tmp_path: Path, damage: bytes) -> None:
    with LmdbOnlineStore(tmp_path) as store:
        prepared = store.prepare(VIEW, things(said=["x", "y"], at=[[1, 2], [3, 4]]))
        store.apply([(VIEW.spec(), prepared, 0, 1)])
        database = store._database(prepared.layout)
        with store._environment.begin(write=True) as txn:
            txn.put(values_key(b"=a"), damage, db=database)
        with pytest.raises(StoreDamaged, match="load the view again"):
            store.read_values([VIEW.spec()], {"who": ["a"]}, to_micros(AT))
