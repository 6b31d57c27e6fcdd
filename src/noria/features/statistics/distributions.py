"""What one column looks like: its distribution, or its most frequent categories."""

from typing import Any

import numpy as np

from noria.features.columns import Floats
from noria.features.statistics.columns import Column

__all__ = ["categories", "distribution", "rounded"]

_TOP, _LEAST_NAMED = 5, 10
_QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_DIGITS = 6  # the same set gives the same bytes on processors that add in another order


def distribution(column: Column, sample: Floats) -> dict[str, Any]:
    """Describe numbers by mean, deviation and quantiles; instants are only told apart from missing ones."""
    finite = sample[np.isfinite(sample)]
    if not len(finite) or column.kind == "instant":
        return {}
    scale = max(float(np.abs(finite).max()), 1e-300)  # so that squares of huge numbers stay finite
    quantiles = np.quantile(finite, list(_QUANTILES.values()), method="inverted_cdf")
    return {
        "mean": float((finite / scale).mean() * scale),
        "std": float((finite / scale).std() * scale),
        "quantiles": dict(zip(_QUANTILES, quantiles.tolist(), strict=True)),
    }


def categories(column: Column, sample: Floats) -> dict[str, Any]:
    """Count categories, and name the most frequent ones; not those of a few rows."""
    counts = np.bincount(sample[~np.isnan(sample)].astype(np.int64), minlength=1)
    most = [place for place in np.argsort(-counts, kind="stable")[:_TOP] if counts[place] >= _LEAST_NAMED]
    return {
        "categories": int((counts > 0).sum()),
        "top": tuple((column.vocabulary[place], int(counts[place])) for place in most),
    }


def rounded(value: Any) -> Any:
    """Round all numbers in what JSON can hold."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value
