"""What a server costs that keeps no log, no index and no counts: Python imports this as one starts.

Only `bench.serving_load` has this folder on a server's path.
"""

import sys
from typing import Any


def _nothing(*_: object, **__: object) -> None:
    """Do what is measured by its being left out."""


def _not_logged(_: object, __: object) -> list[Any]:
    return []


if "noria.serving" in sys.orig_argv:
    from noria.serving.http.metrics import DeploymentMetrics
    from noria.serving.predictor import Predictor

    for owner, name, instead in (
        (Predictor, "_log", _not_logged),
        (Predictor, "_observe", _nothing),
        (DeploymentMetrics, "count_answer", _nothing),
        (DeploymentMetrics, "count_refusal", _nothing),
        (DeploymentMetrics, "enter", _nothing),
    ):
        if not hasattr(owner, name):
            raise AttributeError(f"{owner.__name__} has no {name} any more: this bench measures nothing")
        setattr(owner, name, instead)
