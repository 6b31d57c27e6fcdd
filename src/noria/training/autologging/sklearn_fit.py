"""Fits of scikit-learn's estimators, and of all that are made like them: also those of LightGBM, XGBoost."""

import sys
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.calls import Call
from noria.training.autologging.described_data import described, example_of
from noria.training.autologging.guarding import guarded
from noria.training.autologging.iterations import Iterations, awaiting
from noria.training.autologging.options import Options
from noria.training.autologging.patches import Patches
from noria.training.autologging.sessions import is_within_fit, watched, within_fit
from noria.training.autologging.state import options_for

__all__ = ["EstimatorFit", "logged_fit", "patch_estimators", "patch_fit", "patch_threads"]

_BOOSTERS = ("lightgbm", "xgboost")
_Call = Callable[..., Any]


def patch_estimators(base: ModuleType, patches: Patches) -> None:
    """Watch the `fit` of all estimators: of `sklearn.base`, and of those that are defined later."""
    root = base.BaseEstimator
    held = vars(root).get("__init_subclass__")

    def begin_subclass(cls: type, **given: Any) -> None:
        if held is not None:
            held.__get__(None, cls)(**given)
        else:
            super(root, cls).__init_subclass__(**given)
        patch_fit(cls, patches)

    for each in _below(root):
        patch_fit(each, patches)
    patches.put_value(root, "__init_subclass__", classmethod(begin_subclass))  # type: ignore[arg-type]


def patch_fit(cls: type, patches: Patches) -> None:
    """Watch the `fit` that a class defines, if it does."""
    if isinstance(vars(cls).get("fit"), FunctionType):
        patches.put(cls, "fit", _watching)


def patch_threads(parallel: ModuleType, patches: Patches) -> None:
    """Let threads that work for a fit know that they do: of `sklearn.utils.parallel`."""
    wrapper = getattr(parallel, "_FuncWrapper", None)
    if wrapper is None:  # of another scikit-learn; fits in threads of a fit are then logged for themselves
        return

    def spread(original: _Call) -> _Call:
        def __call__(self: Any, iterable: Any) -> Any:  # noqa: N807
            return original(self, marked(iterable) if is_within_fit() else iterable)

        return __call__

    def marked(tasks: Any) -> Iterator[Any]:
        for each in tasks:  # taken from whatever thread has room for one more
            if isinstance(each[0], wrapper):
                each[0].noria_within_fit = True
            yield each

    def call(original: _Call) -> _Call:
        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            if getattr(self, "noria_within_fit", False) and not is_within_fit():
                return within_fit(lambda: original(self, *args, **kwargs))
            return original(self, *args, **kwargs)

        return __call__

    patches.put(parallel.Parallel, "__call__", spread)
    patches.put(wrapper, "__call__", call)


def _watching(original: _Call) -> _Call:
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        return logged_fit(original, self, args, kwargs)

    return fit


def _below(cls: type) -> Iterator[type]:
    each: type
    for each in type.__subclasses__(cls):
        yield each
        yield from _below(each)


def logged_fit(original: _Call, estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Fit, and log it if it is the outermost fit, of a model, and wanted."""
    call = Call(original, (estimator, *args), kwargs)
    if not is_within_fit():
        framework = _framework_of(type(estimator))
        options = options_for(framework)
        if options is not None and _is_model(estimator) and not _is_asked_by_noria():
            fit = EstimatorFit(framework, estimator, call, options)
            return watched(fit, options, fit.call)
    return call()


def _framework_of(cls: type) -> str:
    roots = [each.__module__.partition(".")[0] for each in cls.__mro__]
    return next((each for each in roots if each in _BOOSTERS), "sklearn")


def _is_asked_by_noria() -> bool:
    """Whether noria itself fits, such as what explains metrics by parameters."""
    caller = sys._getframe(3).f_globals.get("__name__", "")  # of `fit`, of `logged_fit`, of this
    return str(caller).startswith("noria.")


def _is_model(estimator: Any) -> bool:
    """Whether something predicts: what only prepares data is no model."""
    cls = type(estimator)
    return hasattr(cls, "predict") or hasattr(cls, "fit_predict")


class EstimatorFit:
    """One fit of one estimator."""

    def __init__(self, framework: str, estimator: Any, call: Call, options: Options) -> None:
        self.framework = framework
        self._estimator, self._call, self._options = estimator, call, options
        self._data: Any = None
        self._targets: Any = None
        self._weights: Any = None
        self._example: Any = None
        self._iterations: Iterations | None = None

    @property
    def name(self) -> str:
        """The name of the estimator's class."""
        return type(self._estimator).__name__

    def call(self, run: ActiveRun | None) -> Any:
        """Fit."""
        if run is not None and self.framework in _BOOSTERS:
            self._iterations = Iterations(run, self.framework, every=self._options.log_every)
        with awaiting(self._iterations):
            return self._call()

    def params(self) -> Mapping[str, Any]:
        """Give the estimator's parameters, also of what it is made of."""
        found: Mapping[str, Any] = self._estimator.get_params(deep=True)
        return found

    def tags(self) -> Mapping[str, str]:
        """Give name and class."""
        cls = type(self._estimator)
        return {"estimator_name": cls.__name__, "estimator_class": f"{cls.__module__}.{cls.__qualname__}"}

    def before(self, run: ActiveRun) -> None:
        """Tell of the training data."""
        given = dict(self._call.given())
        _, *names = given  # the first one is the estimator
        self._data = given[names[0]] if names else None
        self._targets = given.get("y", given.get("Y"))
        self._weights = given.get("sample_weight")
        if self._data is not None:
            self._example = example_of(self._data)
            run.log_input(described(self._data, self._targets))

    def after(self, run: ActiveRun, result: Any) -> None:
        """Tell how well it fits, what a search found, and keep the model."""
        from noria.training.autologging.searches import is_search, log_search
        from noria.training.autologging.training_metrics import training_metrics

        estimator, framework = self._estimator, self.framework
        if self._iterations is not None:
            self._iterations.finish()
        with guarded(framework, "compute training metrics"):
            found = training_metrics(estimator, self._data, self._targets, self._weights)
            run.log_metrics(found)
        if is_search(estimator):
            with guarded(framework, "tell of the search"):
                log_search(run, estimator, candidates=self._options.candidates)
        if framework in _BOOSTERS:
            with guarded(framework, "tell of the trees"):
                self._tell_trees(run)
        if self._options.log_models:
            with guarded(framework, "keep the model"):
                run.log_model(estimator, example=self._example)

    def _tell_trees(self, run: ActiveRun) -> None:
        if self.framework == "lightgbm":
            from noria.training.autologging.lightgbm_train import log_booster

            log_booster(run, self._estimator.booster_, self._iterations)
        else:
            from noria.training.autologging.xgboost_train import log_booster

            log_booster(run, self._estimator.get_booster(), self._iterations)
