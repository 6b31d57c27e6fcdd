"""ONNX models of several tensors, texts among them, as a worker scores by them."""

from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.registry.test_more_formats import WIDTH, network

from noria.errors import ConfigError, DeploymentError, SourceError
from noria.registry.formats import load_scorer
from noria.registry.onnx_format import load_onnx
from noria.serving.formats.onnx_models import OnnxModel, describe_outputs, open_onnx, tensor_inputs
from noria.serving.formats.scorers import Rows
from noria.serving.records import SCORE, Input, Output, Samples, ServedModel

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None
) -> ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=weights or [])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def served(
    proto: ModelProto, inputs: tuple[Input, ...], outputs: tuple[Output, ...]
) -> tuple[ServedModel, bytes]:
    data = proto.SerializeToString()
    told = ServedModel(
        release="m:1", model="m", version=1, digest="", path="", inputs=inputs, outputs=outputs,
        samples=Samples(matrix=b"", scores=b""), format="onnx",
    )  # fmt: skip
    return told, data


def mixed() -> ModelProto:
    """Reads a text, a whole number and a vector of two; gives text and number, and the vector's double."""
    nodes = [
        helper.make_node("Identity", ["city"], ["place"]),
        helper.make_node("Identity", ["count"], ["many"]),
        helper.make_node("Add", ["vector", "vector"], ["twice"]),
    ]
    inputs = [
        tensor("city", STRING, ["n", 1]),
        tensor("count", INT64, ["n"]),
        tensor("vector", FLOAT, ["n", 2]),
    ]
    outputs = [
        tensor("place", STRING, ["n", 1]),
        tensor("many", INT64, ["n"]),
        tensor("twice", FLOAT, ["n", 2]),
    ]
    return model(nodes, inputs, outputs)


ROWS = Rows(np.array([[3.0, 0.5, 1.0], [4.0, 2.0, 8.0]]), {"city": ["a", "b"]})


def test_several_tensors_in_and_out() -> None:
    session = load_onnx(mixed().SerializeToString())
    inputs = tensor_inputs(session)
    assert inputs == (
        Input(name="city", kind="string", datatype="BYTES"),
        Input(name="count", kind="number", datatype="INT64"),
        Input(name="vector", kind="number", width=2, datatype="FP32"),
    )
    outputs = describe_outputs(session, inputs, ROWS)
    assert outputs == (
        Output(name="place", datatype="BYTES"),
        Output(name="many", datatype="INT64"),
        Output(name="twice", width=2),
    )
    scorer = open_onnx(*served(mixed(), inputs, outputs))
    assert (scorer.columns, scorer.is_native, scorer.outputs) == (3, True, outputs)
    place, many, twice = scorer.predict(ROWS)
    assert list(place) == ["a", "b"]
    assert np.asarray(many).tolist() == [3, 4]
    assert np.asarray(twice).tolist() == [[1.0, 2.0], [4.0, 16.0]]


def test_what_is_missing_or_no_whole_number_names_its_column() -> None:
    session = load_onnx(mixed().SerializeToString())
    scorer = OnnxModel(session, tensor_inputs(session), ())
    for matrix in ([[np.nan, 0, 0]], [[0.25, 0, 0]], [[2.0**63, 0, 0]]):
        with pytest.raises(SourceError, match="input 'count' lacks a value, or has one that is no int64"):
            scorer.run(Rows(np.array(matrix), {"city": ["a"]}))
    with pytest.raises(SourceError, match="input 'city' lacks a text"):
        scorer.run(Rows(ROWS.matrix[:1], {"city": [None]}))


@pytest.mark.parametrize("outputs", ["two", "maps"])
def test_probabilities_of_classes_are_a_score_or_a_vector(outputs: str) -> None:
    proto = network(outputs)
    rows = Rows(np.random.default_rng(0).normal(size=(70, WIDTH)))
    named = tuple(Input(name=f"x{each}", kind="number") for each in range(WIDTH))
    score = open_onnx(*served(proto, named, (SCORE,)))
    wanted = load_scorer("onnx", proto.SerializeToString())(rows.matrix)
    np.testing.assert_array_equal(score.predict(rows)[0], wanted)
    assert (score.tolerance, score.columns) == (0.0, WIDTH)

    session = load_onnx(proto.SerializeToString())
    inputs = tensor_inputs(session, like=[each.name for each in named])
    both = describe_outputs(session, inputs, rows)
    labels = ("0", "1") if outputs == "maps" else ()
    probability = Output(name="probability", width=2, labels=labels)
    assert set(both) == {probability, Output(name="label", datatype="INT64")} or outputs == "maps"
    scorer = open_onnx(*served(proto, inputs, both))
    given = dict(zip((each.name for each in both), scorer.predict(rows), strict=True))
    vector = np.asarray(next(iter(given.values())) if len(given) == 1 else given["probability"])
    np.testing.assert_allclose(vector[:, 1], wanted, atol=1e-6)


def test_a_matrix_of_texts_is_read_by_column() -> None:
    nodes = [
        helper.make_node(
            "LabelEncoder", ["t"], ["c"], domain="ai.onnx.ml", keys_strings=["a"], values_int64s=[7]
        )
    ]
    proto = model(nodes, [tensor("t", STRING, ["n", 2])], [tensor("c", INT64, ["n", 2])])
    session = load_onnx(proto.SerializeToString())
    inputs = tensor_inputs(session, like=["left", "right"])
    assert [(each.name, each.kind) for each in inputs] == [("left", "string"), ("right", "string")]
    rows = Rows(np.empty((1, 0)), {"left": ["a"], "right": ["b"]})
    (values,) = OnnxModel(session, inputs, describe_outputs(session, inputs, rows)).predict(rows)
    assert np.asarray(values).tolist() == [[7, -1]]


def test_a_model_of_a_fixed_number_of_rows_is_asked_in_parts() -> None:
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    proto = model(nodes, [tensor("x", FLOAT, [2, 1])], [tensor("y", FLOAT, [2, 1])], [one])
    session = load_onnx(proto.SerializeToString())
    rows = Rows(np.arange(5.0).reshape(5, 1))
    assert OnnxModel(session, tensor_inputs(session), (SCORE,)).predict(rows)[0].tolist() == [1, 2, 3, 4, 5]


def test_what_is_no_such_model_says_what_was_wanted() -> None:
    deep = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", FLOAT, ["n", 3, 3])],
        [tensor("y", FLOAT, ["n", 3, 3])],
    )
    with pytest.raises(ConfigError, match=r"input 'x' .* wanted is \[n\] or \[n, width\]"):
        tensor_inputs(load_onnx(deep.SerializeToString()))
    with pytest.raises(ConfigError, match=f"reads {WIDTH} columns; the rows have 2"):
        tensor_inputs(load_onnx(network().SerializeToString()), like=["a", "b"])
    with pytest.raises(DeploymentError, match="onnxruntime does not load the model"):
        open_onnx(served(network(), (), (SCORE,))[0], b"no model")
    session = load_onnx(mixed().SerializeToString())
    with pytest.raises(
        DeploymentError, match="the ONNX model reads city, count, vector; its release tells city"
    ):
        OnnxModel(session, tensor_inputs(session)[:1], ())
    told, data = served(mixed(), tensor_inputs(session), (Output(name="other"),))
    with pytest.raises(DeploymentError, match="gave no 'other'"):
        open_onnx(told, data).predict(ROWS)
    wrong = msgspec.structs.replace(told, outputs=(Output(name="many"),))
    with pytest.raises(DeploymentError, match="gave INT64 of width 0 as 'many'; it was registered with FP64"):
        open_onnx(wrong, data).predict(ROWS)
