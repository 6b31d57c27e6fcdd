"""The data plane: a worker process that answers predictions over HTTP and logs every one.

A worker is given a folder (`python -m noria.serving FOLDER`) with a `WorkerConfig` and a `Route`, both
written by the control plane. It speaks the Open Inference Protocol v2, joins online features, scores every
release of the route, appends to its spool and only then answers.

A request has one tensor per request column (BYTES for categories and entities, numbers otherwise; null is
missing), may have a BYTES tensor `prediction_id`, and where the environment's clock is "replay" a parameter
`at`. The answer has the tensors `score`, `prediction_id`, `release` and `version`, and the parameters `route`
(number) and `logged` (rows that had been answered before).
"""

from noria.serving.client import Answers, ServingClient
from noria.serving.records import Input, Route, RouteEntry, Samples, ServedModel, WorkerConfig, WorkerStatus

__all__ = [
    "Answers",
    "Input",
    "Route",
    "RouteEntry",
    "Samples",
    "ServedModel",
    "ServingClient",
    "WorkerConfig",
    "WorkerStatus",
]
