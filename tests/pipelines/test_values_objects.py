"""Arrays of numpy, objects that only pickle knows, and that all processes agree on the bytes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.pipelines.values_shapes import Plain, Point, models

from noria.pipelines.values.codec import Format, Unstorable, digest, dump, load, summary

NOWHERE = Path("/nowhere")
ROOT = Path(__file__).parents[2]
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for machines at work


def sha256(value: object) -> str:
    return digest(value, scratch=NOWHERE, where="w")


def back(value: object) -> Any:
    data = dump(value, scratch=NOWHERE, where="w").data
    assert data is not None
    return load(Format.VALUE, data)


dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.datetime64_dtypes()
    | hnp.timedelta64_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.byte_string_dtypes()
)
arrays = hnp.arrays(dtypes | hnp.array_dtypes(dtypes), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))


@CALM
@given(array=arrays)
def test_an_array_comes_back_as_it_was_and_cannot_be_written_to(array: np.ndarray[Any, Any]) -> None:
    found = back([array])[0]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert repr(found.tolist()) == repr(array.tolist())
    assert not found.flags.writeable
    assert found.flags.aligned
    assert sha256(found) == sha256(array)


@CALM
@given(array=arrays)
def test_a_scalar_comes_back_as_it_was(array: np.ndarray[Any, Any]) -> None:
    for scalar in array.reshape(-1)[:2]:
        found = back(scalar)
        assert type(found) is type(scalar)
        assert found.dtype == scalar.dtype
        assert repr(found) == repr(scalar)
        assert sha256(scalar) != sha256(scalar.item())


@CALM
@given(array=arrays, other=arrays)
def test_arrays_that_differ_have_other_bytes(
    array: np.ndarray[Any, Any], other: np.ndarray[Any, Any]
) -> None:
    def same(each: np.ndarray[Any, Any]) -> tuple[object, ...]:
        return each.dtype.str, each.dtype.descr, each.shape, repr(each.tolist())

    assert (sha256(array) == sha256(other)) == (same(array) == same(other))


def test_strides_do_not_count_and_the_order_of_columns_does() -> None:
    array = np.arange(24.0).reshape(4, 6)
    assert sha256(array[::2, ::-1]) == sha256(array[::2, ::-1].copy())
    fortran = np.asfortranarray(array)
    assert sha256(fortran) != sha256(array)  # sums of floats differ between the two
    assert back(fortran).flags.f_contiguous
    assert (back(fortran) == array).all()


def test_what_lies_between_fields_and_the_payload_of_a_nan_do_not_count() -> None:
    dtype = np.dtype([("a", "i1"), ("b", "f8"), ("c", [("d", "i1"), ("e", "c16")])], align=True)
    one, other = (np.full(dtype.itemsize * 3, fill, np.uint8).view(dtype) for fill in (0, 255))
    for each in (one, other):
        each["a"], each["b"] = 1, np.nan
        each["c"]["d"], each["c"]["e"] = 2, complex(1, np.nan)
    assert one.tobytes() != other.tobytes()
    assert sha256(one) == sha256(other)
    assert sha256(np.array([0xFFF8 << 48, 0x7FF8_0000_0000_0001], np.uint64).view("f8")) == sha256(
        np.array([np.nan] * 2)
    )


def test_an_array_of_objects_is_its_objects() -> None:
    array = np.array([1, "a", None, [2, 3], {"x"}, Point(1)], object).reshape(2, 3)
    found = back(array)
    assert found.tolist() == array.tolist()
    assert not found.flags.writeable
    with pytest.raises(Unstorable, match=r"value\[2\]\.inner"):
        sha256(np.array([1, 2, Plain(inner=(x for x in ""))], object))


@pytest.mark.parametrize(
    "value",
    [
        np.dtype("f8"),
        np.dtype([("a", "i4"), ("b", "U3", (2,))]),
        np.ma.array([1, 2], mask=[False, True], fill_value=9),  # without, NumPy sets one when it is shown
        np.array(["a", "long" * 20], np.dtypes.StringDType()),
        np.array([("a", 1)], [("x", object), ("y", int)]),
        np.random.default_rng(3),
        np.sin,
    ],
    ids=lambda value: type(value).__name__,  # some show their address, which differs by process
)
def test_other_things_of_numpy_come_back(value: Any) -> None:
    found = back(value)
    assert type(found) is type(value)
    assert sha256(found) == sha256(value)


def test_floats_that_differ_between_machines_are_refused() -> None:
    with pytest.raises(Unstorable, match="float128, which differs between machines; turn it into float64"):
        sha256([np.zeros(2, np.longdouble)])


def test_a_view_reads_the_bytes_in_place() -> None:
    array = np.arange(100_000)
    data = dump(array, scratch=NOWHERE, where="w").data
    assert data is not None
    found = load(Format.VALUE, data)
    assert (
        found.__array_interface__["data"][0] - np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        < 200
    )
    writable = load(Format.VALUE, bytearray(data))  # type: ignore[arg-type]
    assert not writable.flags.writeable


def test_summaries_tell_shapes() -> None:
    assert summary(np.zeros((1_000, 3))) == "float64 array of 1,000 x 3"
    assert summary(np.float32(1.5)) == "np.float32(1.5)"


def distinct(text: str) -> str:
    return "".join(list(text))


def test_a_pickle_does_not_tell_which_equal_texts_are_one_object() -> None:
    text, day = "a text", date(2026, 1, 1)
    shared = Plain(a=text, b=text, c=(text, 1), d=(text, 1), e=day, f=day, g=np.dtype("f8"))
    copied = Plain(
        a=distinct(text), b=distinct(text), c=(distinct(text), 1), d=(distinct(text), 1),
        e=date(2026, 1, 1), f=date(2026, 1, 1), g=np.array([1.0]).astype(">f8").astype("<f8").dtype,
    )  # fmt: skip
    assert sha256(shared) == sha256(copied)
    assert back(shared) == copied


def test_a_pickle_keeps_what_is_shared_and_can_be_written_to() -> None:
    array, tags = np.arange(3), {"a"}
    found = back(Plain(one=array, two=array, three=array.copy(), tags=tags, same=tags, other={"a"}))
    found.one[0] = 7
    found.tags.add("b")
    assert found.two.tolist() == [7, 1, 2]
    assert found.three.tolist() == [0, 1, 2]
    assert (found.same, found.other) == ({"a", "b"}, {"a"})
    assert sha256(Plain(one=array, two=array)) != sha256(Plain(one=array, two=array.copy()))


class Node:
    def __init__(self) -> None:
        self.me, self.all = self, [self]


def test_an_object_may_lead_to_itself() -> None:
    found = back(Node())
    assert found.me is found
    assert found.all[0] is found


class Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getstate__(self) -> object:
        raise self.error


@pytest.mark.parametrize(
    "error", [OverflowError("no"), UnicodeError("no"), RuntimeError("no"), KeyError("no")]
)
def test_an_object_that_does_not_want_to_be_kept_is_refused(error: Exception) -> None:
    with pytest.raises(Unstorable, match=r"value\['a'\] cannot be stored: it is an object of type .*Broken"):
        sha256({"a": Broken(error)})


class Stream:
    """What only gives its rows as Arrow."""

    def __arrow_c_stream__(self) -> object:
        raise NotImplementedError

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle a stream")


def test_a_relation_is_told_what_to_do() -> None:
    with pytest.raises(Unstorable, match=r"make a table of it: pyarrow\.table\(it\)"):
        sha256(Stream())


@pytest.mark.parametrize("name", models())
def test_a_fitted_model_comes_back(name: str) -> None:
    model = models()[name]()
    found = back(model)
    assert sha256(found) == sha256(model)
    if hasattr(model, "predict"):
        rows = np.random.default_rng(1).normal(size=(50, 4))
        assert (found.predict(rows) == model.predict(rows)).all()


@pytest.fixture(scope="module")
def digests() -> Iterator[list[dict[str, str]]]:
    """Give the digests of the same values in three processes with other orders of sets."""
    code = "from tests.pipelines import values_shapes; values_shapes.main()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1", "4000000000")
    ]
    yield [json.loads(process.communicate(timeout=120)[0]) for process in processes]


def test_all_processes_agree(digests: list[dict[str, str]]) -> None:
    assert len(digests[0]) > 20
    assert digests[0] == digests[1] == digests[2]


@CALM
@given(data=st.data())
def test_lists_of_arrays_come_back(data: st.DataObject) -> None:
    several = data.draw(st.lists(arrays, max_size=5))
    found = back({"several": several, "n": 1})["several"]
    assert [repr(each.tolist()) for each in found] == [repr(each.tolist()) for each in several]
