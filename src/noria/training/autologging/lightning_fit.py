"""PyTorch Lightning: `Trainer.fit`."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.calls import Call
from noria.training.autologging.guarding import guarded
from noria.training.autologging.iterations import Iterations
from noria.training.autologging.options import Options
from noria.training.autologging.patches import Patches
from noria.training.autologging.plain_values import plain_params
from noria.training.autologging.sessions import is_within_fit, watched
from noria.training.autologging.state import options_for

__all__ = ["patch_lightning"]

_FRAMEWORK = "lightning"
_Call = Callable[..., Any]
_TOLD = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision")


def patch_lightning(module: ModuleType, patches: Patches) -> None:
    """Watch `Trainer.fit` of `lightning.pytorch` or `pytorch_lightning`."""

    def watching(original: _Call) -> _Call:
        def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
            options = None if is_within_fit() else options_for(_FRAMEWORK)
            if options is None or not self.is_global_zero:  # one process of several tells
                return original(self, *args, **kwargs)
            one = _Fit(self, Call(original, (self, *args), kwargs), options, module)
            return watched(one, options, one.call)

        return fit

    patches.put(module.Trainer, "fit", watching)


class _Fit:
    """One call of `Trainer.fit`."""

    framework = _FRAMEWORK

    def __init__(self, trainer: Any, call: Call, options: Options, module: ModuleType) -> None:
        self._trainer, self._call, self._options, self._module = trainer, call, options, module
        self._iterations: Iterations | None = None

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self._model).__name__

    @property
    def _model(self) -> Any:
        return self._call.given()["model"]

    def call(self, run: ActiveRun | None) -> Any:
        """Fit."""
        if run is None:
            return self._call()
        self._iterations = Iterations(run, _FRAMEWORK, every=self._options.log_every)
        telling = _telling(self._module.Callback, run, self._iterations)
        callbacks: list[Any] = self._trainer.callbacks
        place = next((place for place, each in enumerate(callbacks) if _keeps_files(each)), len(callbacks))
        callbacks.insert(place, telling)  # checkpoints come last, as Lightning has it
        try:
            return self._call()
        finally:
            if telling in callbacks:
                callbacks.remove(telling)

    def params(self) -> Mapping[str, Any]:
        """Give what the trainer was told, and the model's hyperparameters."""
        found = {name: getattr(self._trainer, name, None) for name in _TOLD}
        hparams = dict(getattr(self._model, "hparams", None) or {})
        return {**{name: value for name, value in found.items() if value is not None}, **hparams}

    def tags(self) -> Mapping[str, str]:
        """Give the model's class."""
        cls = type(self._model)
        return {"model_class": f"{cls.__module__}.{cls.__qualname__}"}

    def before(self, run: ActiveRun) -> None:
        """Tell nothing: loaders give their data batch by batch."""

    def after(self, run: ActiveRun, result: Any) -> None:
        """Keep what the model looks like, and its best checkpoint, else its last state."""
        if self._iterations is not None:
            self._iterations.finish()
        with guarded(_FRAMEWORK, "tell what the model looks like"):
            from importlib import import_module

            summaries = import_module(f"{self._module.__name__}.utilities.model_summary")
            run.log_text(f"{summaries.ModelSummary(self._model)}\n", "model_summary.txt")
        if self._options.log_models:
            with guarded(_FRAMEWORK, "keep the model"):
                self._keep(run)

    def _keep(self, run: ActiveRun) -> None:
        best = getattr(self._trainer.checkpoint_callback, "best_model_path", "")
        if best and Path(best).is_file():
            run.log_artifact(best, "checkpoints")
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "last.ckpt"
            self._trainer.save_checkpoint(file)
            run.log_artifact(file, "checkpoints")


def _keeps_files(callback: Any) -> bool:
    return any(each.__name__ == "Checkpoint" for each in type(callback).__mro__)


def _telling(callback: Any, run: ActiveRun, iterations: Iterations) -> Any:
    class Telling(callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            with guarded(_FRAMEWORK, "tell of the optimizer"):
                for place, optimizer in enumerate(trainer.optimizers):
                    prefix = "optimizer" if not place else f"optimizer{place}"
                    told = {"name": type(optimizer).__name__, **optimizer.defaults}
                    run.log_params(plain_params({f"{prefix}_{name}": value for name, value in told.items()}))

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            iterations.put_named(trainer.current_epoch, values)

    return Telling()
