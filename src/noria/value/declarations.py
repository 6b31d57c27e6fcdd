"""The objective of a model: which decision it serves, and what each outcome of it pays."""

import math
import re
from typing import Literal

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError

__all__ = ["Objective"]

_CELLS = ("tp", "fp", "fn", "tn")
_STOP = re.compile(r"value\s*<\s*-?\d+(?:\.\d+)?\s+for\s+(\w+)")


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided with a score, and what it pays.

    Parameters
    ----------
    decision : str
        The action, such as "offer rebooking".
    owner : str
        Who answers for it.
    unit : str
        The currency of the payoffs.
    payoff : mapping of "tp", "fp", "fn", "tn" to numbers
        What one row pays: acted and it happened, acted in vain, not acted though it happened, not acted
        and rightly so. Acting has to be worth more where it happens (`tp` above `fn`) and less where it
        does not (`fp` below `tn`), else there is nothing to decide.
    baseline : {"never", "always"}
        What would be done without a model.
    threshold : float, optional
        Act on scores above it. Without one, the cut that pays best if the scores are calibrated.
    stop_if : str, optional
        When to give up, such as "value < 0 for 60d".

    Raises
    ------
    ConfigError
        If any of it makes no sense.

    Examples
    --------
    >>> rebooking = Objective(decision="offer rebooking", owner="ops", unit="USD",
    ...                       payoff={"tp": 40, "fp": -9, "fn": 0, "tn": 0})
    >>> round(rebooking.cut, 4)
    0.1837
    """

    decision: str
    owner: str
    unit: str
    payoff: dict[str, int | float]
    baseline: Literal["never", "always"] = "never"
    threshold: float | None = None
    stop_if: str | None = None

    def __post_init__(self) -> None:
        for name in ("decision", "owner", "unit"):
            if not getattr(self, name).strip():
                raise ConfigError(f"the objective has an empty {name}; say which one it is")
        self._check_payoff()
        if self.baseline not in ("never", "always"):
            raise ConfigError(f"baseline is {self.baseline!r}; wanted 'never' or 'always'")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; wanted a probability, 0 to 1, or None")
        if self.stop_if is not None:
            self._check_stop(self.stop_if)

    def _check_payoff(self) -> None:
        payoff = self.payoff
        if sorted(payoff) != sorted(_CELLS):
            raise ConfigError(f"payoff names {', '.join(sorted(payoff)) or 'nothing'}; wanted tp, fp, fn, tn")
        if not all(math.isfinite(each) for each in payoff.values()):
            raise ConfigError(f"payoff holds a number that is not finite: {payoff}")
        if payoff["tp"] <= payoff["fn"] or payoff["fp"] >= payoff["tn"]:
            raise ConfigError(
                f"with payoff {payoff} the decision does not depend on the outcome; "
                "wanted tp above fn and fp below tn"
            )

    @staticmethod
    def _check_stop(text: str) -> None:
        found = _STOP.fullmatch(text.strip())
        if found is None:
            raise ConfigError(f"stop_if is {text!r}; write for example 'value < 0 for 60d'")
        try:
            parse_duration(found[1])
        except ValueError as err:
            raise ConfigError(f"stop_if is {text!r}: {err}") from err

    @property
    def cut(self) -> float:
        """Scores above it are acted on.

        Without a declared threshold: act if and only if `p tp + (1 - p) fp > p fn + (1 - p) tn` (Elkan,
        "The foundations of cost-sensitive learning", IJCAI 2001, equation 2, solved for p).
        """
        if self.threshold is not None:
            return self.threshold
        gain = self.payoff["tp"] - self.payoff["fn"]  # by acting where it happens
        waste = self.payoff["tn"] - self.payoff["fp"]  # by acting where it does not
        return waste / (gain + waste)
