"""Watching a model at work: volume, data quality, drift, realized and estimated quality.

Declarations are here; the verb is `noria.monitoring.evaluate.evaluate`.
"""

from noria.monitoring.declarations import (
    Monitor,
    calibration,
    data_quality,
    drift,
    estimated_quality,
    quality,
    volume,
)

__all__ = ["Monitor", "calibration", "data_quality", "drift", "estimated_quality", "quality", "volume"]
