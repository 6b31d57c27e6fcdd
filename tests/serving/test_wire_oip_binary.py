"""The binary tensor extension of the Open Inference Protocol."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.test_wire_oip import answer, ask, tensor

from noria.serving.requests import BadRequestError, InferRequest, OutputColumn
from noria.serving.wire.oip import Reply, encode_answer, parse_request

DTYPES = {
    "BOOL": "?",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}


def strings(values: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(each.encode())) + each.encode() for each in values)


def packed(datatype: str, values: list[Any]) -> bytes:
    return strings(values) if datatype == "BYTES" else np.array(values, DTYPES[datatype]).tobytes()


def body_of(*tensors: tuple[dict[str, Any], bytes], **more: Any) -> tuple[bytes, str]:
    inputs = [
        {key: value for key, value in each.items() if key != "data"}
        | {"parameters": {"binary_data_size": len(data)}}
        for each, data in tensors
    ]
    head = orjson.dumps({"inputs": inputs, **more})
    return b"".join((head, *(data for _, data in tensors))), str(len(head))


def refused(body: bytes, length: str | None) -> str:
    with pytest.raises(BadRequestError) as caught:
        parse_request(body, length)
    return str(caught.value)


def same(one: InferRequest, other: InferRequest) -> bool:
    return one.rows == other.rows and all(
        np.array_equal(np.asarray(one.columns[name].values), np.asarray(other.columns[name].values))
        and one.columns[name].width == other.columns[name].width
        for name in (*one.columns, *other.columns)
    )


def values_of(datatype: str, count: int) -> st.SearchStrategy[list[Any]]:
    if datatype == "BYTES":
        kind: st.SearchStrategy[Any] = st.text(max_size=5)
    elif datatype == "BOOL":
        kind = st.booleans()
    elif datatype.startswith("FP"):
        kind = st.floats(width=int(datatype[2:]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    else:
        limits = np.iinfo(DTYPES[datatype])
        kind = st.integers(int(limits.min), int(limits.max))
    return st.lists(kind, min_size=count, max_size=count)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_json_and_bytes_of_the_same_values_read_equal(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 3))
    tensors = []
    for name in "abc"[: data.draw(st.integers(1, 3))]:
        datatype = data.draw(st.sampled_from([*DTYPES, "BYTES"]))
        width = data.draw(st.integers(1, 3))
        values = data.draw(values_of(datatype, rows * width))
        shape = [rows] if width == 1 and data.draw(st.booleans()) else [rows, width]
        tensors.append(tensor(values, shape=shape, datatype=datatype, name=name))
    by_json = ask(*tensors)
    by_bytes, _ = parse_request(
        *body_of(*((each, packed(each["datatype"], each["data"])) for each in tensors))
    )
    assert same(by_json, by_bytes)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_body_that_was_changed_is_read_whole_or_refused(data: st.DataObject) -> None:
    body, length = body_of(
        (tensor(None, shape=[2, 3], datatype="FP32"), packed("FP32", [1, 2, 3, 4, 5, 6])),
        (tensor(None, shape=[2], datatype="BYTES", name="b"), strings(["x", "yz"])),
    )
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.sampled_from([length, "0", str(len(body)), str(int(length) - 1)]))
    try:
        request, _ = parse_request(bytes(changed[: data.draw(st.integers(0, len(body)))]), length)
    except BadRequestError:
        return
    assert all(len(each.values) == request.rows * each.width for each in request.columns.values())


def test_numbers_that_lie_askew_in_the_body_are_read() -> None:
    for pad in ("", " ", "  ", "   "):
        body, length = body_of((tensor(None, shape=[2], name="a" + pad), packed("FP64", [0.5, -2])))
        values = parse_request(body, length)[0].columns["a" + pad].values
        assert isinstance(values, np.ndarray)
        assert values.flags.aligned
        assert values.tolist() == [0.5, -2]


@pytest.mark.parametrize("length", ["-1", "x", "", "+5", "٣", "99999", "9" * 40])
def test_a_length_that_is_none_or_beyond_the_body_is_refused(length: str) -> None:
    assert "Inference-Header-Content-Length" in refused(b'{"inputs":[]}', length)


def test_sizes_that_do_not_add_up_are_refused() -> None:
    one = tensor(None, shape=[2])
    body, length = body_of((one, packed("FP64", [1, 2])))
    assert "add up to 16" in refused(body + b"x", length)
    assert "reach beyond the body" in refused(body[:-1], length)
    assert "its `binary_data_size` is 12" in refused(*body_of((one, b"x" * 12)))
    assert "no header Inference-Header-Content-Length" in refused(body[: int(length)], None)
    text = tensor(None, shape=[2], datatype="BYTES")
    for data in (strings(["a"]), strings(["a", "b", "c"]), strings(["a", "b"])[:-1], b"\xff" * 12):
        assert "are not 2 strings" in refused(*body_of((text, data)))
    assert "not UTF-8" in refused(*body_of((text, strings(["a", "b"]).replace(b"b", b"\xff"))))
    assert "0 and 1" in refused(*body_of((tensor(None, shape=[2], datatype="BOOL"), b"\x01\x02")))
    assert "negative" in refused(body.replace(b'_size":16', b'_size":-1'), length)
    huge = tensor(None, shape=[1, 2**40], datatype="BYTES")
    assert "are not" in refused(*body_of((huge, b"x" * 12)))


def test_an_extension_that_is_not_spoken_is_refused() -> None:
    for parameters in ({"classification": 3}, {"shared_memory_region": "x"}):
        with pytest.raises(BadRequestError, match="there is binary_tensor_data, model_repository"):
            ask(tensor([1], shape=[1]), outputs=[{"name": "score", "parameters": parameters}])


def read_answer(body: bytes, length: int | None) -> dict[str, list[Any]]:
    """Read an answer as a client does, from what the protocol says."""
    head = orjson.loads(body[: length or len(body)])
    rest = body[length:] if length else b""
    found = {}
    for each in head["outputs"]:
        size = each.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[each["name"]] = each["data"]
            continue
        raw, rest = rest[:size], rest[size:]
        if each["datatype"] == "BYTES":
            values = []
            while raw:
                end = 4 + struct.unpack_from("<I", raw)[0]
                values.append(raw[4:end].decode())
                raw = raw[end:]
        else:
            values = np.frombuffer(raw, DTYPES[each["datatype"]]).tolist()
        assert len(values) == np.prod(each["shape"])
        found[each["name"]] = values
    assert rest == b""
    return found


@settings(max_examples=80, deadline=None)
@given(
    scores=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    labels=st.lists(st.text(max_size=4), min_size=2, max_size=2),
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4),
    flags=st.lists(st.booleans(), min_size=2, max_size=2),
    reply=st.builds(
        Reply, st.booleans(), st.dictionaries(st.sampled_from(["score", "label", "release"]), st.booleans())
    ),
)
def test_an_answer_reads_the_same_in_bytes_and_in_json(
    scores: list[float], labels: list[str], numbers: list[int], flags: list[bool], reply: Reply
) -> None:
    prediction = answer(
        OutputColumn("score", "FP64", scores),
        OutputColumn("label", "BYTES", labels),
        OutputColumn("counts", "INT64", numbers, 2, ("x", "y")),
        OutputColumn("flag", "BOOL", flags),
    )
    body, length = encode_answer(prediction, reply, model="late")
    found = read_answer(body, length)
    assert (length is None) == (not reply.binary and not any(reply.by_output.values()))
    assert found == {each.name: list(each.values) for each in prediction.all_columns}
    counts = next(each for each in orjson.loads(body[:length])["outputs"] if each["name"] == "counts")
    assert counts["parameters"]["labels"] == ["x", "y"]


def test_what_goes_as_bytes_is_asked_for_by_request_or_output() -> None:
    one = tensor([1], shape=[1])
    body = {
        "inputs": [one],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "score"}, {"name": "release", "parameters": {"binary_data": False}}],
    }
    _, reply = parse_request(orjson.dumps(body))
    assert (reply.is_binary("score"), reply.is_binary("release")) == (True, False)
    assert parse_request(orjson.dumps({"inputs": [one]}))[1] == Reply()
    scores = OutputColumn("score", "FP64", [float("nan"), float("inf")])
    found = read_answer(*encode_answer(answer(scores), Reply(binary=True), model="late"))
    assert np.array_equal(found["score"], [float("nan"), float("inf")], equal_nan=True)
