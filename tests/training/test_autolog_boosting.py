"""`noria.autolog()` of LightGBM and XGBoost: iterations, importances, models, bit-equal trainings."""

from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost
from sklearn.model_selection import GridSearchCV
from tests.training.autologged import Told, make_frame, predicted, site  # noqa: F401 - a fixture

import noria

pytestmark = pytest.mark.usefixtures("site")

_LIGHTGBM = {"objective": "binary", "metric": ["auc", "binary_logloss"], "verbose": -1, "num_threads": 1}
_XGBOOST = {"objective": "binary:logistic", "eval_metric": ["logloss", "ndcg@5"], "nthread": 1}


def train_lightgbm(rounds: int = 8, **given: Any) -> Any:
    data, late = make_frame()
    held = lightgbm.Dataset(data[200:], late[200:])
    train = lightgbm.Dataset(data[:200], late[:200])
    return lightgbm.train(_LIGHTGBM, train, rounds, valid_sets=[held], valid_names=["held"], **given)


def test_a_training_of_lightgbm_logs_each_iteration() -> None:
    kept: dict[str, dict[str, list[float]]] = {}
    noria.autolog()
    booster = train_lightgbm(callbacks=[lightgbm.record_evaluation(kept)])
    told = Told()
    assert told.run.name == "lightgbm.train"
    assert told.run.params == {"num_boost_round": 8, **_LIGHTGBM}
    for kind in ("auc", "binary_logloss"):
        assert told.steps(f"held-{kind}") == list(enumerate(kept["held"][kind]))
    assert told.metrics["stopped_iteration"] == 8
    assert told.files[told.run.id] == ["feature_importance.parquet", "feature_importance.svg"]
    data, _ = make_frame()
    assert predicted(told.run.id, data) == pytest.approx(booster.predict(data), abs=1e-12)
    with noria.open() as project:
        (path,) = [each.path for each in project.artifacts.tree() if each.path.endswith(".parquet")]
        table = pq.read_table(project.artifacts.open(path)).to_pydict()
        assert table["feature"][0] == "a"
        assert table["gain"] == sorted(booster.feature_importance("gain").tolist(), reverse=True)
        (picture,) = [each.path for each in project.artifacts.tree() if each.path.endswith(".svg")]
        assert project.artifacts.open(picture).read_text().startswith("<svg")


def test_early_stopping_tells_the_best_iteration_and_every_third_is_logged() -> None:
    noria.autolog(log_every=3, log_models=False)
    booster = train_lightgbm(200, callbacks=[lightgbm.early_stopping(5, verbose=False)])
    told = Told()
    steps = [step for step, _ in told.steps("held-auc")]
    last = booster.best_iteration - 1 + 5
    assert steps == sorted({*range(0, last + 1, 3), last})
    assert told.metrics["best_iteration"] == booster.best_iteration
    assert told.metrics["stopped_iteration"] == last + 1 < 200


def test_an_estimator_of_lightgbm_logs_its_iterations_too() -> None:
    data, late = make_frame()
    noria.autolog()
    model = lightgbm.LGBMClassifier(n_estimators=6, verbose=-1, n_jobs=1)
    model.fit(data, late, eval_X=data, eval_y=late)
    told = Told()
    assert (told.run.name, told.detail.tags["mlflow.autologging"]) == ("LGBMClassifier", "lightgbm")
    (curve,) = {each.name for each in told.points[told.run.id] if each.name.endswith("binary_logloss")}
    assert [step for step, _ in told.steps(curve)] == list(range(6))
    assert told.run.params["n_estimators"] == 6
    assert told.metrics["training_score"] == model.score(data, late)
    assert len(told.models[told.run.id]) == 1


def test_a_training_of_xgboost_logs_each_iteration() -> None:
    data, late = make_frame()
    kept: dict[str, dict[str, list[float]]] = {}
    train = xgboost.DMatrix(data, late)
    noria.autolog()
    booster = xgboost.train(
        _XGBOOST, train, 8, evals=[(train, "train")], evals_result=kept, verbose_eval=False,
        early_stopping_rounds=3,
    )  # fmt: skip
    told = Told()
    assert (told.run.params["num_boost_round"], told.run.params["objective"]) == (8, "binary:logistic")
    assert told.steps("train-logloss") == list(enumerate(kept["train"]["logloss"]))
    assert told.steps("train-ndcg_at_5") == list(enumerate(kept["train"]["ndcg@5"]))
    assert told.metrics["best_iteration"] == booster.best_iteration
    assert told.files[told.run.id] == ["feature_importance.parquet", "feature_importance.svg"]
    assert len(told.detail.datasets) == len(told.models[told.run.id]) == 1


def test_an_estimator_of_xgboost_logs_its_iterations_too() -> None:
    data, _ = make_frame()
    noria.autolog(frameworks=["xgboost"])
    model = xgboost.XGBRegressor(n_estimators=6, n_jobs=1)
    model.fit(data, data.c, eval_set=[(data, data.c)], verbose=False)
    told = Told()
    assert told.run.name == "XGBRegressor"
    assert told.steps("validation_0-rmse") == list(enumerate(model.evals_result()["validation_0"]["rmse"]))
    assert predicted(told.run.id, data) == pytest.approx(model.predict(data), abs=1e-6)


def test_trees_within_a_search_log_no_iterations() -> None:
    data, late = make_frame()
    noria.autolog(log_models=False)
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1)
    GridSearchCV(model, {"num_leaves": [3, 5]}, cv=2).fit(data, late)
    told = Told()
    assert told.run.name == "GridSearchCV"
    assert len(told.runs) == 3
    assert not any("logloss" in name and "training" not in name for name in told.metrics)


def test_models_are_the_same_bit_by_bit() -> None:
    data, late = make_frame()

    def trained() -> tuple[Any, ...]:
        train = xgboost.DMatrix(data, late)
        estimator = lightgbm.LGBMRegressor(
            n_estimators=4, verbose=-1, n_jobs=1, subsample=0.7, subsample_freq=1
        )
        return (
            train_lightgbm().model_to_string(),
            estimator.fit(data, late).booster_.model_to_string(),
            bytes(xgboost.train(_XGBOOST, train, 4, verbose_eval=False).save_raw()),
            bytes(xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(data, late).get_booster().save_raw()),
        )

    bare = trained()
    noria.autolog()
    assert trained() == bare
    assert len(Told().runs) == 4


def test_a_call_that_is_wrong_is_told_by_the_framework_itself() -> None:
    data, late = make_frame()
    noria.autolog()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        lightgbm.train(_LIGHTGBM)
    with pytest.raises(TypeError, match="unexpected keyword"):
        xgboost.train(_XGBOOST, xgboost.DMatrix(data, late), rounds=3)


def test_off_gives_the_functions_back() -> None:
    names = [(lightgbm, "train"), (lightgbm.engine, "train"), (xgboost, "train"), (xgboost.sklearn, "train")]
    before = [getattr(*each) for each in names]
    noria.autolog()
    assert not any(now is then for now, then in zip((getattr(*each) for each in names), before, strict=True))
    noria.autolog(False)
    assert [getattr(*each) for each in names] == before
    assert np.isfinite(train_lightgbm().predict(make_frame()[0])).all()
