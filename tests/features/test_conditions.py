"""Which rows count: conditions and groups, and what is said of those that make no sense."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from noria import agg
from noria.errors import ConfigError, SourceError
from noria.features import FeatureView
from noria.features.offline import point_in_time
from noria.lake.declarations import Dataset

AT = datetime(2024, 2, 29, 12, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
SOURCE = Dataset("source", key="id", event_at="event_at", known_at="known_at")
ROWS = pa.table(
    {
        "id": ["1", "2", "3", "4"],
        "event_at": pa.array([AT] * 4, INSTANT),
        "known_at": pa.array([AT] * 4, INSTANT),
        "who": ["a"] * 4,
        "n": [1, 2, None, 4],
        "x": [0.5, float("nan"), None, float("inf")],
        "text": ["b", None, "", "ž"],
        "flag": [True, False, None, True],
        "list": [[1], [2], [3], None],
    }
)


def counted(where: Any) -> float:
    view = FeatureView("v", source=SOURCE, entity="who", features={"n": agg.count("1d", where=where)})
    spine = pa.table({"who": ["a"], "at": pa.array([AT], INSTANT)})
    value: float = point_in_time(view, ROWS, spine)["v__n"][0].as_py()
    return value


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ([("n", "==", 2)], 1),
        ([("n", "!=", 2)], 2),
        ([("n", "<", 2.5)], 2),
        ([("n", ">=", 2), ("flag", "==", True)], 1),
        ([("n", "in", [1, 4, 9])], 2),
        ([("n", "not in", (1, 9))], 2),
        ([("x", "!=", 0.5)], 1),  # infinite, but not what is no number
        ([("x", ">", 0)], 2),
        ([("text", "==", "")], 1),
        ([("text", "not in", ["b"])], 2),
        ([("text", ">", "b")], 1),
        ([("flag", "!=", True)], 1),
        ([("flag", "in", [True, False])], 3),
        ([], 4),
        ((), 4),
    ],
)
def test_what_is_missing_fulfils_nothing(where: Any, rows: int) -> None:
    assert counted(where) == rows


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ([("n", "=", 2)], "'=' in `where` of 'count' compares nothing; there is ==, !=, <"),
        ([("n", "in", "ab")], "wants several values, not 'ab'"),
        ([("n", "in", [])], "are not one or more texts, numbers or bools of one kind"),
        ([("n", "in", [1, "a"])], "of one kind"),
        ([("n", "in", [1, None])], "of one kind"),
        ([("n", "==", None)], "None in `where` of 'count' is no text, number or bool"),
        ([("n", "==", float("nan"))], "is no text, number or bool"),
        ([("n", "==")], "is no condition"),
        ("n == 2", "is no condition; write [(column, comparison, value)]"),
        ([7], "is no condition"),
    ],
)
def test_conditions_that_are_none_are_refused_at_once(where: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        agg.count("1d", where=where)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ([("nowhere", "==", 2)], "column 'nowhere' is missing"),
        ([("text", "==", 2)], "column 'text' is string; it cannot be compared with 2 (==)"),
        ([("n", "==", "2")], "column 'n' is int64; it cannot be compared with '2' (==)"),
        ([("list", "==", 1)], "it cannot be compared with 1"),
    ],
)
def test_conditions_that_do_not_fit_the_data_say_so(where: Any, told: str) -> None:
    with pytest.raises(SourceError) as refused:
        counted(where)
    assert told in str(refused.value)


def test_groups_are_features_of_their_own() -> None:
    view = FeatureView(
        "v",
        source=SOURCE,
        entity="who",
        features={
            "n": agg.by("flag", [True, False], agg.count("1d", where=[("n", ">", 0)])),
            "last": agg.by("text", ["b", "ž", "q"], agg.last("n")),
        },
    )
    assert view.columns == ("v__n_True", "v__n_False", "v__last_b", "v__last_ž", "v__last_q")
    spine = pa.table({"who": ["a"], "at": pa.array([AT], INSTANT)})
    (values,) = point_in_time(view, ROWS, spine).to_pylist()
    assert np.isnan(values.pop("v__last_q"))
    assert list(values.values()) == [2.0, 1.0, 1.0, 4.0]


@pytest.mark.parametrize("values", [[], ["a", "a"], [1, "1"]])
def test_groups_are_each_named_once(values: list[Any]) -> None:
    with pytest.raises(ConfigError, match="give values, each once"):
        agg.by("text", values, agg.count("1d"))


def test_a_group_may_not_take_the_name_of_a_feature() -> None:
    features: dict[str, agg.Aggregation | agg.Grouped] = {
        "n_a": agg.count("1d"),
        "n": agg.by("text", ["a"], agg.count("1d")),
    }
    with pytest.raises(ConfigError, match="two features 'n_a'"):
        FeatureView("v", source=SOURCE, entity="who", features=features)


def test_infinite_values_do_not_decay() -> None:
    view = FeatureView("v", source=SOURCE, entity="who", features={"f": agg.decayed_sum("x", "1d")})
    with pytest.raises(SourceError, match="infinite value, which never decays"):
        point_in_time(view, ROWS, pa.table({"who": ["a"], "at": pa.array([AT], INSTANT)}))


def test_nested_values_are_not_told_apart() -> None:
    view = FeatureView("v", source=SOURCE, entity="who", features={"f": agg.distinct("list", "1d")})
    with pytest.raises(SourceError, match="different values of it are not counted"):
        point_in_time(view, ROWS, pa.table({"who": ["a"], "at": pa.array([AT], INSTANT)}))
