"""What a model gives, in whatever shape, as the columns of an answer: right, or refused without its data."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from noria.errors import DeploymentError
from noria.serving.formats.given import as_columns, describe
from noria.serving.records import SCORE, Output

LABEL = Output(name="label", datatype="BYTES")
WHAT = "late:3"


@pytest.mark.parametrize(
    ("found", "outputs"),
    [
        (np.array([0.5, 0.25]), (SCORE,)),
        ([[0.5], [0.25]], (SCORE,)),
        ([1, 0.5], (SCORE,)),
        ([None, 0.5], (SCORE,)),
        (np.array([0.5, 1], np.float32), (SCORE,)),
        (np.array([3, 4]), (Output(name="label", datatype="INT64"),)),
        ([True, False], (Output(name="label", datatype="BOOL"),)),
        (["a", None], (LABEL,)),
        (np.array(["a", "b"]), (LABEL,)),
        (np.zeros((2, 3)), (Output(name="output", width=3),)),
        ({"a": [1.0, 2.0], "b": ["x", "y"]}, (Output(name="a"), Output(name="b", datatype="BYTES"))),
        (
            pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}),
            (Output(name="a"), Output(name="b", datatype="BYTES")),
        ),
        (pl.DataFrame({"a": [1, 2]}), (Output(name="a", datatype="INT64"),)),
        (pd.Series([0.5, 0.25], index=[7, 9]), (SCORE,)),
        ([{"a": 1.0}, {"a": 2.0}], (Output(name="a"),)),
    ],
)
def test_what_is_given_is_described_and_given_again(found: Any, outputs: tuple[Output, ...]) -> None:
    assert describe(found, 2, what=WHAT) == outputs
    columns = as_columns(found, outputs, 2, what=WHAT)
    assert [len(each) for each in columns] == [2] * len(outputs)
    for output, values in zip(outputs, columns, strict=True):
        assert isinstance(values, list) == (output.datatype == "BYTES")
        assert np.asarray(values).shape[1:] == ((output.width,) if output.width else ())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1.0], r"late:3 gave 1 values for 2 rows; wanted is one for each row"),
        (0.5, r"gave one value for 2 rows"),
        ("secret", r"gave one text; wanted is a list"),
        (None, r"gave one value for 2 rows"),
        ([1.0, "secret"], r"gave values of the types float, str; wanted are numbers, texts or truths"),
        ([[1.0, 2.0], [1.0]], r"gave a list that is no array \(ValueError\)"),
        (np.zeros((2, 2, 2)), r"gave an array of the shape nx2x2"),
        ([["a", "b"], ["c", "secret"]], r"gave 2 values for each row that are no numbers"),
        ({}, r"gave an empty mapping"),
        ([{"a": 1}, {"secret": 1}], r"gave mappings that have not all the same keys"),
        ({"a": [1.0, 2.0], "b": [1.0]}, r"late:3, output 'b', gave 1 values for 2 rows"),
        ([object(), object()], r"gave values of the types object"),
    ],
)
def test_what_is_no_answer_is_told_without_its_data(found: Any, message: str) -> None:
    with pytest.raises(DeploymentError, match=message) as caught:
        describe(found, 2, what=WHAT)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "output", "message"),
    [
        (["secret", "b"], SCORE, "gave BYTES; wanted is FP64, as registered"),
        ([0.5, 1.5], Output(name="label", datatype="INT64"), "gave FP64; wanted is INT64"),
        ([0.5, 1.5], LABEL, "gave FP64; wanted is BYTES"),
        (np.zeros((2, 2)), SCORE, "gave a vector of 2 for each row; wanted is one value"),
        ([0.5, 1.5], Output(name="p", width=2), "gave one value for each row; wanted is a vector of 2"),
        ({"other": [1.0, 2.0]}, SCORE, "gave 'other'; wanted is 'score', as registered"),
    ],
)
def test_other_than_was_registered_is_refused(found: Any, output: Output, message: str) -> None:
    with pytest.raises(DeploymentError, match=message) as caught:
        as_columns(found, (output,), 2, what=WHAT)
    assert "secret" not in str(caught.value)


def test_whole_numbers_and_truths_may_stand_for_numbers() -> None:
    (values,) = as_columns([1, 0], (SCORE,), 2, what=WHAT)
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    assert values.tolist() == [1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.lists(st.floats(width=64), min_size=1, max_size=6).map(np.array),
        st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6),
        st.lists(st.one_of(st.text(max_size=4), st.none()), min_size=1, max_size=6).filter(any),
        st.integers(1, 4).map(lambda width: np.arange(3.0 * width).reshape(3, width)),
    )
)
def test_what_describes_itself_is_given_without_change(found: list[Any] | NDArray[Any]) -> None:
    outputs = describe(found, len(found), what=WHAT)
    (values,) = as_columns(found, outputs, len(found), what=WHAT)
    wanted = np.asarray(found, dtype=object).reshape(len(found), -1)
    given_again = np.asarray(values, dtype=object).reshape(len(found), -1)
    assert all(one == other or one != one for one, other in zip(wanted.flat, given_again.flat, strict=True))
