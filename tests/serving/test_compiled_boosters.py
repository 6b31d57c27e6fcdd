"""Models of LightGBM and XGBoost of every objective: the bits of the libraries, for one row and for many."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

from noria.serving.formats.booster import Booster
from noria.serving.formats.scorers import open_scorer
from noria.serving.formats.xgboost_booster import XgboostBooster
from noria.serving.records import Input, Output, Samples, ServedModel
from noria.serving.rows import Rows, Scorer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5))
X[:, 3] = RNG.integers(0, 9, 300)
X[RNG.random(X.shape) < 0.1] = np.nan
SUM = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 3])
BINARY, CLASSES, COUNT = (SUM > 4).astype(int), np.digitize(SUM, [2, 5]), np.abs(SUM)
ROWS = np.concatenate([X[:60], np.zeros((2, 5)), np.full((2, 5), np.nan), np.full((1, 5), 1e-36)])


def scorer_of(kind: str, data: bytes, folder: Any) -> Scorer:
    served = ServedModel(
        release="m:1", model="m", version=1, digest="", path="", format=kind,
        inputs=tuple(Input(name=f"x{each}", kind="number") for each in range(5)),
        samples=Samples(matrix=b"", scores=b""),
    )  # fmt: skip
    return open_scorer(served, data, folder=folder)


def one_by_one(predict: Any) -> Any:
    return np.concatenate([predict(ROWS[[each]]) for each in range(len(ROWS))])


@pytest.mark.parametrize(
    ("settings", "target", "width"),
    [
        ({"objective": "binary"}, BINARY, 1),
        ({"objective": "binary", "zero_as_missing": True}, BINARY, 1),
        ({"objective": "binary", "categorical_feature": [3], "min_data_per_group": 5}, BINARY, 1),
        ({"objective": "binary", "boosting": "dart"}, BINARY, 1),
        ({"objective": "regression"}, SUM, 1),
        ({"objective": "regression", "linear_tree": True}, SUM, 1),
        ({"objective": "poisson"}, COUNT, 1),
        ({"objective": "multiclass", "num_class": 3}, CLASSES, 3),
        ({"objective": "multiclassova", "num_class": 3}, CLASSES, 3),
    ],
    ids=lambda each: "-".join(map(str, each.values())) if isinstance(each, dict) else "",
)
def test_lightgbm_gives_its_own_bits(
    settings: dict[str, Any], target: Any, width: int, tmp_path: Any
) -> None:
    settings = dict(settings)
    categories = settings.pop("categorical_feature", "auto")
    trained = lightgbm.train(
        {**settings, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 3},
        lightgbm.Dataset(X, target, free_raw_data=False, categorical_feature=categories),
        12,
    )
    text, wanted = trained.model_to_string().encode(), trained.predict(ROWS)
    booster = Booster(text)
    assert (booster.width, booster.objective) == (width, settings["objective"])
    np.testing.assert_array_equal(booster.predict(ROWS), wanted)
    np.testing.assert_array_equal(one_by_one(booster.predict), wanted)
    raw = Booster(text, is_raw=True)
    np.testing.assert_array_equal(one_by_one(raw.predict), trained.predict(ROWS, raw_score=True))
    first = booster.predict(ROWS[[0]])
    booster.predict(ROWS[[1]])
    np.testing.assert_array_equal(first, wanted[:1])  # what was given is not written over

    scorer = scorer_of("lightgbm", text, tmp_path)
    found = scorer.predict(Rows(ROWS))
    if width == 1:
        assert scorer.outputs == (Output(name="score"),)
        np.testing.assert_array_equal(found[0], wanted)
    else:
        assert scorer.outputs == (
            Output(name="label", datatype="INT64"),
            Output(name="probability", width=3, labels=("0", "1", "2")),
        )
        assert list(found[0]) == wanted.argmax(axis=1).tolist()
        np.testing.assert_array_equal(found[1], wanted)


@pytest.mark.parametrize(
    ("objective", "target", "names"),
    [
        ("binary:logistic", BINARY, ["score"]),
        ("binary:logitraw", BINARY, ["score"]),
        ("reg:squarederror", SUM, ["score"]),
        ("reg:squarederror", np.stack([SUM, COUNT], axis=1), ["score"]),
        ("count:poisson", COUNT, ["score"]),
        ("multi:softprob", CLASSES, ["label", "probability"]),
        ("multi:softmax", CLASSES, ["label"]),
    ],
)
def test_xgboost_gives_its_own_bits(objective: str, target: Any, names: list[str], tmp_path: Any) -> None:
    settings = {"objective": objective, "nthread": 1, "max_depth": 4}
    if objective.startswith("multi"):
        settings["num_class"] = 3
    trained = xgboost.train(settings, xgboost.DMatrix(X, target), 8)
    data, wanted = bytes(trained.save_raw("ubj")), trained.inplace_predict(ROWS).astype(np.float64)
    booster = XgboostBooster(data)
    np.testing.assert_array_equal(booster.predict(ROWS), wanted)
    np.testing.assert_array_equal(one_by_one(booster.predict), wanted)
    first = booster.predict(ROWS[[0]])
    booster.predict(ROWS[[1]])
    np.testing.assert_array_equal(first, wanted[:1])
    with pytest.raises(ValueError, match="has 4 columns, the model has 5"):
        booster.predict(ROWS[:, :4])

    scorer = scorer_of("xgboost", data, tmp_path)
    assert [each.name for each in scorer.outputs] == names
    assert scorer.outputs[0].width == (2 if wanted.ndim == 2 and names == ["score"] else 0)
    found = scorer.predict(Rows(ROWS))
    if names == ["score"]:
        np.testing.assert_array_equal(found[0], wanted)
    elif names == ["label"]:
        assert list(found[0]) == wanted.astype(int).tolist()
    else:
        assert list(found[0]) == wanted.argmax(axis=1).tolist()
        np.testing.assert_array_equal(found[1], wanted)
