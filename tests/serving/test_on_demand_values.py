"""On-demand features of a request are those of a training set, however rows are spread over requests."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.features import agg
from noria.features.declarations import FeatureView
from noria.features.fields import category
from noria.features.on_demand import on_demand
from noria.features.on_demand_tables import add_on_demand
from noria.lake.declarations import Dataset
from noria.serving.features.on_demand import OnDemandFeatures

SOURCE = Dataset("trips", key="id", event_at="at", known_at="at")
VIEW = FeatureView("courier", source=SOURCE, entity="courier", features={"late": agg.mean("late", "7d")})


@on_demand(inputs=["distance", category("zone"), VIEW], outputs=["odd", "wave", "zone"])
def mixed(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    distance = columns["distance"]
    if (distance == 13).any() or "bad" in columns["zone"]:
        raise ValueError("not that")
    wave = np.exp(np.sin(distance)) + np.log1p(np.abs(columns["courier__late"])) ** 1.7
    zones = np.array([len(zone) if zone is not None else -1 for zone in columns["zone"]], dtype=np.int8)
    return {"odd": 1 / distance, "wave": wave, "zone": zones}


@on_demand(inputs=[mixed], outputs=["more"])
def beyond(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"more": np.cbrt(columns["mixed__wave"]) * columns["mixed__zone"]}


NUMBERS = (
    st.none() | st.floats(allow_infinity=False) | st.sampled_from([0, 13, 1, 2**60]) | st.integers(-5, 5)
)
ROWS = st.lists(
    st.tuples(NUMBERS, st.none() | st.sampled_from(["a", "bad", "", "zoë"]), st.none() | st.floats(-9, 9)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_a_request_gets_what_a_training_set_got(rows: list[Any], cuts: list[int]) -> None:
    distance, zone, late = (list(each) for each in zip(*rows, strict=True))
    floats = [None if each is None else float(each) for each in distance]
    table = pa.table({
        "distance": pa.array(floats, pa.float64()), "zone": pa.array(zone, pa.string()),
        "courier__late": pa.array(late, pa.float64()),
    })  # fmt: skip
    bounds = [mixed.bound(), beyond.bound()]
    made, computed = add_on_demand(table, bounds)
    served = OnDemandFeatures(bounds)
    edges = sorted({0, len(rows), *(each for each in cuts if each < len(rows))})
    failed = []
    parts = []
    for low, high in pairwise(edges):
        numbers = {"distance": np.array(distance[low:high], dtype=np.float64)}
        looked_up = np.array([[0.0, np.nan if each is None else each] for each in late[low:high]])
        found = served.compute(
            high - low, numbers, {"zone": zone[low:high]}, {"courier__late": looked_up[:, 1]}
        )
        parts.append(served.matrix(found))
        failed += [low + row for row in found[0].failed]
    online = np.vstack(parts)
    offline = np.column_stack([made[name].to_numpy() for name in served.columns])
    same_bits = np.ascontiguousarray(online).view(np.int64) == offline.view(np.int64)
    assert (same_bits | (np.isnan(online) & np.isnan(offline))).all()
    assert failed == list(computed["mixed"].failed)
