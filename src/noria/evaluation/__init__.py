"""How good scores are: metrics, differences with an interval, and estimates before outcomes are in.

Pure functions of numpy arrays.
"""

from noria.evaluation.estimates import estimated_auc, estimated_log_loss
from noria.evaluation.intervals import Interval, paired_bootstrap
from noria.evaluation.scores import auc, brier, calibration_ratio, evaluate, log_loss

__all__ = [
    "Interval",
    "auc",
    "brier",
    "calibration_ratio",
    "estimated_auc",
    "estimated_log_loss",
    "evaluate",
    "log_loss",
    "paired_bootstrap",
]
