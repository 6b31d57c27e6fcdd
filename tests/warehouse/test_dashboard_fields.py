"""A chart that names a column which its SQL does not give says so, instead of drawing nothing."""

from typing import Any

import pytest

from noria.warehouse.dashboards.fields import find_unknown_field

COLUMNS = ["day", "eur", "shop", "a.b", "place"]
X: dict[str, Any] = {"field": "day", "type": "temporal"}


def unit(y: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"mark": "bar", "encoding": {"x": X, "y": y}, **more}


@pytest.mark.parametrize(
    "chart",
    [
        unit({"field": "eur"}),
        unit({"aggregate": "count"}),
        unit({"field": "a\\.b"}),
        unit({"field": "place.town"}),
        unit({"field": "place[0]"}),
        unit({"field": "total"}, transform=[{"aggregate": [{"op": "sum", "field": "eur", "as": "total"}]}]),
        unit({"field": "value"}, transform=[{"fold": ["eur", "shop"]}]),
        unit({"field": "n"}, transform=[{"fold": ["eur"], "as": ["k", "n"]}]),
        unit({"field": "Graz"}, transform=[{"pivot": "shop", "value": "eur"}]),
        unit({"field": "town"}, transform=[{"lookup": "shop", "from": {"data": {}, "fields": ["town"]}}]),
        {"layer": [unit({"field": "eur"}), {"data": {"values": [{"z": 1}]}, **unit({"field": "z"})}]},
        {"repeat": ["eur", "shop"], "spec": unit({"field": {"repeat": "repeat"}})},
        {"facet": {"row": {"field": "shop"}}, "spec": unit({"field": "eur"})},
        unit({"field": "eur"}, params=[{"name": "p", "select": {"type": "point", "field": "none"}}]),
    ],
)
def test_what_a_chart_names_rightly_passes(chart: dict[str, Any]) -> None:
    assert find_unknown_field(chart, COLUMNS) is None


@pytest.mark.parametrize(
    ("chart", "found"),
    [
        (unit({"field": "eurr"}), ("encoding.y", "eurr")),
        (unit({"field": "EUR"}), ("encoding.y", "EUR")),
        (unit({"field": "eur", "sort": {"field": "n"}}), ("encoding.y.sort", "n")),
        (unit({"field": "eur"}, encoding={"tooltip": [X, {"field": "q"}]}), ("encoding.tooltip[1]", "q")),
        ({"layer": [unit({"field": "eur"}), unit({"field": "z"})]}, ("layer[1].encoding.y", "z")),
        ({"hconcat": [unit({"field": "z"})]}, ("hconcat[0].encoding.y", "z")),
        ({"facet": {"field": "town"}, "spec": unit({"field": "eur"})}, ("facet", "town")),
        ({"repeat": ["z"], "spec": unit({"field": {"repeat": "repeat"}})}, ("repeat[0]", "z")),
        ({"repeat": {"row": ["z"]}, "spec": unit({"field": "eur"})}, ("repeat.row[0]", "z")),
    ],
)
def test_a_field_that_nothing_gives_is_found_with_its_place(
    chart: dict[str, Any], found: tuple[str, str]
) -> None:
    assert find_unknown_field(chart, COLUMNS) == found
