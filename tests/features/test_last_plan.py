"""Many entities of a view of last rows are read at once, as one by one, and as offline."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import StoreDamaged
from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.bulk_values import entity_values
from noria.features.offline import point_in_time
from noria.features.prepared import prepare
from noria.features.view_plan import ViewPlan
from noria.lake.declarations import Dataset

SOURCE = Dataset("readings", key="id", event_at="event_at", known_at="known_at")
VIEW = FeatureView(
    "meter", source=SOURCE, entity="who", defaults={"level": -1.0},
    features={
        "age": agg.age(), "level": agg.last("level", max_age="1h"), "heat": agg.last("heat"),
        "fresh": agg.age(max_age="2h"), "young": agg.last("heat", max_age="30m"),
    },
)  # fmt: skip
MINUTE = 60_000_000
NOW = 300 * MINUTE
EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abcdefghij"),
        st.integers(-200, 300),
        st.integers(0, 100),
        st.none() | st.integers(0, 9),
        st.none() | st.floats(-5, 5),
    ),
    max_size=40,
)


def rows_of(events: list[tuple[Any, ...]]) -> pa.Table:
    instant = pa.timestamp("us", "UTC")
    return pa.table({
        "id": pa.array(range(len(events)), pa.int64()),
        "who": pa.array([each[0] for each in events], pa.string()),
        "event_at": pa.array([each[1] * MINUTE for each in events], pa.int64()).cast(instant),
        "known_at": pa.array([max(each[1], each[1] + each[2]) * MINUTE for each in events], pa.int64()).cast(
            instant
        ),
        "level": pa.array([each[3] for each in events], pa.int64()),
        "heat": pa.array([each[4] for each in events], pa.float64()),
    })  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_many_are_as_one_by_one_and_as_offline(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[Any, ...]]
) -> None:
    rows = rows_of([each for each in events if each[1] + each[2] <= 300])
    asked = [*"abcdefghijk", None, "a"]
    with LmdbOnlineStore(tmp_path_factory.mktemp("online")) as store:
        store.load(VIEW, rows)
        many = store.read([VIEW.spec()], {"who": asked}, NOW)
        alone = np.vstack([store.read([VIEW.spec()], {"who": [each]}, NOW) for each in asked])
    np.testing.assert_array_equal(many, alone)
    instants = pa.array([NOW] * len(asked), pa.int64()).cast(pa.timestamp("us", "UTC"))
    spine = pa.table({"who": pa.array(asked, pa.string()), "at": instants})
    offline = point_in_time(VIEW, rows, spine)
    np.testing.assert_array_equal(many, np.column_stack([each.to_numpy() for each in offline.columns]))


@pytest.mark.parametrize("cut", [0, 20, 40, 60, -1])
def test_a_damaged_value_is_told(cut: int) -> None:
    plan = ViewPlan(VIEW.spec(), "somewhere")
    ((_, value),) = entity_values(prepare(VIEW, rows_of([("a", 1, 0, 2, 3.0)])), 1)
    keys = [b"=%d" % each for each in range(8)]
    kept = dict.fromkeys(keys, value)

    def get(key: bytes) -> memoryview:
        return memoryview(kept[key])

    assert len(plan.read(get, keys, NOW)) == 8
    kept[keys[3]] = value[:cut]
    with pytest.raises(StoreDamaged, match="damaged value in view 'meter'"):
        plan.read(get, keys, NOW)
