"""Keras: `Model.fit`, whatever it computes with."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.calls import Call
from noria.training.autologging.described_data import described, row_count
from noria.training.autologging.guarding import guarded
from noria.training.autologging.iterations import Iterations
from noria.training.autologging.options import Options
from noria.training.autologging.patches import Patches
from noria.training.autologging.sessions import is_within_fit, watched
from noria.training.autologging.state import options_for

__all__ = ["patch_keras"]

_FRAMEWORK = "keras"
_TOLD = (
    "batch_size", "epochs", "validation_split", "shuffle", "initial_epoch", "steps_per_epoch",
    "validation_steps", "validation_batch_size", "validation_freq",
)  # fmt: skip
_Call = Callable[..., Any]


def patch_keras(module: ModuleType, patches: Patches) -> None:
    """Watch `keras.Model.fit`."""
    callback = module.callbacks.Callback

    def watching(original: _Call) -> _Call:
        def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
            options = None if is_within_fit() else options_for(_FRAMEWORK)
            if options is None:
                return original(self, *args, **kwargs)
            one = _Fit(self, Call(original, (self, *args), kwargs), options, callback)
            return watched(one, options, one.call)

        return fit

    patches.put(module.Model, "fit", watching)


class _Fit:
    """One call of `Model.fit`."""

    framework = _FRAMEWORK

    def __init__(self, model: Any, call: Call, options: Options, callback: type) -> None:
        self._model, self._call, self._options, self._callback = model, call, options, callback
        self._iterations: Iterations | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self._model.name)

    def call(self, run: ActiveRun | None) -> Any:
        """Fit."""
        if run is None:
            return self._call()
        self._iterations = Iterations(run, _FRAMEWORK, every=self._options.log_every)
        telling = _telling(self._callback, self._iterations)
        return self._call.with_callbacks(lambda others: _with(others, telling))()

    def params(self) -> Mapping[str, Any]:
        """Give the arguments of the fit, and optimizer and loss."""
        given = self._call.given()
        found = {name: given[name] for name in _TOLD if given.get(name) is not None}
        optimizer = getattr(self._model, "optimizer", None)
        if optimizer is not None:
            for name, value in optimizer.get_config().items():
                found[f"optimizer_{name}"] = value
        loss = getattr(self._model, "loss", None)
        if loss is not None:
            found["loss"] = getattr(loss, "name", loss)
        return {**found, "parameter_count": self._model.count_params()} if self._model.built else found

    def tags(self) -> Mapping[str, str]:
        """Give the model's class."""
        cls = type(self._model)
        return {"model_class": f"{cls.__module__}.{cls.__qualname__}"}

    def before(self, run: ActiveRun) -> None:
        """Tell of the training data, where it is arrays."""
        given = self._call.given()
        if row_count(given.get("x")) is not None and hasattr(given["x"], "dtype"):
            run.log_input(described(given["x"], given.get("y")))

    def after(self, run: ActiveRun, result: Any) -> None:
        """Keep what the model looks like, and the model."""
        if self._iterations is not None:
            self._iterations.finish()
        with guarded(_FRAMEWORK, "tell what the model looks like"):
            lines: list[str] = []
            self._model.summary(print_fn=lambda text, **_: lines.append(str(text)))
            run.log_text("\n".join(lines) + "\n", "model_summary.txt")
        if self._options.log_models:
            with guarded(_FRAMEWORK, "keep the model"), tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.keras"
                self._model.save(file)
                run.log_artifact(file, "model")


def _with(others: Any, telling: Any) -> Any:
    """Give callbacks with one more: they may be none, one, several, or a list made by Keras."""
    if others is None or isinstance(others, (list, tuple)):
        return [*(others or ()), telling]
    if hasattr(others, "append"):
        others.append(telling)
        return others
    return [others, telling]


def _telling(callback: Any, iterations: Iterations) -> Any:
    class Telling(callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            iterations.put_named(epoch, {name: float(value) for name, value in (logs or {}).items()})

    return Telling()
