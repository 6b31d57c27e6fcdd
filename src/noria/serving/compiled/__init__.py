"""scikit-learn's pipelines without scikit-learn: a plan in numpy, trees by LightGBM's library."""

from noria.serving.compiled.compiling import (
    compile_estimator,
    compile_to_bytes,
    made_up_rows,
    open_sklearn,
)
from noria.serving.compiled.describing import describe
from noria.serving.compiled.original import OriginalScorer
from noria.serving.compiled.refusals import NotCompiled, RowsRefused
from noria.serving.compiled.scoring import PlanScorer, load_compiled

__all__ = [
    "NotCompiled",
    "OriginalScorer",
    "PlanScorer",
    "RowsRefused",
    "compile_estimator",
    "compile_to_bytes",
    "describe",
    "load_compiled",
    "made_up_rows",
    "open_sklearn",
]
