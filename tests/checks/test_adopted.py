"""Schemas of pandera and dataframely, and what they and noria say of the same rows."""

import warnings
from datetime import UTC, datetime
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest

from noria import check
from noria.checks.declarations import Severity
from noria.checks.engine import check_batch
from noria.clock import heed_time_zones
from noria.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dataframely as dy
    import pandera.pandas as pandera
    import pandera.polars as pandera_polars

heed_time_zones()  # for all tests of this process


def failing(adopted: Any, frame: pa.Table) -> list[int]:
    rejected: list[int] = (
        check_batch(frame, adopted.checks, max_rejected_share=1.0).rejected["row"].to_pylist()
    )
    return rejected


def test_a_pandera_schema_finds_the_same_rows() -> None:
    check_ = pandera.Check
    schema = pandera.DataFrameSchema(
        {
            "n": pandera.Column("Int64", [check_.ge(0), check_.lt(9)]),
            "f": pandera.Column(float, check_.in_range(0, 5, include_max=False), nullable=True),
            "c": pandera.Column(str, check_.isin(["x", "y", "xyz"]), nullable=True),
            "s": pandera.Column(str, [check_.str_matches("[a-c]+"), check_.str_length(1, 4)]),
            "p": pandera.Column(str, [check_.str_startswith("é."), check_.str_contains("[0-9]")]),
        }
    )
    frame = pd.DataFrame(
        {
            "n": pd.array([0, 8, 9, -1, None, 3, 3, 3, 3], dtype="Int64"),
            "f": [0.0, 4.9, 1, 1, 1, 5.0, None, -0.1, 2],
            "c": ["x", None, "x", "y", "xyz", "y", "zz", "x", "y"],
            "s": ["a", "abcd", "a", "b", "b", "c", "a", "ab1", "xa"],
            "p": ["é.1", "é.x1", "é.1", "é.2", "é.3", "é.4", "é.5", "e.5", "é.x"],
        }
    )
    with pytest.raises(pandera.errors.SchemaErrors) as caught:
        schema.validate(frame, lazy=True)
    wrong = sorted({int(each) for each in caught.value.failure_cases["index"].dropna()})
    adopted = check.from_pandera(schema)
    assert (
        failing(adopted, pa.Table.from_pandas(frame, preserve_index=False)) == wrong == [2, 3, 4, 5, 6, 7, 8]
    )
    assert adopted.schema == {"n": "int64", "f": "double", "c": "string", "s": "string", "p": "string"}
    assert adopted.left_out == ()


def test_a_pandera_model_and_its_warnings_are_taken_over() -> None:
    class Model(pandera.DataFrameModel):
        a: int = pandera.Field(ge=1, le=9, unique=True, raise_warning=True)
        t: pd.DatetimeTZDtype = pandera.Field(dtype_kwargs={"unit": "ns", "tz": "UTC"})

    adopted = check.from_pandera(Model, severity="block")
    assert {each.name: each.severity for each in adopted.checks} == {
        "not_null(a)": Severity.BLOCK,
        "unique(a)": Severity.BLOCK,
        "between(a, 1, …)": Severity.WARN,
        "between(a, …, 9)": Severity.WARN,
        "not_null(t)": Severity.BLOCK,
    }
    assert adopted.schema == {"a": "int64", "t": "timestamp[us, tz=UTC]"}


def test_a_pandera_schema_for_polars_is_taken_over() -> None:
    schema = pandera_polars.DataFrameSchema(
        {
            "a": pandera_polars.Column(pl.Int32, pandera_polars.Check.gt(0)),
            "t": pandera_polars.Column(pl.Datetime("us", "UTC")),
            "d": pandera_polars.Column(pl.Date),
        },
        unique=["a", "t"],
    )
    adopted = check.from_pandera(schema)
    assert adopted.schema == {"a": "int32", "t": "timestamp[us, tz=UTC]", "d": "date32"}
    assert [each.name for each in adopted.checks] == [
        "not_null(a)",
        "between(a, 1, …)",
        "not_null(t)",
        "not_null(d)",
        "unique(a, t)",
    ]


def test_what_pandera_says_by_functions_is_refused_by_name_or_listed() -> None:
    schema = pandera.DataFrameSchema(
        {
            "a": pandera.Column(int, pandera.Check(lambda column: column > 0, name="is_upright")),
            "b": pandera.Column(required=False),
            "^c.*": pandera.Column(int, regex=True),
            "o": pandera.Column("complex128"),
        },
        checks=pandera.Check(lambda frame: frame["a"] < 3, name="is_small"),
        index=pandera.Index(int),
    )
    with pytest.raises(ConfigError, match=r"column 'a': the check is_upright has no rule here; write it as"):
        check.from_pandera(schema)
    adopted = check.from_pandera(schema, strict=False)
    assert len(adopted.left_out) == 7
    assert adopted.schema == {}
    assert "not_null(a)" in {each.name for each in adopted.checks}


def test_a_dataframely_schema_finds_the_same_rows() -> None:
    class Houses(dy.Schema):
        id = dy.Int64(primary_key=True, min=1)
        price = dy.Float64(nullable=True, min_exclusive=0.0, max=100.0)
        kind = dy.Enum(["flat", "house"])
        zip = dy.String(regex="^[0-9]+$", min_length=2, max_length=4)
        rooms = dy.Int8(is_in=[1, 2, 3], nullable=True)
        sold = dy.Datetime(
            nullable=True, time_zone="UTC", time_unit="us", min=datetime(2020, 1, 1, tzinfo=UTC)
        )

    kinds = pl.Enum(["flat", "house"])
    frame = pl.DataFrame(
        {
            "id": [1, 2, 3, 4, 5, 6, 7],
            "price": [1.0, None, 0.0, 100.5, float("inf"), float("nan"), 5.0],
            "kind": pl.Series(["flat"] * 6 + [None], dtype=kinds),
            "zip": ["12", "1234", "12", "12", "12", "12", "12"],
            "rooms": pl.Series([1, None, 3, 3, 3, 3, 3], dtype=pl.Int8),
            "sold": pl.Series([None] * 7, dtype=pl.Datetime("us", "UTC")),
        }
    )
    more = frame.head(3).with_columns(
        id=pl.Series([0, 8, 9]),
        price=pl.lit(1.0),
        zip=pl.Series(["12", "x2", "123456"]),
        rooms=pl.Series([1, 1, 9], dtype=pl.Int8),
        sold=pl.Series([None, datetime(2019, 1, 1, tzinfo=UTC), None], dtype=pl.Datetime("us", "UTC")),
    )
    rows = pl.concat([frame, more]).with_row_index("at")
    good, _ = Houses.filter(rows)
    right = set(rows.join(good, on="id")["at"].to_list())
    adopted = check.from_dataframely(Houses)
    table = rows.drop("at").with_columns(pl.col("kind").cast(pl.String)).to_arrow()
    table = table.cast(pa.schema([(each.name, _plain(each.type)) for each in table.schema]))
    assert set(range(10)) - set(failing(adopted, table)) == right == {0, 1}
    assert adopted.key == ("id",)
    assert adopted.schema["kind"] == "string"
    assert adopted.schema["sold"] == "timestamp[us, tz=UTC]"


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def test_what_dataframely_says_by_functions_is_refused_by_name_or_listed() -> None:
    class Pairs(dy.Schema):
        a = dy.Int64()
        b = dy.Int64(check=lambda column: column > 0)
        l = dy.List(dy.Int64())  # noqa: E741 - a column's name

        @dy.rule()
        def a_is_below_b(cls) -> pl.Expr:
            return pl.col("a") < pl.col("b")

    with pytest.raises(ConfigError, match="the rule a_is_below_b is a function; write it as"):
        check.from_dataframely(Pairs)
    adopted = check.from_dataframely(Pairs, strict=False)
    assert len(adopted.left_out) == 3
    assert [each.name for each in adopted.checks] == ["not_null(a)", "not_null(b)", "not_null(l)"]


@pytest.mark.parametrize("take", [check.from_pandera, check.from_dataframely])
@pytest.mark.parametrize("thing", [None, "schema", int, pa.schema([])])
def test_what_is_no_schema_is_refused(take: Any, thing: Any) -> None:
    with pytest.raises(ConfigError, match="is no schema of"):
        take(thing)
