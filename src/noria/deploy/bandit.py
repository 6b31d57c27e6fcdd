"""A bandit: shares of traffic that follow outcomes, to earn while learning (Thompson sampling).

Where an A/B test wants to know which release is better, a bandit wants to lose little on those that are not.
Its shares are the chances, as far as one can tell, that each release is the best; a release keeps a floor, so
that one that was unlucky comes back. `start_test` with the same arms and these shares moves the traffic.

References
----------
- W. R. Thompson, "On the likelihood that one unknown probability exceeds another in view of the evidence of
  two samples", Biometrika 25 (1933), 285-294.
- S. L. Scott, "A modern Bayesian look at the multi-armed bandit", Applied Stochastic Models in Business and
  Industry 26 (2010), 639-658: shares by the chance of being best.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from noria.evaluation.sequential import Moments

__all__ = ["thompson_shares"]

_DRAWS = 4_000


def thompson_shares(
    arms: Mapping[str, Moments],
    *,
    values: Literal["rates", "amounts"],
    floor: float = 0.05,
    is_less_better: bool = False,
    seed: int,
) -> dict[str, float]:
    """Give each arm the share of traffic that is its chance of being the best, but at least the floor.

    Rates have a beta posterior from a uniform prior; amounts a normal-inverse-gamma posterior from the
    weakest prior that is proper, centred on the mean of all arms. An arm of which nothing is known has the
    widest, so it is tried.

    Parameters
    ----------
    arms
        What is known of each, such as `noria.deploy.experiments.arm_moments` gives.
    values
        `rates`: each value is 0 or 1; `amounts`: any numbers.
    floor
        Least share of an arm.
    is_less_better
        Whether the arm with the smallest mean is the best, as of losses and times.
    seed
        The same seed and sums give the same shares.

    Raises
    ------
    ValueError
        If the floors of all arms add up to more than 1, or values that are to be rates are not 0 and 1.

    Examples
    --------
    >>> arms = {"m:1": Moments(500, 50, 50), "m:2": Moments(500, 80, 80)}
    >>> shares = thompson_shares(arms, values="rates", floor=0.1, seed=1)
    >>> round(shares["m:1"], 2), round(shares["m:2"], 2)
    (0.1, 0.9)
    """
    if not arms or not 0 <= floor * len(arms) <= 1:
        raise ValueError(
            f"{len(arms)} arms with a floor of {floor} each cannot be; give at least one arm, and a floor "
            f"of at most {1 / max(len(arms), 1):.4g}"
        )
    rng = np.random.default_rng(seed)
    if values == "rates":
        draws = np.stack([_rates(rng, name, each) for name, each in arms.items()])
    else:
        whole = sum(arms.values(), Moments())
        draws = np.stack([_amounts(rng, each, whole) for each in arms.values()])
    best = draws.argmin(axis=0) if is_less_better else draws.argmax(axis=0)
    chances = np.bincount(best, minlength=len(arms)) / _DRAWS
    shares = floor + (1 - floor * len(arms)) * chances
    return dict(zip(arms, shares.tolist(), strict=True))


def _rates(rng: np.random.Generator, name: str, arm: Moments) -> npt.NDArray[np.float64]:
    if not 0 <= arm.total <= arm.n or abs(arm.total - arm.squares) > 1e-9 * max(arm.n, 1):
        raise ValueError(
            f"the values of {name} add up to {arm.total} of {arm.n} and are not all 0 or 1; use "
            "values='amounts'"
        )
    return rng.beta(1 + arm.total, 1 + arm.n - arm.total, _DRAWS)


def _amounts(rng: np.random.Generator, arm: Moments, whole: Moments) -> npt.NDArray[np.float64]:
    """Draw means: one pseudo-observation at the common mean, with the common variance."""
    center = whole.mean if whole.n else 0.0
    spread = whole.variance if whole.n > 1 and whole.variance > 0 else 1.0
    known = arm.n + 1
    mean = (center + arm.total) / known
    around = arm.variance * (arm.n - 1) if arm.n > 1 else 0.0
    around += arm.n / known * (arm.mean - center) ** 2 if arm.n else 0.0
    shape = 1.5 + arm.n / 2
    rate = 0.5 * spread + 0.5 * around
    variances = rate / rng.gamma(shape, 1.0, _DRAWS)
    return mean + np.sqrt(variances / known) * rng.normal(size=_DRAWS)
