"""XGBoost: `xgboost.train`, and what its estimators hand to it."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.boosted_training import BoostedTraining
from noria.training.autologging.calls import Call
from noria.training.autologging.described_data import described
from noria.training.autologging.importances import log_importances
from noria.training.autologging.iterations import Iterations, take_awaited
from noria.training.autologging.patches import Patches
from noria.training.autologging.sessions import is_within_fit, watched
from noria.training.autologging.sklearn_fit import patch_fit
from noria.training.autologging.state import options_for

__all__ = ["log_booster", "patch_xgboost"]

_FRAMEWORK = "xgboost"
_CELLS = 1_000_000  # of a matrix that is copied out of XGBoost to be described
_EXAMPLE_ROWS = 5


def patch_xgboost(module: ModuleType, patches: Patches) -> None:
    """Watch `xgboost.train`, under all of its names, and the `fit` of its estimators."""
    sklearn = getattr(module, "sklearn", None)
    for owner in (module, module.training, sklearn):
        if owner is not None and hasattr(owner, "train"):
            patches.put(owner, "train", _watching)
    for each in vars(sklearn).values() if sklearn is not None else ():
        if isinstance(each, type) and each.__module__.startswith("xgboost."):
            patch_fit(each, patches)


def log_booster(run: ActiveRun, booster: Any, iterations: Iterations | None) -> None:
    """Tell of a trained booster: how many iterations, which was best, which inputs count."""
    trained = booster.num_boosted_rounds() if iterations is None else iterations.count
    found = {"stopped_iteration": trained or booster.num_boosted_rounds()}
    best = booster.attr("best_iteration")
    if best is not None:
        found["best_iteration"] = int(best)
    run.log_metrics(found, step=0)
    names = booster.feature_names or [f"f{place}" for place in range(booster.num_features())]
    kinds = {}
    for kind in ("weight", "gain"):
        scores = booster.get_score(importance_type=kind)
        kinds[kind] = [float(np.sum(scores.get(each, 0.0))) for each in names]
    log_importances(run, names, kinds)


def _watching(original: Callable[..., Any]) -> Callable[..., Any]:
    def train(*args: Any, **kwargs: Any) -> Any:
        return _logged(Call(original, args, kwargs))

    return train


def _logged(call: Call) -> Any:
    awaited = take_awaited()
    if awaited is not None:
        return _telling(call, awaited)()
    options = None if is_within_fit() else options_for(_FRAMEWORK)
    if options is None:
        return call()
    fit = _Training(call, options)
    return watched(fit, options, fit.call)


def _telling(call: Call, iterations: Iterations) -> Call:
    from xgboost.callback import TrainingCallback

    class Telling(TrainingCallback):  # type: ignore[misc]
        first: int | None = None

        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
            if self.first is None:
                self.first = epoch  # a training that goes on with a model counts from there
            iterations.put(
                epoch - self.first,
                [
                    (data, kind, values[-1])
                    for data, metrics in evals_log.items()
                    for kind, values in metrics.items()
                ],
            )
            return False

    return call.with_callbacks(lambda others: [Telling(), *(others or ())])


class _Training(BoostedTraining):
    """One call of `xgboost.train`."""

    framework = _FRAMEWORK
    name = "xgboost.train"

    def telling(self, iterations: Iterations) -> Call:
        """Give the call with a callback that tells of each iteration."""
        return _telling(self._call, iterations)

    def log(self, run: ActiveRun, booster: Any, iterations: Iterations) -> None:
        """Tell of the trees."""
        log_booster(run, booster, iterations)

    def params(self) -> Mapping[str, Any]:
        """Give the training's parameters."""
        given = self._call.given()
        names = ("num_boost_round", "maximize", "early_stopping_rounds")
        asked = {name: given[name] for name in names if given.get(name) is not None}
        return {**asked, **dict(given["params"])}

    def before(self, run: ActiveRun) -> None:
        """Tell of the training data, where it is small enough to be copied."""
        data = self._call.given()["dtrain"]
        if data.num_row() * data.num_col() > _CELLS:
            return
        rows = data.get_data()  # sparse
        run.log_input(described(rows, data.get_label()))
        if data.feature_types is None or set(data.feature_types) <= {"float", "int", "i", "q"}:
            self._example = _frame(rows[:_EXAMPLE_ROWS].toarray(), data.feature_names)


def _frame(rows: Any, names: list[str] | None) -> Any:
    """Give rows with the names of their columns, if they have any."""
    if names is None:
        return rows
    import pyarrow as pa

    return pa.table({name: rows[:, place] for place, name in enumerate(names)})
