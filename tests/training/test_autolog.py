"""`noria.autolog()`: fits of scikit-learn become runs, and are what they are without it."""

import json
import logging
import pickle
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.training.autologged import Told, make_frame, predicted, site  # noqa: F401 - a fixture

import noria
from noria.errors import ConfigError, StoreError
from noria.ledger.run_book import RunBook
from noria.records import RunState

pytestmark = pytest.mark.usefixtures("site")


def test_a_fit_becomes_a_run_with_all_that_it_was() -> None:
    data, late = make_frame()
    noria.autolog()
    model = LogisticRegression(C=0.5)
    assert model.fit(data, late) is model
    told = Told()
    assert (told.run.name, told.run.state) == ("LogisticRegression", RunState.FINISHED)
    params = told.run.params
    assert (params["C"], params["class_weight"], params["max_iter"]) == (0.5, None, 100)
    tags = told.detail.tags
    assert tags["estimator_class"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert (tags["estimator_name"], tags["mlflow.autologging"]) == ("LogisticRegression", "sklearn")
    assert told.metrics["training_score"] == model.score(data, late)
    shares = model.predict_proba(data)
    assert told.metrics["training_log_loss"] == pytest.approx(log_loss(late, shares))
    assert told.metrics["training_roc_auc"] == pytest.approx(roc_auc_score(late, shares[:, 1]))
    (read,) = told.detail.datasets
    assert (read.context, json.loads(read.profile or "")["num_rows"]) == ("train", 300)
    assert json.loads(read.schema or "")["mlflow_colspec"][0] == {
        "type": "double", "name": "a", "required": True,
    }  # fmt: skip
    (kept,) = told.models[told.run.id]
    assert (kept.name, kept.source_run, kept.params["C"]) == ("model", told.run.id, "0.5")
    assert {each.point.name for each in kept.metrics} == set(told.metrics)
    assert (predicted(told.run.id, data) == model.predict(data)).all()


def test_what_is_fitted_within_a_fit_is_part_of_it() -> None:
    data, late = make_frame()
    noria.autolog(log_models=False)
    make_pipeline(StandardScaler(), LogisticRegression()).fit(data, late)
    told = Told()
    assert told.run.name == "Pipeline"
    assert told.run.params["logisticregression__C"] == 1.0
    assert told.run.params["standardscaler__with_mean"] is True
    assert told.models[told.run.id] == []


def test_threads_that_work_for_a_fit_log_nothing_of_their_own() -> None:
    data, late = make_frame()
    noria.autolog(log_models=False)
    vote = VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())], n_jobs=2)
    with joblib.parallel_config("threading"):
        vote.fit(data, late)
    told = Told()
    assert told.run.name == "VotingClassifier"
    assert len(told.runs) == 1


def test_of_a_search_the_best_candidates_become_runs_within() -> None:
    data, late = make_frame()
    noria.autolog(candidates=2)
    search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0, 10.0]}, n_jobs=2)
    with joblib.parallel_config("threading"):
        search.fit(data, late)
    told = Told()
    assert told.run.params["best_C"] == search.best_params_["C"]
    assert told.metrics["best_cv_score"] == search.best_score_
    assert told.files[told.run.id] == ["cv_results.parquet"]
    children = told.children()
    assert children[0].info.name == f"candidate {search.best_index_}, the best"
    assert [each.tags.get("best_candidate") for each in children] == ["true", None]
    ranks = [next(one.value for one in each.metrics if one.name == "rank_test_score") for each in children]
    assert ranks == [1, 2]
    assert (predicted(told.run.id, data) == search.predict(data)).all()


@pytest.mark.soak
def test_worker_processes_log_nothing_of_their_own() -> None:
    data, late = make_frame()
    noria.autolog(candidates=0, log_models=False)
    GridSearchCV(OnesOwn(), {"var_smoothing": [1e-9, 1e-3]}, n_jobs=2, cv=2).fit(data, late)
    assert len(Told().runs) == 1


class OnesOwn(GaussianNB):  # type: ignore[misc]
    """An estimator of a program's own, which travels to workers by value or by name."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "OnesOwn":
        super().fit(X, y, sample_weight)
        return self


def test_a_run_takes_one_fit_and_those_that_follow_become_runs_within() -> None:
    data, late = make_frame()
    noria.autolog(log_models=False)
    with noria.start_run("mine", experiment="parcels") as run:
        GaussianNB().fit(data, late)
        LinearRegression().fit(data, late)
        run.log_metric("after", 1.0)
    told = Told()
    assert (told.run.name, told.metrics["after"]) == ("mine", 1.0)
    assert told.run.params["var_smoothing"] == 1e-9
    (child,) = told.children()
    assert (child.info.name, child.info.experiment) == ("LinearRegression", told.detail.info.experiment)
    names = {each.name for each in child.metrics}
    assert names == {
        "training_score", "training_r2_score", "training_mean_squared_error",
        "training_root_mean_squared_error", "training_mean_absolute_error",
    }  # fmt: skip


def test_a_model_is_the_same_bit_by_bit_and_random_numbers_go_on_alike() -> None:
    data, late = make_frame()

    def fitted() -> tuple[bytes, float, float]:
        np.random.seed(3)
        random.seed(3)
        forest = RandomForestClassifier(n_estimators=5, n_jobs=2).fit(data, late)
        return forest.predict_proba(data).tobytes(), float(np.random.rand()), random.random()

    bare = fitted()
    noria.autolog()
    assert fitted() == bare
    assert len(Told().runs) == 1


def test_an_error_of_the_training_is_the_same_and_the_run_says_so() -> None:
    data, late = make_frame()
    noria.autolog()
    with pytest.raises(ValueError, match="inconsistent numbers of samples") as caught:
        GaussianNB().fit(data, late[:-1])
    assert Told().run.state is RunState.FAILED
    assert str(caught.value) in (Told().run.error or "")


class Interrupted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Somebody presses Ctrl-C in it."""

    def fit(self, X: Any, y: Any = None) -> "Interrupted":
        raise KeyboardInterrupt

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))


def test_an_interrupt_goes_on_and_an_estimator_of_ones_own_is_watched() -> None:
    noria.autolog()
    with pytest.raises(KeyboardInterrupt):
        Interrupted().fit(*make_frame())
    assert Told().run.state is RunState.CANCELLED


def test_without_a_project_the_training_goes_on_and_a_warning_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "noria.toml").unlink()
    noria.autolog()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert GaussianNB().fit(*make_frame()).classes_.tolist() == [0, 1]
    (warned,) = [each.getMessage() for each in caplog.records]
    assert warned.startswith("autolog of sklearn could not begin a run (ProjectNotFound")


class Odd(GaussianNB):  # type: ignore[misc]
    """It cannot be kept without pickle, and its parameters cannot be told."""

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.get_ident

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        if deep:
            raise RuntimeError("no")
        return {}


def test_what_cannot_be_told_is_left_out_and_the_rest_is_there(caplog: pytest.LogCaptureFixture) -> None:
    noria.autolog()
    with caplog.at_level(logging.WARNING):
        Odd().fit(*make_frame())
    told = Told()
    assert told.run.params == {}
    assert told.metrics["training_score"] > 0.8
    assert told.models[told.run.id] == []
    warned = " ".join(each.getMessage() for each in caplog.records)
    assert "could not tell of parameters (RuntimeError: no)" in warned
    assert "could not keep the model" in warned


def test_what_prepares_data_is_no_model_and_clusters_are_one() -> None:
    data, _ = make_frame()
    noria.autolog(log_models=False)
    StandardScaler().fit_transform(data)
    KMeans(2, n_init=1).fit_predict(data)
    told = Told()
    assert told.run.name == "KMeans"
    assert set(told.metrics) == {"training_score"}


def test_off_leaves_everything_as_it_was() -> None:
    before = vars(GaussianNB)["fit"], "__init_subclass__" in vars(BaseEstimator)
    noria.autolog()
    noria.autolog()
    assert vars(GaussianNB)["fit"] is not before[0]
    pickle.dumps(GaussianNB().fit(*make_frame()))
    noria.autolog(False)
    assert (vars(GaussianNB)["fit"], "__init_subclass__" in vars(BaseEstimator)) == before
    GaussianNB().fit(*make_frame())
    assert len(Told().runs) == 1


def test_other_frameworks_only_leaves_this_one_alone() -> None:
    noria.autolog(frameworks=["keras"])
    GaussianNB().fit(*make_frame())
    with noria.open() as project:
        assert project.ledger.list_runs() == []


def test_what_noria_fits_for_itself_is_no_run() -> None:
    data, late = make_frame()
    noria.autolog(log_models=False)
    for module in ("noria.somewhere", "elsewhere"):
        exec("model.fit(data, late)", {"__name__": module, "model": GaussianNB(), "data": data, "late": late})
    assert len(Told().runs) == 1


def test_a_database_that_is_away_holds_a_fit_up_for_a_few_seconds_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreError("the database is away")

    data, late = make_frame()
    noria.autolog(log_models=False)
    monkeypatch.setattr("noria.workspace.autologging._PATIENCE_S", 0.3)
    monkeypatch.setattr(RunBook, "finish_run", away)
    before = time.monotonic()
    assert GaussianNB().fit(data, late).predict(data).shape == late.shape
    assert time.monotonic() - before < 10  # a run that a program begins itself would wait for minutes
    assert "could not close the run (StoreError: the database is away)" in caplog.text
    assert Told().metrics["training_score"] > 0.5


def test_threads_of_ones_own_fit_side_by_side() -> None:
    data, late = make_frame()
    noria.autolog(log_models=False, experiment="side by side")
    workers = [threading.Thread(target=lambda: GaussianNB().fit(data, late)) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    states = [each.state for each in Told().runs]
    assert states == [RunState.FINISHED] * 4


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"frameworks": ["sklearn", "torch"]}, "frameworks: found 'torch', wanted some of keras"),
        ({"frameworks": [1]}, "found 1, a int"),
        ({"log_every": 0}, "log_every: found 0"),
        ({"log_every": True}, "log_every: found True"),
        ({"candidates": -1}, "candidates: found -1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        noria.autolog(**given)


def test_nothing_is_imported_by_it_and_what_is_imported_later_is_followed() -> None:
    program = (
        "import sys, noria\n"
        "noria.autolog(log_models=False)\n"
        "heavy = {'sklearn', 'lightgbm', 'xgboost', 'numpy', 'keras', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from sklearn.naive_bayes import GaussianNB\n"
        "GaussianNB().fit([[1.0], [2.0]], ['no', 'yes'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = Told()
    assert (told.run.name, told.metrics["training_score"]) == ("GaussianNB", 1.0)
    schema = json.loads(told.detail.datasets[0].schema or "")
    assert '"shape":[-1,1]' in schema["mlflow_tensorspec"]["features"]
