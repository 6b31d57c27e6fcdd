"""Training: declared beside its function, run on what was known then.

Declarations and the types a training function sees are here; `noria.training.engine` runs them.
"""

from noria.training.declarations import Field, Label, Spine, Training, category, train
from noria.training.records import Estimator, TrainingRun, TrainingSet

__all__ = [
    "Estimator",
    "Field",
    "Label",
    "Spine",
    "Training",
    "TrainingRun",
    "TrainingSet",
    "category",
    "train",
]
