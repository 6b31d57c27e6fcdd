"""Turns logging by itself on and off for this process."""

import threading
from types import ModuleType

from noria.training.autologging.guarding import forget_told, guarded
from noria.training.autologging.import_hook import ImportHook, Then
from noria.training.autologging.options import Options
from noria.training.autologging.patches import Patches
from noria.training.autologging.state import put_options

__all__ = ["turn_off", "turn_on"]

_TURN = threading.RLock()
_PATCHES = Patches()
_HOOKS: list[ImportHook] = []


def turn_on(options: Options) -> None:
    """Log what is asked for from now on, instead of what was asked for before."""
    with _TURN:
        turn_off()
        put_options(options)
        hook = ImportHook(_wanted(options.frameworks))
        _HOOKS.append(hook)
        hook.install()


def turn_off() -> None:
    """Log nothing by itself, and leave frameworks as they were."""
    with _TURN:
        put_options(None)
        while _HOOKS:
            _HOOKS.pop().remove()
        _PATCHES.undo()
        forget_told()


def _wanted(frameworks: frozenset[str]) -> dict[str, Then]:
    """Give which modules are waited for, and what is done to each."""
    found: dict[str, Then] = {}
    if "sklearn" in frameworks:
        found["sklearn.base"] = _sklearn
        found["sklearn.utils.parallel"] = _threads
    if "lightgbm" in frameworks:
        found["lightgbm"] = _lightgbm
    if "xgboost" in frameworks:
        found["xgboost"] = _xgboost
    if "keras" in frameworks:
        found["keras"] = _keras
    if "lightning" in frameworks:
        found["lightning.pytorch"] = found["pytorch_lightning"] = _lightning
    return found


def _sklearn(module: ModuleType) -> None:
    with guarded("sklearn", "be turned on"):
        from noria.training.autologging.sklearn_fit import patch_estimators

        patch_estimators(module, _PATCHES)


def _threads(module: ModuleType) -> None:
    with guarded("sklearn", "be turned on"):
        from noria.training.autologging.sklearn_fit import patch_threads

        patch_threads(module, _PATCHES)


def _lightgbm(module: ModuleType) -> None:
    with guarded("lightgbm", "be turned on"):
        from noria.training.autologging.lightgbm_train import patch_lightgbm

        patch_lightgbm(module, _PATCHES)


def _xgboost(module: ModuleType) -> None:
    with guarded("xgboost", "be turned on"):
        from noria.training.autologging.xgboost_train import patch_xgboost

        patch_xgboost(module, _PATCHES)


def _keras(module: ModuleType) -> None:
    with guarded("keras", "be turned on"):
        from noria.training.autologging.keras_fit import patch_keras

        patch_keras(module, _PATCHES)


def _lightning(module: ModuleType) -> None:
    with guarded("lightning", "be turned on"):
        from noria.training.autologging.lightning_fit import patch_lightning

        patch_lightning(module, _PATCHES)
