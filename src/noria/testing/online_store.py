"""What every online store must do.

Subclass `OnlineStoreContract` and supply `location`, a place for one store, and `open_store`.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from noria.clock import to_micros
from noria.errors import LeaseHeld, NotFound, SourceError
from noria.features import FeatureView, agg
from noria.features.offline import point_in_time
from noria.features.online import OnlineStore
from noria.features.standing import Standing
from noria.features.value_columns import value_column
from noria.lake.declarations import Dataset

__all__ = ["OnlineStoreContract"]

_START = datetime(2024, 2, 27, tzinfo=UTC)
_INSTANT = pa.timestamp("us", tz="UTC")
_SALES = Dataset("sales", key="id", event_at="event_at", known_at="known_at")
_VIEW = FeatureView(
    "by_shop",
    source=_SALES,
    entity="shop",
    features={
        "n_6h": agg.count("6h"),
        "n_9d": agg.count("9d"),
        "mean_1d": agg.mean("amount", "1d"),
        "sum_9d": agg.sum("amount", "9d"),
        "least_3d": agg.min("amount", "3d"),
        "most_12h": agg.max("amount", "12h"),
        "p75_5d": agg.quantile("amount", 0.75, "5d", low=-50, high=50, width=2),
        "std_4d": agg.std("amount", "4d"),
        "different_3d": agg.distinct("amount", "3d", buckets=64),
        "first_1d": agg.first("amount", "1d"),
        "first_gain_6d": agg.first("amount", "6d", where=[("amount", ">", 0)]),
        "gains_2d": agg.count("2d", where=[("amount", ">", 0)]),
        "last": agg.last("amount"),
        "last_gain": agg.last("amount", where=[("amount", ">", 0)]),
        "age": agg.age(max_age="2d"),
        "faded_n": agg.decayed_count("1d"),
        "faded": agg.decayed_mean("amount", "9h"),
    },
)

_CHANGED = FeatureView("by_shop", source=_SALES, entity="shop", features={"n_6h": agg.count("7h")})


def _sales(seed: int, *, size: int = 400) -> pa.Table:
    random = Random(seed)
    events = [_START + timedelta(hours=random.randrange(24 * 20) / 2) for _ in range(size)]
    delays = [timedelta(minutes=random.choice((0, 10, 90, 60 * 24 * 4))) for _ in range(size)]
    amounts = [random.choice((None, random.randrange(-60, 60))) for _ in range(size)]
    known = [event + delay for event, delay in zip(events, delays, strict=True)]
    return pa.table(
        {
            "id": pa.array([f"s{at * 7 % size:04d}" for at in range(size)]),
            "event_at": pa.array(events, _INSTANT),
            "known_at": pa.array(known, _INSTANT),
            "shop": pa.array([random.choice(("", "a", "b", "ü" * 400, None)) for _ in range(size)]),
            "amount": pa.array(amounts, pa.int64()),
        }
    )


_TOLD = FeatureView(
    "told",
    source=_SALES,
    entity="shop",
    features={
        "n_50m": agg.count("50m"),
        "word": agg.last_text("word"),
        "gain_word": agg.last_text("word", max_age="3d", where=[("amount", ">", 0)]),
        "place": agg.embedding("place", 3),
        "words_5d": agg.top("word", 2, "5d", values=["a", "b", "ü"]),
        "amounts_2h": agg.top("amount", 1, "2h", values=range(-60, 60), resolution="minute"),
    },
    defaults={"word": "none", "words_5d": ["b"]},
)


def _told(rows: pa.Table) -> pa.Table:
    """Add a text and a vector to each row, which say what its amount is."""
    amounts = rows["amount"].to_pylist()
    words = [None if each is None else ("a", "b", "ü", "elsewhere")[each % 4] for each in amounts]
    places = [None if each is None else [each / 4, 0.0, float(at)] for at, each in enumerate(amounts)]
    rows = rows.append_column("word", pa.array(words, pa.string()))
    return rows.append_column("place", pa.array(places, pa.list_(pa.float64())))


_SHOPS = ["a", "b", "", "ü" * 400, "never seen", None]


def _offline(rows: pa.Table, at: datetime, view: FeatureView = _VIEW) -> Any:
    spine = pa.table({"shop": pa.array(_SHOPS), "at": pa.array([at] * len(_SHOPS), _INSTANT)})
    features = point_in_time(view, rows, spine)
    return np.column_stack([features.column(name).to_numpy() for name in features.column_names])


def _online(store: OnlineStore, at: datetime) -> Any:
    return store.read([_VIEW.spec()], {"shop": _SHOPS}, to_micros(at))


def _assert_same(found: Any, wanted: Any) -> None:
    """Hold exactly, but for what decays: to a relative 1e-9."""
    for at, name in enumerate(_VIEW.columns):
        tolerance = 1e-9 if "faded" in name else 0
        np.testing.assert_allclose(found[:, at], wanted[:, at], rtol=tolerance, atol=tolerance, err_msg=name)


class OnlineStoreContract:
    """Subclass it, and give the two things that follow."""

    @pytest.fixture
    def location(self, tmp_path: Path) -> Any:
        """Give where an empty store may be; a folder unless overridden."""
        return tmp_path / "online"

    def open_store(self, location: Any, *, readonly: bool = False, anew: bool = False) -> OnlineStore:
        """Open the store at `location`."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, location: Any) -> Any:
        """Give an open store, for writing."""
        store = self.open_store(location)
        yield store
        store.close()

    @pytest.mark.parametrize("seed", range(3))
    def test_rows_that_become_known_give_what_offline_gives(self, store: OnlineStore, seed: int) -> None:
        """Exactly, at every instant, in slices of any size, also after a load in the middle."""
        rows, random = _sales(seed), Random(seed)
        prepared = store.prepare(_VIEW, rows)
        done = 0
        for step in range(0, 24 * 13, 7):
            at = _START + timedelta(hours=step)
            if step == 7 * 12:
                store.load(_VIEW, rows, before=at)
                done = prepared.until(to_micros(at) - 1)
            stop = prepared.until(to_micros(at))
            while done < stop:
                following = min(stop, done + random.randrange(1, 9))
                store.apply([(_VIEW.spec(), prepared, done, following)])
                done = following
            store.apply([(_VIEW.spec(), prepared, done, done)], position=to_micros(at))
            _assert_same(_online(store, at), _offline(rows, at))
            assert store.position() == to_micros(at)

    def test_texts_vectors_and_lists_are_what_offline_gives(self, store: OnlineStore) -> None:
        """Exactly, beside numbers, in one reading that is as of one change."""
        rows = _told(_sales(4))
        prepared, done = store.prepare(_TOLD, rows), 0
        for step in range(0, 24 * 12, 31):
            at = _START + timedelta(hours=step)
            if step == 31 * 4:
                store.load(_TOLD, rows, before=at)
                done = prepared.until(to_micros(at) - 1)
            store.apply([(_TOLD.spec(), prepared, done, prepared.until(to_micros(at)))])
            done = prepared.until(to_micros(at))
            (found,) = store.read_values([_TOLD.spec()], {"shop": _SHOPS}, to_micros(at))
            spine = pa.table({"shop": pa.array(_SHOPS), "at": pa.array([at] * len(_SHOPS), _INSTANT)})
            wanted = point_in_time(_TOLD, rows, spine)
            for name, feature in zip(_TOLD.columns, _TOLD.spec().features, strict=True):
                column = value_column(found[name], feature)
                assert repr(column.to_pylist()) == repr(wanted[name].to_pylist()), name  # NaN is NaN
            numbers = store.read([_TOLD.spec()], {"shop": _SHOPS}, to_micros(at))
            np.testing.assert_array_equal(numbers[:, 0], wanted["told__n_50m"].to_numpy())

    def test_load_replaces_the_view(self, store: OnlineStore) -> None:
        """Nothing of what was there before is left."""
        at = _START + timedelta(days=20)
        store.load(_VIEW, _sales(1), before=at)
        store.load(_VIEW, _sales(2, size=5), before=at)
        _assert_same(_online(store, at), _offline(_sales(2, size=5), at))

    def test_prune_changes_no_value_from_then_on(self, store: OnlineStore) -> None:
        """Only what no window reaches goes."""
        rows, at = _sales(3), _START + timedelta(days=11)
        store.load(_VIEW, rows, before=_START + timedelta(days=8))
        later = rows.filter(pc.field("known_at") >= pa.scalar(_START + timedelta(days=8), _INSTANT))
        store.prune(_VIEW, _START + timedelta(days=8))
        prepared = store.prepare(_VIEW, later)
        store.apply([(_VIEW.spec(), prepared, 0, prepared.until(to_micros(at)))])
        store.prune(_VIEW, at)
        _assert_same(_online(store, at), _offline(rows, at))

    def test_a_changed_definition_is_kept_beside_the_one_it_was(self, store: OnlineStore) -> None:
        """Each gives its own values; one that is not there is told with what is."""
        rows, at = _sales(1), _START + timedelta(days=11)
        store.load(_VIEW, rows, before=at)
        with pytest.raises(
            NotFound, match=rf"by_shop.*{_VIEW.spec().digest[:12]}.*noria feature materialize"
        ):
            store.read([_CHANGED.spec()], {"shop": ["a"]}, to_micros(at))
        prepared = store.prepare(_CHANGED, rows)
        store.apply([(_CHANGED.spec(), prepared, 0, prepared.until(to_micros(at) - 1))])
        _assert_same(_online(store, at), _offline_before(rows, at))
        both = store.read([_CHANGED.spec(), _VIEW.spec()], {"shop": _SHOPS}, to_micros(at))
        np.testing.assert_array_equal(both[:, 0], _offline_before(rows, at, view=_CHANGED)[:, 0])
        _assert_same(both[:, 1:], _offline_before(rows, at))
        digests = tuple(sorted(each.spec().digest for each in (_VIEW, _CHANGED)))
        assert store.views() == ["by_shop"]
        assert store.definitions() == {"by_shop": digests}
        assert sorted(each.digest for each in store.specs()) == list(digests)

    def test_clearing_a_definition_leaves_the_other(self, store: OnlineStore) -> None:
        """The one that is cleared is not found from then on."""
        rows, at = _sales(2), _START + timedelta(days=11)
        store.load(_CHANGED, rows, before=at)
        store.load(_VIEW, rows, before=at)
        store.clear(_CHANGED)
        assert store.specs() == [_VIEW.spec()]
        _assert_same(_online(store, at), _offline_before(rows, at))
        with pytest.raises(NotFound):
            store.read([_CHANGED.spec()], {"shop": ["a"]}, to_micros(at))
        store.load(_CHANGED, rows, before=at)
        assert store.definitions() == {
            "by_shop": tuple(sorted(each.spec().digest for each in (_VIEW, _CHANGED)))
        }

    def test_where_a_view_stands_is_kept_with_the_change(self, location: Any) -> None:
        """By definition, and gone once rows are counted without saying how far."""
        rows, spec = _sales(3), _VIEW.spec()
        one, other = (Standing(table="t", version=each, known_us=each, at_us=9) for each in (1, 2))
        store = self.open_store(location)
        assert store.standing(_VIEW) is None
        store.load(_VIEW, rows.slice(0, 50), standing=one)
        store.apply([], standings=[(_CHANGED.spec(), other)])
        assert (store.standing(_VIEW), store.standing(_CHANGED)) == (one, other)
        store.close()
        reading = self.open_store(location, readonly=True)
        assert (reading.standing(spec), reading.standing(_CHANGED)) == (one, other)
        reading.close()
        store = self.open_store(location)
        prepared = store.prepare(_VIEW, rows.slice(50))
        store.apply([(spec, prepared, 0, 9)], standings=[(spec, other)])
        assert store.standing(_VIEW) == other
        store.prune(_VIEW, _START)
        store.apply([(spec, prepared, 9, 9)], position=4)
        assert store.standing(_VIEW) == other
        store.apply([(spec, prepared, 9, 10)])
        assert store.standing(_VIEW) is None
        store.load(_VIEW, rows)
        assert (store.standing(_VIEW), store.standing(_CHANGED)) == (None, other)
        store.close()

    def test_a_store_is_made_anew(self, location: Any) -> None:
        """Nothing of what was there is left."""
        store = self.open_store(location)
        store.load(_VIEW, _sales(1), position=5)
        store.close()
        store = self.open_store(location, anew=True)
        assert (store.views(), store.position()) == ([], None)
        store.load(_VIEW, _sales(2))
        store.close()
        again = self.open_store(location, readonly=True)
        at = _START + timedelta(days=40)
        _assert_same(_online(again, at), _offline(_sales(2), at))
        again.close()

    def test_an_unknown_view_is_not_found(self, store: OnlineStore) -> None:
        """Also after it was cleared."""
        with pytest.raises(NotFound):
            store.read([_VIEW.spec()], {"shop": ["a"]}, 0)
        store.load(_VIEW, _sales(1))
        assert store.views() == ["by_shop"]
        store.clear(_VIEW)
        assert store.views() == []
        with pytest.raises(NotFound):
            store.read([_VIEW.spec()], {"shop": ["a"]}, 0)

    def test_a_missing_entity_column_is_a_source_error(self, store: OnlineStore) -> None:
        """It names what is missing and what there is."""
        store.load(_VIEW, _sales(1))
        with pytest.raises(SourceError, match="'shop'"):
            store.read([_VIEW.spec()], {"store": ["a"]}, 0)

    def test_what_was_written_is_there_after_opening_again(self, location: Any) -> None:
        """A store outlives the process."""
        at, rows = _START + timedelta(days=6), _sales(5)
        store = self.open_store(location)
        store.load(_VIEW, rows, before=at, position=77)
        store.close()
        again = self.open_store(location, readonly=True)
        _assert_same(_online(again, at), _offline_before(rows, at))
        assert again.position() == 77
        again.close()

    def test_a_second_writer_is_refused(self, location: Any) -> None:
        """Until the first one closes."""
        first = self.open_store(location)
        with pytest.raises(LeaseHeld):
            self.open_store(location)
        first.close()
        self.open_store(location).close()


def _offline_before(rows: pa.Table, at: datetime, *, view: FeatureView = _VIEW) -> Any:
    return _offline(rows.filter(pc.field("known_at") < pa.scalar(at, _INSTANT)), at, view)
