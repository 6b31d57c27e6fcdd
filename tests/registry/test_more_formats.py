"""Models of XGBoost and in ONNX: as bytes and back, registered, scored."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.registry.test_model_versions import SIGNATURE, matrix, profile, registry, rows  # noqa: F401 - fixtures

from noria.errors import ConfigError
from noria.profiles.records import Profile
from noria.registry.formats import dump_estimator, load_estimator, load_scorer
from noria.registry.matrix import encode
from noria.registry.store import Registry
from noria.serving.formats.scorers import Rows, Scorer, open_scorer
from noria.serving.records import Input, Samples, ServedModel

WIDTH = len(SIGNATURE.inputs)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def opened(kind: str, data: bytes) -> Scorer:
    told = ServedModel(
        release="m:1", model="m", version=1, digest="", path="", format=kind,
        inputs=tuple(Input(name=f"x{each}", kind="number") for each in range(WIDTH)),
        samples=Samples(matrix=b"", scores=b""),
    )  # fmt: skip
    return open_scorer(told, data, folder=Path())


def late(matrix: Any) -> Any:  # noqa: F811
    return (np.nan_to_num(matrix[:, 0]) + matrix[:, 2] > 5).astype(int)


@pytest.fixture(scope="module")
def classifier(matrix: Any) -> xgboost.XGBClassifier:  # noqa: F811
    fitted = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=3, n_jobs=1)
    return fitted.fit(
        matrix[:1500], late(matrix[:1500]), eval_set=[(matrix[1500:], late(matrix[1500:]))], verbose=0
    )


def network(outputs: str = "one", *, kind: int = FLOAT) -> ModelProto:
    """A logistic regression: with one score per row, with one for each class, or with maps of these."""
    dtype = np.float32 if kind == FLOAT else np.float64
    weights = [numpy_helper.from_array(np.full((WIDTH, 1), 0.3, dtype), "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["sum"]), helper.make_node("Sigmoid", ["sum"], ["p"])]
    given = [helper.make_tensor_value_info("p", kind, ["n", 1])]
    if outputs != "one":
        weights.append(numpy_helper.from_array(np.ones(1, dtype), "all"))
        nodes += [
            helper.make_node("Sub", ["all", "p"], ["q"]),
            helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ]
        label = helper.make_tensor_value_info("label", INT64, ["n"])
        given = [label, helper.make_tensor_value_info("probabilities", kind, ["n", 2])]
    if outputs == "maps":
        nodes.append(
            helper.make_node(
                "ZipMap", ["probabilities"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
            )
        )
        maps = helper.make_sequence_type_proto(
            helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
        )
        given = [label, helper.make_value_info("maps", maps)]
    x = helper.make_tensor_value_info("x", kind, ["n", WIDTH])
    graph = helper.make_graph(nodes, "logit", [x], given, weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_equal_models_of_xgboost_have_equal_bytes_and_the_same_scores(matrix: Any, classifier: Any) -> None:  # noqa: F811
    kind, data = dump_estimator(classifier)
    assert (kind, data) == ("xgboost", dump_estimator(classifier)[1])
    scores = load_scorer("xgboost", data)(matrix)
    np.testing.assert_array_equal(scores, classifier.predict_proba(matrix)[:, 1])
    np.testing.assert_array_equal(opened("xgboost", data).predict(Rows(matrix))[0], scores)
    booster = load_estimator("xgboost", data)
    assert booster.num_boosted_rounds() == classifier.best_iteration + 1
    assert dump_estimator(booster) == ("xgboost", data)


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ("one", FLOAT),
        ("two", FLOAT),
        ("maps", FLOAT),
        ("one", TensorProto.DOUBLE),
        ("two", TensorProto.DOUBLE),
    ],
)
def test_networks_give_the_probability_of_class_1(matrix: Any, outputs: str, kind: int) -> None:  # noqa: F811
    format, data = dump_estimator(network(outputs, kind=kind))
    x = np.nan_to_num(matrix)
    wanted = 1 / (1 + np.exp(-0.3 * x.sum(axis=1)))
    scores = load_scorer(format, data)(x)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    np.testing.assert_array_equal(opened("onnx", data).predict(Rows(x))[0], scores)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1_999), st.integers(1, 200))
def test_a_row_has_its_score_whatever_rows_are_beside_it(
    matrix: Any,  # noqa: F811
    classifier: Any,
    at: int,
    size: int,
) -> None:
    for model in (classifier, network("two")):
        score = load_scorer(*dump_estimator(model))
        x = np.nan_to_num(matrix)
        np.testing.assert_array_equal(score(x[at : at + size]), score(x)[at : at + size])


def test_both_are_registered_loaded_and_checked(
    registry: Registry,  # noqa: F811
    classifier: Any,
    rows: pa.Table,  # noqa: F811
    profile: Profile,  # noqa: F811
) -> None:
    some = rows.slice(100, 50).set_column(0, "weight", rows["weight"].slice(100, 50).fill_null(0.0))
    for name, model in (("trees", classifier), ("network", network("two"))):
        kind, data = dump_estimator(model)
        scores = load_scorer(kind, data)(encode(SIGNATURE, some))
        version = registry.register(
            name,
            model_bytes=data,
            format=kind,
            signature=SIGNATURE,
            profile=profile,
            samples=some.append_column("late", pa.array(scores)),
            metrics={},
        )
        loaded = registry.load(version)
        assert (loaded.manifest.format, loaded.sample_error()) == (kind, 0.0)
        np.testing.assert_array_equal(loaded.score_rows(some), scores)


def test_what_gives_no_probability_is_refused(matrix: Any) -> None:  # noqa: F811
    x, y = np.nan_to_num(matrix), late(matrix)
    data = xgboost.DMatrix(x, label=y)
    with pytest.raises(ConfigError, match="objective 'reg:squarederror', which gives no probability"):
        dump_estimator(xgboost.XGBRegressor(n_estimators=2).fit(x, y))
    with pytest.raises(ConfigError, match="objective 'multi:softprob'"):
        dump_estimator(xgboost.XGBClassifier(n_estimators=2).fit(x, np.arange(len(x)) % 3))
    with pytest.raises(ConfigError, match="is a gblinear"):
        dump_estimator(xgboost.train({"booster": "gblinear", "objective": "binary:logistic"}, data, 2))
    with pytest.raises(ConfigError, match="is not fitted"):
        dump_estimator(xgboost.XGBClassifier())
    graph = network("two").graph
    graph.output.pop()
    with pytest.raises(ConfigError, match="wanted is a probability"):
        dump_estimator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_cut_files_and_what_is_no_model_are_refused(classifier: Any, data: Any) -> None:
    """A file that was cut anywhere, and bytes that are no model, give an error of noria's."""
    for kind, whole in (dump_estimator(classifier), dump_estimator(network("two"))):
        cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
        with pytest.raises(ConfigError):
            load_scorer(kind, cut)
    for kind in ("xgboost", "onnx", "skops", "lightgbm"):
        with pytest.raises(ConfigError):
            load_estimator(kind, data.draw(st.binary(max_size=60)))


def test_wrong_numbers_of_columns_are_told(classifier: Any) -> None:
    for model in (classifier, network()):
        with pytest.raises(ConfigError, match=f"reads {WIDTH} columns; the rows have 2"):
            load_scorer(*dump_estimator(model))(np.zeros((3, 2)))


@pytest.mark.parametrize(("module", "kind"), [("xgboost", "xgboost"), ("onnxruntime", "onnx")])
def test_a_missing_library_names_its_extra(tmp_path: Path, module: str, kind: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from noria.errors import ConfigError\nfrom noria.registry.formats import load_estimator\n"
        f"try: load_estimator({kind!r}, b'')\nexcept ConfigError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"`pip install 'noria[{kind}]'` brings it" in done.stdout


def test_a_worker_that_scores_them_loads_no_engine(tmp_path: Path, classifier: Any) -> None:
    files = []
    for model in (classifier, network("two")):
        kind, data = dump_estimator(model)
        (tmp_path / kind).write_bytes(data)
        files.append((kind, str(tmp_path / kind)))
    code = (
        "import sys, numpy, pathlib\nfrom noria.serving.formats.scorers import Rows, open_scorer\n"
        "from noria.serving.records import Input, Samples, ServedModel\n"
        f"inputs = tuple(Input(name=str(each), kind='number') for each in range({WIDTH}))\n"
        f"for kind, path in {files!r}:\n"
        "    told = ServedModel(release='m:1', model='m', version=1, digest='', path='', format=kind,\n"
        "        inputs=inputs, samples=Samples(matrix=b'', scores=b''))\n"
        "    data = pathlib.Path(path).read_bytes()\n"
        "    scorer = open_scorer(told, data, folder=pathlib.Path())\n"
        f"    scorer.predict(Rows(numpy.zeros((2, {WIDTH}))))\n"
        "heavy = ('pyarrow', 'pandas', 'sklearn', 'scipy', 'sqlalchemy', 'duckdb', 'xgboost')\n"
        "print([each for each in heavy if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
