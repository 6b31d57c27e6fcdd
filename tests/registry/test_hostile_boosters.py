"""Boosted trees that no training gives: refused before their libraries follow them out of bounds."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import ConfigError, NoriaError
from noria.registry.folders.contents import LocalContents
from noria.registry.folders.loading import load_folder
from noria.registry.folders.trust import PickleTrust
from noria.registry.folders.writing import write_model_folder
from noria.registry.lightgbm_checks import check_text
from noria.registry.skops_archives import dump_archive, load_archive
from noria.registry.ubjson_reading import read_ubjson
from noria.registry.xgboost_checks import check_model, check_serialized

X = np.random.default_rng(0).normal(size=(300, 3))
X[:, 2] = np.arange(300) % 7
Y = ((X[:, 0] > 0) ^ (X[:, 2] % 2 > 0)).astype(int)
CLASSES = np.arange(300) % 3
QUIET: dict[str, Any] = {"verbose": -1, "num_threads": 1}


def lightgbm_text(**params: Any) -> str:
    told = QUIET | {"objective": "binary", "num_leaves": 5, "max_cat_to_onehot": 1, "min_data_per_group": 1}
    told |= params
    labels = CLASSES if told.get("num_class") else Y
    data = lightgbm.Dataset(
        X, labels, categorical_feature=[2], params={"linear_tree": told.get("linear_tree", False)} | QUIET
    )
    text: str = lightgbm.train(told, data, 4).model_to_string()
    return text


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"objective": "multiclass", "num_class": 3},
        {"objective": "regression", "linear_tree": True},
        {"boosting": "dart"},
        {"objective": "regression", "min_data_in_leaf": 1_000},  # trees of a single leaf
    ],
)
def test_trained_texts_of_lightgbm_are_taken(params: Any) -> None:
    check_text(lightgbm_text(**params).encode())


def changed(text: str, key: str, value: Callable[[str], str]) -> bytes:
    """Give the text with the first value of a key changed, and its trees where it then says."""
    text = re.sub(rf"^{key}=(.*)$", lambda found: f"{key}={value(found[1])}", text, count=1, flags=re.M)
    head, _, rest = text.partition("\nTree=0\n")
    trees, end, tail = f"Tree=0\n{rest}".partition("end of trees")
    sizes = [len(each) for each in re.split(r"(?=^Tree=\d+\n)", trees, flags=re.M) if each]
    head = re.sub("tree_sizes=.*", f"tree_sizes={' '.join(map(str, sizes))}", head)
    return f"{head}\n{trees}{end}{tail}".encode()


def first(value: str) -> Callable[[str], str]:
    return lambda text: " ".join([value, *text.split()[1:]])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split_feature", "1000000"),
        ("split_feature", "-1"),
        ("left_child", "1000000"),
        ("left_child", "-9"),
        ("left_child", "0"),  # it would be followed for ever
        ("num_leaves", "100000"),
        ("num_leaves", "0"),
        ("leaf_value", "many"),
        ("num_tree_per_iteration", "0"),
        ("num_tree_per_iteration", "100000"),
        ("num_cat", "100000"),
        ("cat_boundaries", "5"),
        ("cat_threshold", ""),
        ("objective", "multiclass num_class:100000"),
        ("objective", ""),
        ("is_linear", "1"),
    ],
)
def test_a_text_of_lightgbm_that_leads_elsewhere_is_refused(key: str, value: str) -> None:
    text = lightgbm_text()
    assert re.search(f"^{key}=", text, flags=re.M)
    check_text(changed(text, key, lambda found: found))
    with pytest.raises(ConfigError, match="no model of LightGBM"):
        check_text(changed(text, key, (lambda _: "") if not value else first(value)))


def test_trees_are_looked_at_where_lightgbm_finds_them() -> None:
    text = lightgbm_text().encode()
    with pytest.raises(ConfigError, match="not where it is to be"):
        check_text(re.sub(rb"tree_sizes=(\d+)", rb"tree_sizes=6", text))
    with pytest.raises(ConfigError, match="'num_leaves' twice"):
        check_text(changed(text.decode(), "num_leaves", lambda found: f"{found}\nnum_leaves=70000"))


@given(st.floats(min_value=0.0, max_value=1.0, exclude_max=True))
def test_a_text_of_lightgbm_that_is_cut_within_its_parameters_is_refused(share: float) -> None:
    """LightGBM makes JSON of them without looking for their end, and ended the process."""
    text = lightgbm_text().encode()
    begin, end = text.index(b"\nparameters:") + len(b"\nparameters:"), text.index(b"\nend of parameters")
    with pytest.raises(ConfigError, match="parameters"):
        check_text(text[: begin + int(share * (end - begin))])
    with pytest.raises(ConfigError, match=r"among its parameters"):
        check_text(text.replace(b"[boosting: ", b"boosting: ", 1))


def xgboost_models() -> dict[str, Any]:
    kinds = xgboost.XGBClassifier, xgboost.XGBRegressor
    few: dict[str, Any] = {"n_estimators": 3, "max_depth": 2, "n_jobs": 1}
    return {
        "binary": kinds[0](**few).fit(X, Y),
        "classes": kinds[0](**few, num_parallel_tree=2).fit(X, CLASSES),
        "dart": kinds[0](**few, booster="dart").fit(X, Y),
        "linear": kinds[0](n_estimators=3, n_jobs=1, booster="gblinear").fit(X, CLASSES),
        "pruned": kinds[0](**few | {"max_depth": 5}, tree_method="exact", gamma=2.0).fit(X, Y),
        "vectors": kinds[1](**few, multi_strategy="multi_output_tree").fit(X, X[:, :2]),
        "categories": kinds[0](**few, enable_categorical=True, feature_types=["q", "q", "c"]).fit(X, Y),
    }


def test_trained_models_of_xgboost_are_taken() -> None:
    for model in xgboost_models().values():
        booster = model.get_booster()
        said = [json.loads(bytes(booster.save_raw("json"))), read_ubjson(bytes(booster.save_raw("ubj")))]
        assert said[0]["learner"].keys() == said[1]["learner"].keys()
        for kind in ("json", "ubj"):
            check_model(bytes(booster.save_raw(kind)))
        check_serialized(bytes(booster.__getstate__()["handle"]))


def _trees(said: Any) -> Any:
    return said["learner"]["gradient_booster"]["model"]["trees"]


def _in_tree(key: str, place: int, value: Any) -> Callable[[Any], None]:
    return lambda said: _trees(said)[0][key].__setitem__(place, value)


def _in_learner(key: str, value: str) -> Callable[[Any], None]:
    return lambda said: said["learner"]["learner_model_param"].__setitem__(key, value)


CHANGES: list[Callable[[Any], None]] = [
    _in_tree("split_indices", 0, 1_000_000),
    _in_tree("left_children", 0, 1_000_000),
    _in_tree("left_children", 0, -7),
    _in_tree("left_children", 0, 0),
    _in_tree("right_children", 0, 1),
    _in_tree("parents", 1, 1_000_000),
    _in_tree("split_type", 0, 1),
    lambda said: _trees(said)[1].update(id=1_000_000),
    lambda said: _trees(said)[0]["tree_param"].update(num_nodes="1000000"),
    lambda said: _trees(said)[0]["tree_param"].update(size_leaf_vector="100000"),
    lambda said: _trees(said)[0].update(
        categories_nodes=[10**6], categories_sizes=[5], categories_segments=[0]
    ),
    lambda said: said["learner"]["gradient_booster"]["model"]["tree_info"].__setitem__(0, 1_000_000),
    lambda said: said["learner"]["gradient_booster"]["model"]["gbtree_model_param"].update(
        num_trees=str(2**31 - 1)
    ),
    _in_learner("num_class", "1000000"),
    _in_learner("num_target", "-1"),
    _in_learner("num_feature", "0"),
]


@pytest.mark.parametrize("place", range(len(CHANGES)))
def test_a_model_of_xgboost_that_leads_elsewhere_is_refused(place: int) -> None:
    model = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1).fit(X, Y)
    said = json.loads(bytes(model.get_booster().save_raw("json")))
    CHANGES[place](said)
    with pytest.raises(ConfigError, match="no model of XGBoost"):
        check_model(json.dumps(said).encode())


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=80).map(lambda found: b"{" + found))
def test_any_bytes_are_refused_as_xgboost(data: bytes) -> None:
    for check in (check_model, check_serialized):
        with pytest.raises(NoriaError):
            check(data)


def test_folders_and_archives_are_looked_at(tmp_path: Path) -> None:
    booster = lightgbm.Booster(model_str=lightgbm_text())
    write_model_folder(booster, tmp_path / "trees")
    file = tmp_path / "trees" / "model.lgb"
    file.write_bytes(changed(file.read_text(), "left_child", first("0")))
    trees = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1).fit(X, Y)
    write_model_folder(trees, tmp_path / "more")
    said = json.loads(bytes(trees.get_booster().save_raw("json")))
    CHANGES[0](said)
    (tmp_path / "more" / "model.ubj").write_text(json.dumps(said))
    for folder in ("trees", "more"):
        with pytest.raises(ConfigError, match="made or changed by hand"):
            load_folder(LocalContents(tmp_path / folder), trust=PickleTrust())


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_boosters_within_archives_are_looked_at(kind: str) -> None:
    made: dict[str, Any] = {
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=3, num_leaves=5, verbose=-1, n_jobs=1),
        "xgboost": xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1),
    }
    model = made[kind].fit(X, Y)
    data, _ = dump_archive(model)
    np.testing.assert_array_equal(load_archive(data).predict(X), model.predict(X))
    old, new = (b"left_child=", b"left_child=9") if kind == "lightgbm" else (b"num_class", b"num_klass")
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(written, "w") as changing:
        members = {each: archive.read(each) for each in archive.namelist()}
        assert any(old in each for each in members.values())
        for name, held in members.items():
            changing.writestr(name, held.replace(old, new))
    with pytest.raises(ConfigError, match="made or changed by hand"):
        load_archive(written.getvalue())
