"""Money made by decisions: each labelled row pays once, and an interval says how sure the sum is.

Sums are counts times payoffs: with whole payoffs they are exact, with others they do not depend on the
order of rows. A row without an outcome pays nothing and is counted.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from noria.value.declarations import Objective

__all__ = ["Money", "act", "money", "money_table", "payoffs"]

_RESAMPLES = 1_000
_TN, _FP, _FN, _TP, _UNLABELLED = range(5)  # 2 * happened + acted

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """What the decisions on some rows paid, in the objective's unit."""

    label: str  # the month, or whatever else the rows have in common
    rows: int
    acted: int  # with or without a known outcome
    tp: int
    fp: int
    fn: int
    tn: int
    unlabelled: int
    value: int | float
    baseline_value: int | float
    gain: int | float  # value minus baseline value
    low: float  # 95 % bootstrap interval of the gain
    high: float


def act(objective: Objective, scores: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Say which rows to act on: scores above the objective's cut.

    Raises
    ------
    ValueError
        If a score is NaN.

    Examples
    --------
    >>> rebooking = Objective(decision="rebook", owner="ops", unit="USD",
    ...                       payoff={"tp": 40, "fp": -9, "fn": 0, "tn": 0})
    >>> act(rebooking, [0.1, 0.3]).tolist()
    [False, True]
    """
    known = np.asarray(scores, dtype=np.float64)
    if np.isnan(known).any():
        raise ValueError("scores hold a NaN; a row without a score cannot be decided on")
    return known > objective.cut


def payoffs(objective: Objective, scores: npt.ArrayLike, outcomes: npt.ArrayLike) -> FloatArray:
    """Give what each row pays; 0 where the outcome is NaN.

    Raises
    ------
    ValueError
        If lengths differ, a score is NaN, or an outcome is none of 0, 1 and NaN.

    Examples
    --------
    >>> rebooking = Objective(decision="rebook", owner="ops", unit="USD",
    ...                       payoff={"tp": 40, "fp": -9, "fn": 0, "tn": 0})
    >>> payoffs(rebooking, [0.9, 0.9, 0.9], [1, 0, float("nan")]).tolist()
    [40.0, -9.0, 0.0]
    """
    pays = objective.payoff
    by_cell = np.array([pays["tn"], pays["fp"], pays["fn"], pays["tp"], 0], dtype=np.float64)
    return by_cell[_cells(act(objective, scores), outcomes)]


def money(
    objective: Objective,
    scores: npt.ArrayLike,
    outcomes: npt.ArrayLike,
    *,
    days: npt.ArrayLike | None = None,
    label: str = "all",
    seed: int = 0,
) -> Money:
    """Sum up what the decisions on these rows paid.

    Parameters
    ----------
    objective : Objective
    scores : array of shape (n,)
        Predicted probabilities.
    outcomes : array of shape (n,)
        0, 1, or NaN where none is known.
    days : array of shape (n,), optional
        Rows of one day are not independent: the interval resamples whole days. Without it, or with one
        day only, it resamples rows.
    label : str
        What the rows have in common.
    seed : int
        Seed of the interval.

    Raises
    ------
    ValueError
        See `payoffs`.
    """
    acted = act(objective, scores)
    cells = _cells(acted, outcomes)
    counts = np.bincount(cells, minlength=5)
    value = _value(objective, counts)
    baseline_value = _baseline_value(objective, counts)
    low, high = _interval(objective, cells, counts, days, np.random.default_rng(seed))
    return Money(
        label=label,
        rows=int(cells.size),
        acted=int(acted.sum()),
        tp=int(counts[_TP]),
        fp=int(counts[_FP]),
        fn=int(counts[_FN]),
        tn=int(counts[_TN]),
        unlabelled=int(counts[_UNLABELLED]),
        value=value,
        baseline_value=baseline_value,
        gain=value - baseline_value,
        low=low,
        high=high,
    )


def money_table(
    objective: Objective,
    scores: npt.ArrayLike,
    outcomes: npt.ArrayLike,
    months: Sequence[str] | npt.ArrayLike,
    *,
    days: npt.ArrayLike | None = None,
    seed: int = 0,
) -> tuple[Money, ...]:
    """Give one `Money` per month, in the order of their labels.

    Parameters
    ----------
    months : array of shape (n,)
        The month of each row: texts such as "2013-04", or `datetime64[M]`.
    objective, scores, outcomes, days, seed
        As for `money`.

    Raises
    ------
    ValueError
        See `payoffs`.

    Examples
    --------
    >>> rebooking = Objective(decision="rebook", owner="ops", unit="USD",
    ...                       payoff={"tp": 40, "fp": -9, "fn": 0, "tn": 0})
    >>> april, may = money_table(rebooking, [0.9, 0.1, 0.5], [1, 0, 0], ["2013-04", "2013-04", "2013-05"])
    >>> april.label, april.gain, may.gain
    ('2013-04', 40, -9)
    """
    known_scores = np.asarray(scores, dtype=np.float64)
    known_outcomes = np.asarray(outcomes, dtype=np.float64)
    labels, members = np.unique(np.asarray(months), return_inverse=True)
    if members.shape != known_scores.shape:
        raise ValueError(f"months have shape {members.shape}, scores {known_scores.shape}; wanted equal")
    by_day = None if days is None else np.asarray(days)
    table = []
    for number, name in enumerate(labels):
        rows = members == number
        table.append(
            money(
                objective,
                known_scores[rows],
                known_outcomes[rows],
                days=None if by_day is None else by_day[rows],
                label=str(name),
                seed=seed,
            )
        )
    return tuple(table)


def _cells(acted: npt.NDArray[np.bool_], outcomes: npt.ArrayLike) -> IntArray:
    """Give the cell of the payoff matrix of each row, or "unlabelled"."""
    known = np.asarray(outcomes, dtype=np.float64)
    if known.ndim != 1 or known.shape != acted.shape:
        raise ValueError(f"scores have shape {acted.shape}, outcomes {known.shape}; wanted two equal (n,)")
    unlabelled = np.isnan(known)
    if not (unlabelled | (known == 0) | (known == 1)).all():
        raise ValueError("outcomes hold something other than 0, 1 and NaN")
    cells: IntArray = 2 * (known == 1).astype(np.int64) + acted
    cells[unlabelled] = _UNLABELLED
    return cells


def _value(objective: Objective, counts: IntArray) -> int | float:
    pays = objective.payoff
    return (
        int(counts[_TP]) * pays["tp"]
        + int(counts[_FP]) * pays["fp"]
        + int(counts[_FN]) * pays["fn"]
        + int(counts[_TN]) * pays["tn"]
    )


def _baseline_value(objective: Objective, counts: IntArray) -> int | float:
    happened = int(counts[_TP] + counts[_FN])
    did_not = int(counts[_FP] + counts[_TN])
    if objective.baseline == "never":
        return happened * objective.payoff["fn"] + did_not * objective.payoff["tn"]
    return happened * objective.payoff["tp"] + did_not * objective.payoff["fp"]


def _gains(objective: Objective) -> FloatArray:
    """Give what each cell pays above the baseline."""
    pays = objective.payoff
    if objective.baseline == "never":
        return np.array([0, pays["fp"] - pays["tn"], 0, pays["tp"] - pays["fn"], 0], dtype=np.float64)
    return np.array([pays["tn"] - pays["fp"], 0, pays["fn"] - pays["tp"], 0, 0], dtype=np.float64)


def _interval(
    objective: Objective,
    cells: IntArray,
    counts: IntArray,
    days: npt.ArrayLike | None,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Give the 95 % percentile bootstrap interval of the gain's sum."""
    if not cells.size:
        return 0.0, 0.0
    gains = _gains(objective)
    names, members = (None, None) if days is None else np.unique(np.asarray(days), return_inverse=True)
    if names is None or members is None or names.size < 2:
        # Resampling n rows is one multinomial draw over the five cells.
        sums = rng.multinomial(cells.size, counts / cells.size, size=_RESAMPLES) @ gains
    else:
        if members.shape != cells.shape:
            raise ValueError(f"days have shape {members.shape}, scores {cells.shape}; wanted equal")
        by_day = np.bincount(members, weights=gains[cells], minlength=names.size)
        sums = by_day[rng.integers(0, names.size, size=(_RESAMPLES, names.size))].sum(axis=1)
    low, high = np.quantile(sums, [0.025, 0.975])
    return float(low), float(high)
