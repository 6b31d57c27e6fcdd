"""LightGBM: `lightgbm.train`, and what its estimators hand to it."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.boosted_training import BoostedTraining
from noria.training.autologging.calls import Call
from noria.training.autologging.described_data import described, example_of, row_count
from noria.training.autologging.importances import log_importances
from noria.training.autologging.iterations import Iterations, take_awaited
from noria.training.autologging.patches import Patches
from noria.training.autologging.sessions import is_within_fit, watched
from noria.training.autologging.sklearn_fit import patch_fit
from noria.training.autologging.state import options_for

__all__ = ["log_booster", "patch_lightgbm"]

_FRAMEWORK = "lightgbm"
_ORDER = 15  # before those that record (20) or stop early (30)


def patch_lightgbm(module: ModuleType, patches: Patches) -> None:
    """Watch `lightgbm.train`, under all of its names, and the `fit` of its estimators."""
    for owner in (module, module.engine, getattr(module, "sklearn", None)):
        if owner is not None and hasattr(owner, "train"):
            patches.put(owner, "train", _watching)
    for name in ("LGBMModel", "LGBMClassifier", "LGBMRegressor", "LGBMRanker"):
        if hasattr(module, name):
            patch_fit(getattr(module, name), patches)


def log_booster(run: ActiveRun, booster: Any, iterations: Iterations | None) -> None:
    """Tell of a trained booster: how many iterations, which was best, which inputs count."""
    trained = booster.current_iteration() if iterations is None else iterations.count
    found = {"stopped_iteration": trained or booster.current_iteration()}
    if booster.best_iteration > 0:
        found["best_iteration"] = booster.best_iteration
    run.log_metrics(found, step=0)
    kinds = {kind: booster.feature_importance(kind).tolist() for kind in ("split", "gain")}
    log_importances(run, [str(each) for each in booster.feature_name()], kinds)


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
    def tell(env: Any) -> None:
        values = [each[:3] for each in env.evaluation_result_list or ()]
        iterations.put(env.iteration - env.begin_iteration, values)

    tell.order = _ORDER  # type: ignore[attr-defined]
    return call.with_callbacks(lambda others: [*(others or ()), tell])


class _Training(BoostedTraining):
    """One call of `lightgbm.train`."""

    framework = _FRAMEWORK
    name = "lightgbm.train"

    def telling(self, iterations: Iterations) -> Call:
        """Give the call with a callback that tells of each iteration."""
        return _telling(self._call, iterations)

    def log(self, run: ActiveRun, booster: Any, iterations: Iterations) -> None:
        """Tell of the trees."""
        log_booster(run, booster, iterations)

    def params(self) -> Mapping[str, Any]:
        """Give the training's parameters."""
        given = self._call.given()
        return {"num_boost_round": given["num_boost_round"], **given["params"]}

    def before(self, run: ActiveRun) -> None:
        """Tell of the training data."""
        data = self._call.given()["train_set"]
        if row_count(data.data) is not None:  # else it is a file, or was dropped already
            self._example = example_of(data.data)
            run.log_input(described(data.data, data.label))
