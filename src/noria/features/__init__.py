"""Features: one definition, the same value offline (point in time) and online.

Declarations are here; the engines are in `noria.features.offline`, `.online`, `.reading`, `.materialize`.
"""

from noria.features import agg
from noria.features.declarations import Aggregation, FeatureView, ViewSpec

__all__ = ["Aggregation", "FeatureView", "ViewSpec", "agg"]
