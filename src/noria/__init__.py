"""noria: the whole MLOps loop in one library.

A project declares its data, features, models, gates, monitors and triggers with the names of this module;
`noria.open(path)` gives the project with its verbs. Declarations are light: nothing here loads an engine
before work begins. Families live in `noria.agg` (aggregations) and `noria.check` (checks).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria import agg, check
    from noria.deploy.declarations import Canary, Gate
    from noria.features.declarations import FeatureView
    from noria.features.fields import category
    from noria.features.on_demand import on_demand
    from noria.features.sources import Query, Table
    from noria.lake.declarations import Dataset
    from noria.lake.file_declarations import Files
    from noria.monitoring.declarations import Monitor
    from noria.pipelines.declarations import StepRun, given, pipeline, step
    from noria.replay.declarations import BadBatch, Replay, RollbackDrill, ShuffledLabels
    from noria.streams.declarations import Stream
    from noria.training.declarations import Label, Spine, train
    from noria.training.records import Estimator, TrainingRun, TrainingSet
    from noria.triggers.declarations import Budget, Trigger, decay, every, schedule, stale
    from noria.value.declarations import Objective
    from noria.warehouse.declarations import model
    from noria.workspace.autologging import autolog
    from noria.workspace.folder_verbs import load_model, start_run, sync_runs, training_set
    from noria.workspace.light.starting import light
    from noria.workspace.project import Project, open

__all__ = [
    "BadBatch",
    "Budget",
    "Canary",
    "Dataset",
    "Estimator",
    "FeatureView",
    "Files",
    "Gate",
    "Label",
    "Monitor",
    "Objective",
    "Project",
    "Query",
    "Replay",
    "RollbackDrill",
    "ShuffledLabels",
    "Spine",
    "StepRun",
    "Stream",
    "Table",
    "TrainingRun",
    "TrainingSet",
    "Trigger",
    "agg",
    "autolog",
    "category",
    "check",
    "decay",
    "every",
    "given",
    "light",
    "load_model",
    "model",
    "on_demand",
    "open",
    "pipeline",
    "schedule",
    "stale",
    "start_run",
    "step",
    "sync_runs",
    "train",
    "training_set",
]

__version__ = "0.1.0"

_HOMES = {
    "deploy.declarations": ("Canary", "Gate"),
    "features.declarations": ("FeatureView",),
    "features.fields": ("category",),
    "features.on_demand": ("on_demand",),
    "features.sources": ("Query", "Table"),
    "lake.declarations": ("Dataset",),
    "lake.file_declarations": ("Files",),
    "monitoring.declarations": ("Monitor",),
    "pipelines.declarations": ("StepRun", "given", "pipeline", "step"),
    "replay.declarations": ("BadBatch", "Replay", "RollbackDrill", "ShuffledLabels"),
    "streams.declarations": ("Stream",),
    "training.declarations": ("Label", "Spine", "train"),
    "training.records": ("Estimator", "TrainingRun", "TrainingSet"),
    "triggers.declarations": ("Budget", "Trigger", "decay", "every", "schedule", "stale"),
    "value.declarations": ("Objective",),
    "warehouse.declarations": ("model",),
    "workspace.autologging": ("autolog",),
    "workspace.folder_verbs": ("load_model", "start_run", "sync_runs", "training_set"),
    "workspace.light.starting": ("light",),
    "workspace.project": ("Project", "open"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("agg", "check"):
        return import_module(f"noria.{name}")
    if name in _HOME_OF:
        return getattr(import_module(f"noria.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'noria' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
