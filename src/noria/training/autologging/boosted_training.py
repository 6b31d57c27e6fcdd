"""One call of a function that trains boosted trees: what LightGBM's and XGBoost's have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.calls import Call
from noria.training.autologging.guarding import guarded
from noria.training.autologging.iterations import Iterations
from noria.training.autologging.options import Options

__all__ = ["BoostedTraining"]


class BoostedTraining(ABC):
    """A fit that is watched: trained with a callback that tells of each iteration, then told of."""

    framework: str
    name: str

    def __init__(self, call: Call, options: Options) -> None:
        self._call, self._options = call, options
        self._iterations: Iterations | None = None
        self._example: Any = None

    def call(self, run: ActiveRun | None) -> Any:
        """Train."""
        if run is None:
            return self._call()
        self._iterations = Iterations(run, self.framework, every=self._options.log_every)
        return self.telling(self._iterations)()

    @abstractmethod
    def telling(self, iterations: Iterations) -> Call:
        """Give the call with a callback that tells of each iteration."""

    @abstractmethod
    def log(self, run: ActiveRun, booster: Any, iterations: Iterations) -> None:
        """Tell of the trees."""

    @abstractmethod
    def params(self) -> Mapping[str, Any]:
        """Give the training's parameters."""

    @abstractmethod
    def before(self, run: ActiveRun) -> None:
        """Tell of the training data."""

    def tags(self) -> Mapping[str, str]:
        """Give nothing."""
        return {}

    def after(self, run: ActiveRun, result: Any) -> None:
        """Tell of the booster, and keep it."""
        assert self._iterations is not None
        self._iterations.finish()
        with guarded(self.framework, "tell of the trees"):
            self.log(run, result, self._iterations)
        if self._options.log_models:
            with guarded(self.framework, "keep the model"):
                run.log_model(result, example=self._example)
