"""Folders of models from anywhere: nothing of them runs, and nothing outside of them is read."""

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KernelDensity, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer, StandardScaler
from sklearn.svm import SVR

from noria.errors import ConfigError, DigestMismatch, NoriaError, SourceError
from noria.records import sha256_hex
from noria.registry.folders.contents import KeptContents, LocalContents
from noria.registry.folders.loaded import LoadedEstimator
from noria.registry.folders.loading import load_folder
from noria.registry.folders.trust import PickleTrust
from noria.registry.folders.writing import write_model_folder
from noria.registry.folders.yaml_reading import read_yaml
from noria.registry.records import Part
from noria.registry.skops_archives import dump_archive, load_archive

X = np.random.default_rng(0).normal(size=(60, 3))
SKLEARN = "flavors:\n  sklearn:\n    pickled_model: {file}\n    serialization_format: {kind}\n"


class Touch:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def load(folder: Path, *, trust: bool = False) -> LoadedEstimator:
    return load_folder(LocalContents(folder), trust=PickleTrust.of(trust))


def make(folder: Path, mlmodel: str, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(mlmodel)
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_model_folder(LinearRegression().fit(X, X[:, 0]), tmp_path / "good", example=X)
    return tmp_path / "good"


@pytest.mark.parametrize("kind", ["pickle", "cloudpickle"])
@pytest.mark.parametrize("flavor", ["sklearn", "lightgbm", "pytorch", "python"])
def test_a_pickle_is_not_read_unless_it_is_trusted(tmp_path: Path, kind: str, flavor: str) -> None:
    made = tmp_path / "made"
    data = pickle.dumps(Touch(made))
    said = {
        "sklearn": SKLEARN.format(file="model.pkl", kind=kind),
        "lightgbm": "flavors:\n  lightgbm:\n    data: model.pkl\n    model_class: lightgbm.LGBMRanker\n",
        "pytorch": "flavors:\n  pytorch:\n    model_data: data\n",
        "python": "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n",
    }
    folder = make(tmp_path / "folder", said[flavor], model__pkl=data)
    (folder / "data").mkdir()
    (folder / "data" / "model.pth").write_bytes(data)
    with pytest.raises(ConfigError, match=r"runs code of its writer .* refused.*trust_pickle = true"):
        load(folder)
    assert not made.exists()


def test_a_script_that_opens_files_is_not_read_unless_it_is_trusted(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "flavors:\n  pytorch:\n    model_data: data\n")
    (folder / "data").mkdir()
    with zipfile.ZipFile(folder / "data" / "model.pth", "w") as archive:
        archive.writestr("model/constants.pkl", b"")
        archive.writestr("model/code/__torch__.py", 'x = torch.from_file("/etc/passwd", True, 9)')
    with pytest.raises(ConfigError, match=r"names files to be opened.*trust_pickle = true"):
        load(folder)


def test_a_trusted_pickle_is_read_and_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = LinearRegression().fit(X, X[:, 0])
    write_model_folder(model, tmp_path / "folder", serialization="pickle")
    assert "pickle" in (tmp_path / "folder" / "MLmodel").read_text()
    loaded = load(tmp_path / "folder", trust=True)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert "WARNING: the folder" in capfd.readouterr().err
    made = tmp_path / "made"
    (tmp_path / "folder" / "model.pkl").write_bytes(pickle.dumps(Touch(made)))
    with pytest.raises(ConfigError):  # it is no estimator, but its code has run
        load(tmp_path / "folder", trust=True)
    assert made.exists()


def _node(kind: str, module: str, name: str, **more: Any) -> dict[str, Any]:
    return {"__class__": name, "__module__": module, "__loader__": kind, "__id__": 1, **more}


def _text(value: str) -> dict[str, Any]:
    return _node("JsonNode", "builtins", "str", content=json.dumps(value), is_json=True)


def _archive(schema: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        told = {"protocol": json.loads(_protocol())["protocol"], "_skops_version": "0.16.0", **schema}
        archive.writestr("schema.json", json.dumps(told))
    return written.getvalue()


def _protocol() -> bytes:
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(LinearRegression()))) as archive:
        return archive.read("schema.json")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.testing._private.utils", "runstring"),
        ("numpy", "memmap"),
        ("numpy", "load"),
        ("scipy.stats._distn_infrastructure", "rv_continuous"),
        ("sklearn.utils._testing", "check_skip_network"),
        ("sklearn.externals._packaging.version", "parse"),
        ("sklearn.datasets._base", "load_files"),
        ("sklearn.metrics.pairwise", "effective_n_jobs"),  # imported there, and defined elsewhere
        ("os", "system"),
        ("builtins", "eval"),
        ("subprocess", "Popen"),
        ("lightgbm.basic", "_LIB"),
    ],
)
def test_an_archive_calls_nothing_that_is_not_known(module: str, name: str) -> None:
    code = "import sys; sys.modules['written'] = sys"
    args = _node(
        "TupleNode",
        "builtins",
        "tuple",
        content=[
            _text(code),
            _node(
                "DictNode",
                "builtins",
                "dict",
                content={},
                key_types=_node("ListNode", "builtins", "list", content=[]),
            ),
        ],
    )
    for schema in (
        _node("ConstructorFromReduceNode", module, name, content=args),
        _node("FunctionNode", module, name),
        _node("TypeNode", module, name),
    ):
        with pytest.raises(ConfigError, match=f"{module}.{name}"):
            load_archive(_archive(schema))
    assert "written" not in sys.modules


def test_functions_in_pipelines_are_kept_where_they_are_known() -> None:
    again = load_archive(dump_archive(FunctionTransformer(np.log1p).fit(X))[0])
    np.testing.assert_array_equal(again.transform(np.abs(X)), np.log1p(np.abs(X)))
    with pytest.raises(ConfigError, match=r"numpy.*load; only types"):
        dump_archive(FunctionTransformer(np.load))


def test_an_archive_that_unpacks_to_very_much_is_not_unpacked() -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
    data = bytearray(written.getvalue())
    end = data.rindex(b"PK\x01\x02")
    data[end + 24 : end + 28] = (3 << 30).to_bytes(4, "little")  # what it says of its size
    with pytest.raises(ConfigError, match=r"unpacks to 3221225472"):
        load_archive(bytes(data))


@pytest.mark.parametrize("field", ["left_child", "right_child", "feature"])
@pytest.mark.parametrize("value", [-5, 0, 10**6])
def test_a_tree_that_leads_elsewhere_is_refused(field: str, value: int) -> None:
    forest = RandomForestRegressor(2, random_state=0).fit(X, X[:, 0])
    state = forest.estimators_[1].tree_.__getstate__()
    if field == "feature" and value == 0:
        value = 3
    state["nodes"][field][0] = value
    forest.estimators_[1].tree_.__setstate__(state)
    data = dump_archive(forest)[0]
    with pytest.raises(ConfigError, match="nodes or columns that are not there"):
        load_archive(data)


def test_a_tree_of_other_kinds_that_leads_elsewhere_is_refused() -> None:
    histogram = HistGradientBoostingRegressor(max_iter=3).fit(X, X[:, 0])
    near = KNeighborsRegressor(algorithm="kd_tree").fit(X, X[:, 0])
    narrow = RandomForestRegressor(2, random_state=0).fit(X, X[:, 0])
    for each in (histogram, near, narrow):
        load_archive(dump_archive(each)[0])
    histogram._predictors[1][0].nodes["left"][0] = 10**6
    narrow.n_features_in_ = 1
    for each in (histogram, narrow):
        data = dump_archive(each)[0]
        with pytest.raises(ConfigError, match="nodes or columns that are not there"):
            load_archive(data)


YAML = {
    "an object": "flavors: !!python/object/apply:os.system ['true']\n",
    "a name": "flavors: !!python/name:os.system\n",
    "another tag": "flavors: !mine {a: b}\n",
    "a merge": "a: &a {b: c}\nflavors: {<<: *a}\n",
    "deep": "[" * 3_000 + "]" * 3_000,
    "no text": "\x00\x01",
    "a list": "- a\n",
    "no flavors": "model_uuid: abc\n",
    "no mapping": "flavors: {sklearn: 3}\n",
    "a number": "flavors:\n  sklearn:\n    pickled_model: " + "9" * 5_000 + "\n",
}


@pytest.mark.parametrize("what", YAML)
def test_descriptions_that_are_none_are_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(ConfigError, match="MLmodel"):
        load(make(tmp_path / "folder", YAML[what]))


def test_aliases_do_not_grow() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    with pytest.raises(ConfigError, match="grows beyond any description"):
        read_yaml(bomb.encode(), "it")
    with pytest.raises(ConfigError, match="grows beyond"):
        read_yaml(b"a: &a [*a]\n", "it")
    with pytest.raises(ConfigError, match="at most 4 MiB"):
        read_yaml(b" " * (5 << 20), "it")
    assert read_yaml(b"a: &a [1]\nb: *a\n", "it") == {"a": [1], "b": [1]}


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_values_or_refused(data: bytes) -> None:
    try:
        read_yaml(data, "it")
    except ConfigError as err:
        assert str(err).startswith("it ")


@pytest.mark.parametrize(
    "file",
    [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "..",
        ".",
        "C:/secret",
        "a\\\\..\\\\secret",
        "a//b",
        "./model",
        "''",
        "7",
        "[a]",
        "null",
    ],
)
def test_a_model_outside_of_its_folder_is_not_read(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret").write_bytes(dump_archive(LinearRegression().fit(X, X[:, 0]))[0])
    folder = make(tmp_path / "folder", SKLEARN.format(file=file, kind="skops"))
    with pytest.raises(ConfigError, match="wanted is a p"):
        load(folder)


def test_links_and_folders_that_are_none(tmp_path: Path, good: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (good / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="is a symbolic link, which is not followed"):
        load(good)
    (good / "link").unlink()
    (good / "model.skops").unlink()
    with pytest.raises(SourceError, match=r"no file 'model.skops', which its MLmodel names"):
        load(good)
    (good / "MLmodel").unlink()
    with pytest.raises(SourceError, match="has no file 'MLmodel'"):
        load(good)
    with pytest.raises(SourceError, match="is no folder"):
        load(tmp_path / "secret")
    with pytest.raises(ConfigError, match="may lead out of it"):
        KeptContents("it", {"../x": Part("0" * 64, 1)}, lambda _name, _part: tmp_path)


def test_bytes_that_changed_are_told_by_their_name(good: Path) -> None:
    parts = {each.name: Part(sha256_hex(each.read_bytes()), each.stat().st_size) for each in good.iterdir()}
    kept = KeptContents("version a:1", parts, lambda name, _: good / name)
    assert load_folder(kept, trust=PickleTrust()).flavor == "sklearn"
    (good / "model.skops").write_bytes(b"other")
    with pytest.raises(DigestMismatch, match=r"the file 'model.skops' of version a:1 has digest"):
        load_folder(kept, trust=PickleTrust())


def test_what_no_library_loads_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "flavors:\n  spark:\n    a: b\n")
    with pytest.raises(ConfigError, match="has the flavors spark; loaded are lightgbm"):
        load(folder)
    make(folder, SKLEARN.format(file="model.skops", kind="marshal"), model__skops=b"x")
    with pytest.raises(ConfigError, match="serialized as 'marshal'; known are"):
        load(folder)
    make(
        folder,
        SKLEARN.format(file="model.skops", kind="skops") + "  python_function:\n    predict_fn: __del__\n",
    )
    with pytest.raises(ConfigError, match="says to call '__del__'"):
        load(folder)
    make(folder, "flavors:\n  xgboost:\n    data: model.ubj\n    model_class: os.system\n", model__ubj=b"{}")
    with pytest.raises(ConfigError, match=r"has the class 'os.system'"):
        load(folder)


def test_weights_alone_are_arrays(tmp_path: Path) -> None:
    data = save({"layer": np.arange(6.0).reshape(2, 3)})
    folder = make(tmp_path / "folder", "flavors:\n  pytorch_weights:\n    a: b\n", weights__safetensors=data)
    loaded = load(folder)
    assert loaded.flavor == "safetensors"
    np.testing.assert_array_equal(loaded.estimator["layer"], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ConfigError, match="holds weights alone, 1 arrays"):
        loaded.predict(X)
    make(folder, "flavors:\n  pytorch_weights:\n    a: b\n", weights__safetensors=data[:9])
    with pytest.raises(ConfigError, match="is no file of safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(6, 64), (8, 1), (8, 32), (8, 64), (10, 8), (10, 12), (10, 14), (10, 99)],
    ids=["version", "encrypted", "patched", "strongly", "deflate", "bzip2", "lzma", "unknown"],
)
def test_an_archive_that_asks_for_what_zip_files_may_is_refused(
    tmp_path: Path, offset: int, value: int
) -> None:
    """One field of a member's entry, in both places where an archive has it."""
    write_model_folder(LinearRegression().fit(X, X[:, 0]), tmp_path / "folder", example=X)
    archive = tmp_path / "folder" / "model.skops"
    data = bytearray(archive.read_bytes())
    for magic, at in ((b"PK\x01\x02", offset), (b"PK\x03\x04", offset - 2)):
        data[data.index(magic) + at] = value
    archive.write_bytes(data)
    with pytest.raises(ConfigError, match="no skops archive"):
        load(tmp_path / "folder")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_folder_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Bytes changed anywhere give an error of noria's, or a model; never another error."""
    folder = tmp_path_factory.mktemp("changed") / "folder"
    write_model_folder(LinearRegression().fit(X, X[:, 0]), folder, example=X)
    name = data.draw(st.sampled_from(["MLmodel", "model.skops"]))
    whole = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(whole)
    try:
        loaded = load(folder)
    except NoriaError:
        return
    assert loaded.flavor == "sklearn"


@pytest.mark.parametrize(
    "model",
    [
        KernelDensity(),
        SplineTransformer(),
        IsotonicRegression(),
        GaussianProcessRegressor(),
        make_pipeline(StandardScaler(), SelectKBest(f_regression, k=2), SVR()),
        IsolationForest(n_estimators=3, max_features=2),
        BaggingRegressor(ExtraTreesRegressor(2), 2, max_features=2),
        CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=2)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_estimators_of_scikit_learn_load_again(model: Any) -> None:
    fitted = model.fit(X[:, 0] if isinstance(model, IsotonicRegression) else X, X[:, 1] > 0)
    loaded = load_archive(dump_archive(fitted)[0])
    rows = X[:, 0] if isinstance(model, IsotonicRegression) else X
    for method in ("predict", "transform", "score_samples"):
        if hasattr(fitted, method):
            np.testing.assert_array_equal(getattr(loaded, method)(rows), getattr(fitted, method)(rows))
