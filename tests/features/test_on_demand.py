"""On-demand features: how they are declared, and what becomes of rows."""

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import wraps
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from noria.errors import ConfigError, SourceError
from noria.features import agg
from noria.features.declarations import FeatureView
from noria.features.fields import Field, category
from noria.features.on_demand import OnDemand, fields_of, on_demand, on_demand_of, views_of
from noria.features.on_demand_tables import add_on_demand, failure_facts, refuse_useless, told_failures
from noria.features.on_demand_values import compute, frozen
from noria.lake.declarations import Dataset

Columns = Mapping[str, Any]
SOURCE = Dataset("trips", key="id", event_at="at", known_at="at")
COURIER = FeatureView(
    "courier",
    source=SOURCE,
    entity="courier",
    features={"trips": agg.count("7d"), "late": agg.mean("late", "7d")},
)


@on_demand(inputs=["distance", category("zone"), COURIER], outputs=["km", "ratio"])
def trip(columns: Columns) -> Mapping[str, Any]:
    """Read fields and a view."""
    known = np.array([zone is not None for zone in columns["zone"]])
    return {
        "km": np.where(known, columns["distance"] * 1.609, np.nan),
        "ratio": columns["distance"] / columns["courier__trips"],
    }


@on_demand(inputs=[trip, "speed"], outputs=["hours"])
def duration(columns: Columns) -> Mapping[str, Any]:
    return {"hours": columns["trip__km"] / columns["speed"]}


@on_demand(inputs=["x"], outputs=["root"])
def picky(columns: Columns) -> Mapping[str, Any]:
    if (columns["x"] < 0).any():
        raise ValueError("a negative x")
    return {"root": np.sqrt(columns["x"])}


@on_demand(inputs=["x"], outputs=["root"], errors="refuse")
def strict(columns: Columns) -> Mapping[str, Any]:
    return picky(columns)


def of(function: Callable[[Columns], Any], *outputs: str) -> OnDemand:
    """Give a feature of `x`; what stands inside of a test could not be declared."""
    return OnDemand(
        name=function.__name__,
        inputs=(Field("x"),),
        outputs=outputs or ("y",),
        errors="missing",
        function=function,
    )


def values(feature: OnDemand, rows: Mapping[str, Any], *, check: bool = True) -> dict[str, list[Any]]:
    table, _ = add_on_demand(pa.table(rows), [each.bound() for each in on_demand_of([feature])], check=check)
    return {name: table[name].to_pylist() for name in feature.columns}


def test_what_a_feature_reads_and_gives() -> None:
    spec = trip.spec()
    assert (spec.numbers, spec.texts) == (("distance",), ("zone",))
    assert spec.features == ("courier__trips", "courier__late")
    assert spec.columns == trip.columns == ("trip__km", "trip__ratio")
    assert (spec.module, spec.function) == (__name__, "trip")


def test_what_is_read_is_found_before_who_reads_it() -> None:
    assert [each.name for each in on_demand_of([duration])] == ["trip", "duration"]
    assert [each.name for each in views_of([duration])] == ["courier"]
    assert [each.name for each in fields_of([duration])] == ["distance", "zone", "speed"]


def test_values_of_fields_views_and_other_features() -> None:
    rows = {
        "distance": [10, None, 30], "zone": ["a", "b", None], "speed": [2.0, 1.0, 1.0],
        "courier__trips": [5.0, 1.0, 0.5], "courier__late": [0.1, None, 0.3],
    }  # fmt: skip
    table, _ = add_on_demand(pa.table(rows), [each.bound() for each in on_demand_of([duration])], check=True)
    assert table["trip__ratio"].to_pylist()[0] == 2.0
    assert np.isnan(table["trip__km"].to_numpy()).tolist() == [False, True, True]
    assert table["duration__hours"].to_pylist()[0] == 10 * 1.609 / 2


def test_only_the_rows_that_raise_are_missing() -> None:
    rows = np.arange(100.0)
    rows[[17, 40, 41]] = -1
    table, made = add_on_demand(pa.table({"x": rows}), [picky.bound()], check=True)
    found = table["picky__root"].to_numpy()
    assert np.flatnonzero(np.isnan(found)).tolist() == [17, 40, 41]
    assert (found[42:] == np.sqrt(rows[42:])).all()
    assert made["picky"].failed == (17, 40, 41)
    (told,) = told_failures(made)
    assert "3 of 100 rows" in told and "row 17: ValueError in test_on_demand.py line" in told
    assert "a negative x" in told
    ((why, count),) = failure_facts(made)["picky"].items()  # an error may say values of the row
    assert why.startswith("ValueError in test_on_demand.py line ") and count == 3
    assert failure_facts(made, np.array([0, 40, 41])) == {"picky": {why: 2}}
    assert failure_facts(made, np.array([0])) == {}


def test_a_feature_that_refuses_names_the_row() -> None:
    with pytest.raises(SourceError, match=r"'strict' refuses rows .* 1 of 3 .* row 1: ValueError.*negative"):
        add_on_demand(pa.table({"x": [1.0, -1.0, 2.0]}), [strict.bound()])


def test_an_infinite_value_is_a_row_that_failed() -> None:
    def inverse(columns: Columns) -> Mapping[str, Any]:
        return {"y": 1 / columns["x"]}

    table, made = add_on_demand(pa.table({"x": [2.0, 0.0, None]}), [of(inverse).bound()])
    assert np.isnan(table["inverse__y"].to_numpy()).tolist() == [False, True, True]
    assert made["inverse"].failed == (1,)
    assert "'y' is infinite" in str(made["inverse"].first)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: None, "gave a value of type NoneType; wanted is a mapping"),
        (lambda x: {"z": x}, "does not give y and gives z, which it does not declare"),
        (
            lambda x: {"y": x[:-1]},
            r"gave an array of shape \(3,\) for 'y'; wanted is an array of shape \(4,\)",
        ),
        (lambda x: {"y": 1.0}, "gave a value of type float for 'y'"),
        (lambda x: {"y": list(x)}, "gave a value of type list for 'y'"),
        (lambda x: {"y": x.astype(str)}, "gave <U32 for 'y'; wanted is numbers"),
        (lambda x: {"y": x + 0j}, "gave complex128 for 'y'"),
        (lambda x: {"y": x.astype("M8[s]")}, r"gave datetime64\[s\] for 'y'"),
    ],
)
def test_a_malformed_result_is_told(function: Callable[[Any], Any], told: str) -> None:
    def odd(columns: Columns) -> Any:
        return function(columns["x"])

    with pytest.raises(ConfigError, match=told):
        values(of(odd), {"x": [1.0, 2.0, 3.0, 4.0]})
    columns = {"x": frozen(np.arange(4.0))}
    assert compute(of(odd).bound(), columns, 4).failed == (0, 1, 2, 3)  # at work its rows are missing


def test_whole_numbers_booleans_and_small_floats_are_taken() -> None:
    def kinds(columns: Columns) -> Mapping[str, Any]:
        x = columns["x"]
        return {"i": x.astype(np.int32), "b": x > 1, "f": x.astype(np.float32)}

    found = values(of(kinds, "i", "b", "f"), {"x": [1.5, 0.5]})
    assert found == {"kinds__i": [1.0, 0.0], "kinds__b": [1.0, 0.0], "kinds__f": [1.5, 0.5]}


def test_a_value_that_depends_on_other_rows_is_refused() -> None:
    def centred(columns: Columns) -> Mapping[str, Any]:
        return {"y": columns["x"] - columns["x"].mean()}

    with pytest.raises(ConfigError, match="row 0 has another 'y' alone than among others"):
        values(of(centred), {"x": [1.0, 2.0, 3.0]})


def test_a_value_that_depends_on_the_order_of_rows_is_refused() -> None:
    def numbered(columns: Columns) -> Mapping[str, Any]:
        return {"y": np.arange(len(columns["x"]))}

    with pytest.raises(ConfigError, match="has another 'y'"):
        values(of(numbered), {"x": [1.0, 2.0, 3.0]})


def test_a_value_by_chance_is_refused() -> None:
    chance = np.random.default_rng(1)

    def chancy(columns: Columns) -> Mapping[str, Any]:
        return {"y": chance.random(len(columns["x"]))}

    with pytest.raises(ConfigError, match="nor on chance"):
        values(of(chancy), {"x": [1.0, 2.0, 3.0]})


def test_columns_cannot_be_written_to() -> None:
    rows = np.array([1.0, np.nan])

    def writes(columns: Columns) -> Mapping[str, Any]:
        columns["x"][np.isnan(columns["x"])] = 0
        return {"y": columns["x"]}

    _, made = add_on_demand(pa.table({"x": rows}), [of(writes).bound()])
    assert "read-only" in str(made["writes"].first)
    assert np.isnan(rows[1])


def masked(columns: Columns) -> Any:
    return {"y": np.ma.masked_less(columns["x"], 2.0)}


def exiting(columns: Columns) -> Any:
    if (columns["x"] == 2).any():
        sys.exit(3)
    return {"y": columns["x"]}


def wide(columns: Columns) -> Any:
    return {"y": columns["x"].astype(np.longdouble) * np.longdouble("1e4000")}


def test_a_masked_array_is_refused_for_it_would_lose_its_mask() -> None:
    with pytest.raises(ConfigError, match="gave a masked array for 'y'; wanted is a plain one; NaN where"):
        add_on_demand(pa.table({"x": [1.0, 2.0]}), [of(masked, "y").bound()])


def test_a_function_that_exits_ends_no_process() -> None:
    found = compute(of(exiting, "y").bound(), {"x": frozen(np.array([1.0, 2.0, 3.0]))}, 3)
    assert found.failed == (1,)
    assert str(found.first).endswith("it exits with 3")


def test_a_wide_float_that_is_too_large_is_infinite_without_a_warning() -> None:
    found = compute(of(wide, "y").bound(), {"x": frozen(np.array([0.0, 2.0]))}, 2)
    assert (found.failed, found.reasons) == ((1,), ("inf",))


def test_a_request_column_called_like_a_feature_is_refused() -> None:
    with pytest.raises(ConfigError, match="reads 'courier__late' of the request, and a feature is called so"):
        fields_of([of(masked, "y"), COURIER, on_demand(inputs=["courier__late"], outputs=["y"])(doubled)])
    with pytest.raises(ConfigError, match="reads 'doubled__y' of the request"):
        on_demand(inputs=["doubled__y"], outputs=["y"])(doubled)


def test_an_entity_that_is_read_as_a_number_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'courier' as a number, and it is an entity.*noria.category\('cour"
    ):
        on_demand(inputs=["courier", COURIER], outputs=["y"])(doubled)


def test_a_column_of_another_kind_is_told_as_it_was_declared() -> None:
    rows = {"distance": pa.array(["far"]), "zone": pa.array([1.5]), "speed": pa.array([1.0])}
    features = {name: pa.array([1.0]) for name in ("courier__trips", "courier__late")}
    for name, told in (
        ("distance", "as a number, and it is string"),
        ("zone", "as a text, and it is double"),
    ):
        fine = {"distance": pa.array([1.0]), "zone": pa.array(["a"])}
        with pytest.raises(SourceError, match=f"'trip' reads '{name}' {told}"):
            add_on_demand(pa.table({**rows, **fine, name: rows[name], **features}), [trip.bound()])


def doubled(columns: Columns) -> Any:
    """Double it."""
    return {"y": columns["courier__late"] * 2}


def test_who_made_it_is_no_part_of_the_definition() -> None:
    declare = {"inputs": ["x"], "outputs": ["y"]}
    bare = on_demand(**declare)(doubled)  # type: ignore[arg-type]
    told = on_demand(**declare, owner="ops", description="Twice", tags=["a"])(doubled)  # type: ignore[arg-type]
    assert (bare.owner, bare.description, bare.tags) == (None, "Double it.", ())
    assert (told.owner, told.description, told.tags) == ("ops", "Twice", ("a",))
    assert bare.spec() == told.spec()
    for wrong, refusal in (
        ({"tags": "a"}, "tags is 'a'; give a tuple"),
        ({"tags": [1]}, r"tags is \[1\]; give a tuple"),
        ({"owner": 5}, "owner is 5; give a text"),
    ):
        with pytest.raises(ConfigError, match=refusal):
            on_demand(**declare, **wrong)(doubled)  # type: ignore[arg-type]


def test_a_function_that_another_decorator_wraps_is_refused() -> None:
    wrapped = wraps(doubled)(lambda columns: doubled(columns))
    with pytest.raises(ConfigError, match=r"doubled is wrapped by another decorator; leave that out"):
        on_demand(inputs=["x"], outputs=["y"])(wrapped)


def test_a_function_inside_of_another_is_refused() -> None:
    def inside(columns: Columns) -> Mapping[str, Any]:
        return {"y": columns["x"]}

    declare = on_demand(inputs=["x"], outputs=["y"])
    with pytest.raises(
        ConfigError, match=r"inside is inside of another function or a class; write it at the top"
    ):
        declare(inside)
    with pytest.raises(ConfigError, match="is a lambda; write `def name"):
        declare(lambda columns: {"y": columns["x"]})
    with pytest.raises(ConfigError, match="decorates a function"):
        declare(np.sqrt)  # type: ignore[arg-type]


def no_argument() -> Any: ...
async def later(columns: Columns) -> Any: ...
def two__names(columns: Columns) -> Any: ...


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (no_argument, "is called with one argument, the mapping of columns"),
        (later, "is asynchronous or a generator"),
        (two__names, "may not hold '__'; rename the function"),
    ],
)
def test_other_functions_are_refused(function: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        on_demand(inputs=["x"], outputs=["y"])(function)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"inputs": [], "outputs": ["y"]}, "has no inputs"),
        ({"inputs": ["x"], "outputs": []}, "has no outputs"),
        ({"inputs": ["x"], "outputs": ["y", "y"]}, "gives y twice"),
        ({"inputs": ["x", category("x")], "outputs": ["y"]}, "reads x twice"),
        ({"inputs": ["x"], "outputs": ["a__b"]}, "'a__b' names no output"),
        ({"inputs": [3], "outputs": ["y"]}, "has the input 3; give a name"),
        (
            {"inputs": ["x"], "outputs": ["y"], "errors": "ignore"},
            "errors='ignore'; give 'missing' or 'refuse'",
        ),
        (
            {"inputs": ["distance", trip, category("speed"), duration], "outputs": ["y"]},
            "as a number and as a text",
        ),
    ],
)
def test_declarations_that_make_no_sense(declared: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        on_demand(**declared)(picky.function)


def test_two_features_of_one_name_are_refused() -> None:
    view = FeatureView("picky", source=SOURCE, entity="courier", features={"n": agg.count("7d")})
    with pytest.raises(ConfigError, match="two features are called 'picky'; rename one"):
        on_demand_of([picky, view])


def test_a_mistake_of_the_function_is_no_failure_of_rows() -> None:
    def unknown(columns: Columns) -> Mapping[str, Any]:
        return {"y": columns["x"] * factor}  # type: ignore[name-defined]  # noqa: F821

    def absent(columns: Columns) -> Mapping[str, Any]:
        import no_such_module_at_all  # type: ignore[import-not-found]

        return {"y": no_such_module_at_all.of(columns)}

    def misspelt(columns: Columns) -> Mapping[str, Any]:
        return {"y": columns["xx"]}

    with pytest.raises(
        ConfigError, match=r"fails for any row: NameError in test_on_demand.py line .*'factor'"
    ):
        values(of(unknown), {"x": [1.0]})
    with pytest.raises(
        ConfigError, match=r"fails for any row: ModuleNotFoundError in .*correct its function"
    ):
        values(of(absent), {"x": [1.0]})
    for rows in (9, 10):
        _, made = add_on_demand(pa.table({"x": [1.0] * rows}), [of(misspelt).bound()])
        first = made["misspelt"].first
        assert first is not None
        told = r"fails for every one of 10 rows; the first is row 0: KeyError"
        with nullcontext() if rows < 10 else pytest.raises(SourceError, match=told):
            refuse_useless("misspelt", failed=rows, rows=rows, first=first)
