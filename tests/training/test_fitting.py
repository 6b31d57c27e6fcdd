import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noria.errors import ConfigError
from noria.records import RunState
from noria.tracking.store import TrackingStore
from noria.training import TrainingRun, TrainingSet
from noria.training.engine import TrainingData, build_training_set
from noria.training.settings import lightgbm_params

from .parcel_project import HOLDOUT_FROM, UNTIL, Bench, declare, fit_lightgbm


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def data(rows_and_labels: tuple[pa.Table, pa.Table]) -> TrainingData:
    return build_training_set(declare(), *rows_and_labels, until=UNTIL, holdout_from=HOLDOUT_FROM)


def test_a_model_is_registered_with_all_that_is_needed_to_check_it(bench: Bench, data: TrainingData) -> None:
    fitted = bench.fit(declare(), data, key="late_parcel/first")
    model = bench.registry.load(fitted.version)
    assert data.holdout is not None
    assert model.signature == data.signature
    assert model.sample_error() == 0
    assert fitted.metrics["auc"] > 0.7
    assert fitted.metrics == fitted.run.metrics == model.manifest.metrics
    assert fitted.run.state is RunState.FINISHED
    assert fitted.run.params["lightgbm.num_leaves"] == 15
    assert fitted.run.seed == 7
    assert model.samples.num_rows == 50
    raw = pa.table(data.holdout)
    assert np.array_equal(model.score_rows(raw), model.score(data.holdout.X))


def test_lineage_leads_from_the_model_to_the_training_set(bench: Bench, data: TrainingData) -> None:
    source = bench.ledger.record_version("dataset", "parcels", sha256="ab" * 32, uri="lake:parcels")
    cause = bench.ledger.append("training.wanted")
    fitted = bench.fit(declare(), data, inputs=[source], cause=cause.id)
    edges = {(edge.role, edge.version) for edge in bench.ledger.list_edges(run=fitted.run.id)}
    training_set = bench.ledger.get_version("training_set", "late_parcel")
    told = bench.ledger.get_version("feature_statistics", "late_parcel")
    explained = bench.ledger.get_version("explanation", "late_parcel")
    view = bench.ledger.get_version("feature_view", "depot")
    assert view.sha256 == declare().features[0].spec().digest
    assert edges == {
        ("input", source.id),
        ("input", view.id),
        ("input", training_set.id),
        ("output", fitted.version.id),
        ("output", told.id),
        ("output", explained.id),
    }
    assert training_set.facts == data.facts
    assert fitted.run.cause == cause.id
    assert fitted.version.run == fitted.run.id
    assert bench.ledger.verify().ok


def test_the_same_training_again_gives_the_same_version(bench: Bench, data: TrainingData) -> None:
    first = bench.fit(declare(), data, key="one")
    assert bench.fit(declare(), data, key="one") == first
    second = bench.fit(declare(), data, key="two")
    assert second.version == first.version
    assert second.run.id != first.run.id
    assert len(bench.registry.list_models()) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_rows_seed_and_threads_give_the_same_bytes(data: TrainingData, threads: int) -> None:
    params = lightgbm_params(
        seed=3, threads=threads, bagging_fraction=0.7, bagging_freq=1, feature_fraction=0.7
    )
    texts = set()
    for _ in range(3):
        rows = lightgbm.Dataset(data.training.X, data.training.y, categorical_feature=[1])
        texts.add(lightgbm.train(params, rows, num_boost_round=8).model_to_string())
    assert len(texts) == 1


def test_a_setting_that_would_undo_this_is_refused() -> None:
    assert lightgbm_params(seed=1, threads=1, objective="cross_entropy")["objective"] == "cross_entropy"
    with pytest.raises(ConfigError, match="force_row_wise"):
        lightgbm_params(seed=1, threads=1, force_row_wise=False)


def fit_wrapper(data: TrainingSet, run: TrainingRun) -> Any:
    params = run.lightgbm_params(n_estimators=10, num_leaves=7)
    return lightgbm.LGBMClassifier(**params).fit(
        data.X, data.y, categorical_feature=list(data.category_columns)
    )


def fit_linear(data: TrainingSet, run: TrainingRun) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(data.X, data.y)


def fit_histograms(data: TrainingSet, run: TrainingRun) -> Any:
    trees = HistGradientBoostingClassifier(
        max_iter=5, categorical_features=list(data.category_columns), random_state=run.seed
    )
    return trees.fit(data.X, data.y)


def fit_extreme(data: TrainingSet, run: TrainingRun) -> Any:
    return xgboost.XGBClassifier(n_estimators=5, n_jobs=1, random_state=run.seed).fit(data.X, data.y)


@pytest.mark.parametrize("function", [fit_wrapper, fit_linear, fit_histograms, fit_extreme])
def test_estimators_of_either_library_score_after_loading_as_before(
    bench: Bench, data: TrainingData, function: Callable[[TrainingSet, TrainingRun], Any]
) -> None:
    kept: list[Any] = []

    def keep(rows: TrainingSet, run: TrainingRun) -> Any:
        kept.append(function(rows, run))
        return kept[-1]

    fitted = bench.fit(declare(keep), data)
    assert bench.fit(declare(keep), data).version == fitted.version
    model = bench.registry.load(fitted.version)
    assert np.array_equal(model.score(data.training.X), kept[0].predict_proba(data.training.X)[:, 1])


def test_a_drill_on_shuffled_labels_is_worse_and_says_that_it_is_one(
    bench: Bench, data: TrainingData
) -> None:
    honest = bench.fit(declare(), data)
    drill = bench.fit(declare(), data, shuffle_labels_seed=5)
    assert drill.version.facts["drill"] == drill.run.params["drill"] == "shuffled labels"
    assert "drill" not in honest.version.facts
    assert drill.metrics["log_loss"] > honest.metrics["log_loss"] + 0.02
    assert drill.metrics["auc"] < 0.6


def test_a_refit_without_a_holdout_names_the_version_it_comes_from(
    bench: Bench, rows_and_labels: tuple[pa.Table, pa.Table], data: TrainingData
) -> None:
    gated = bench.fit(declare(), data).version
    everything = build_training_set(declare(), *rows_and_labels, until=UNTIL)
    refit = bench.fit(declare(), everything, parents=[gated.id])
    assert refit.metrics == {}
    assert refit.version.number == 2
    assert bench.registry.list_models()[1].parents == (gated.id,)


def test_steps_logged_by_the_function_are_points_of_the_run(bench: Bench, data: TrainingData) -> None:
    def logging(rows: TrainingSet, run: TrainingRun) -> Any:
        for step in range(3):
            run.log_metric("loss", 0.5 - step / 10, step=step)
        run.log_param("why", "to see")
        return fit_lightgbm(rows, run)

    run = bench.fit(declare(logging), data).run
    points = TrackingStore(bench.ledger.database).list_points(run.id, "loss")
    assert [(point.step, point.value) for point in points] == [(0, 0.5), (1, 0.4), (2, 0.3)]
    assert (run.metrics["loss"], run.params["why"]) == (0.3, "to see")


def test_a_function_that_gives_no_model_fails_its_run_and_says_what_was_wanted(
    bench: Bench, data: TrainingData
) -> None:
    with pytest.raises(ConfigError, match="return a LightGBM Booster"):
        bench.fit(declare(lambda rows, run: None), data, key="none")
    (run,) = bench.ledger.list_runs(kind="train")
    assert run.state is RunState.FAILED
    fitted = bench.fit(declare(), data, key="none")
    assert (fitted.run.attempt, fitted.version.number) == (2, 1)


def test_killed_anywhere_and_run_again_gives_the_same_version(
    tmp_path: Path, bench: Bench, data: TrainingData
) -> None:
    wanted = bench.fit(declare(), data).version
    script = Path(__file__).with_name("parcel_project.py")
    kills = 6
    subprocess.run([sys.executable, str(script), str(tmp_path), str(kills), "11"], check=True, timeout=120)
    for number in range(kills + 1):
        ledger = Bench(tmp_path / f"{number}").ledger
        (version,) = ledger.list_versions(kind="model")
        assert (version.number, version.sha256) == (1, wanted.sha256)
        assert ledger.verify().ok
        states = [run.state for run in ledger.list_runs(kind="train", newest_first=False)]
        assert states[-1] is RunState.FINISHED
        assert set(states[:-1]) <= {RunState.KILLED}
