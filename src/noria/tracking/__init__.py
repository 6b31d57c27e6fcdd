"""Runs as experiments: parameters, metrics with steps, tags.

The records are here; `noria.tracking.store` keeps them and `noria.tracking.runs` is where a run is tracked.
"""

from noria.tracking.records import DEFAULT_EXPERIMENT, Experiment, MetricPoint

__all__ = ["DEFAULT_EXPERIMENT", "Experiment", "MetricPoint"]
