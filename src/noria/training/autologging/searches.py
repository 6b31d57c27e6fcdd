"""Searches for hyperparameters: what was tried becomes runs within the search's own."""

from typing import Any

import numpy as np

from noria.records import canonical_json
from noria.tracking.active_run import ActiveRun
from noria.training.autologging.plain_values import metric_name, plain, plain_params

__all__ = ["is_search", "log_search"]

BEST_TAG = "best_candidate"


def is_search(estimator: Any) -> bool:
    """Whether an estimator is a search of scikit-learn that has ended."""
    return isinstance(getattr(estimator, "cv_results_", None), dict) and "params" in estimator.cv_results_


def log_search(run: ActiveRun, search: Any, *, candidates: int) -> None:
    """Tell of a search: the best candidates as runs within, all as a table.

    Parameters
    ----------
    candidates
        How many become runs: those that rank best.
    """
    results: dict[str, Any] = search.cv_results_
    params = results["params"]
    _log_table(run, results)
    best = getattr(search, "best_index_", None)
    if best is not None:
        run.log_params({f"best_{name}": value for name, value in plain_params(params[best]).items()})
        score = getattr(search, "best_score_", None)
        if score is not None:
            run.log_metric("best_cv_score", score)
    for place in _ranked(results, len(params), best)[:candidates]:
        _log_candidate(run, search, place, is_best=place == best)


def _ranked(results: dict[str, Any], count: int, best: Any) -> list[int]:
    """Give candidates by rank of the metric that chose, the best first."""
    name = next((each for each in results if each.startswith("rank_test_")), None)
    ranks = np.arange(count) if name is None else results[name]
    return sorted(range(count), key=lambda place: (place != best, ranks[place], place))


def _log_candidate(run: ActiveRun, search: Any, place: int, *, is_best: bool) -> None:
    results = search.cv_results_
    cls = type(search.estimator)
    tags = {
        "mlflow.autologging": "sklearn",
        "estimator_name": cls.__name__,
        "estimator_class": f"{cls.__module__}.{cls.__qualname__}",
        **({BEST_TAG: "true"} if is_best else {}),
    }
    name = f"candidate {place}{', the best' if is_best else ''}"
    params = plain_params(results["params"][place])
    with run.within(name, params=params, tags=tags) as candidate:
        metrics = {}
        for key, values in results.items():
            if key != "params" and not key.startswith("param_") and np.asarray(values).dtype.kind in "iuf":
                metrics[metric_name(key)] = float(values[place])
        candidate.log_metrics(metrics)


def _log_table(run: ActiveRun, results: dict[str, Any]) -> None:
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for key, values in results.items():
        if key == "params":
            texts = [canonical_json(plain(each)).decode() for each in values]
            columns[key] = pa.array(texts, pa.string())
        elif not key.startswith("param_"):
            columns[key] = pa.array(np.asarray(values))
    run.log_table(pa.table(columns), "cv_results.parquet")
