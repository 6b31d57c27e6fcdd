"""What `noria.autolog` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from noria.tracking.active_run import ActiveRun

__all__ = ["FRAMEWORKS", "Options", "RunStarter"]

FRAMEWORKS = ("keras", "lightgbm", "lightning", "sklearn", "xgboost")


class RunStarter(Protocol):
    """Gives the run of a fit that no run is around of."""

    def __call__(self, name: str) -> ActiveRun:
        """Give a run for a `with` block."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What is logged, and where.

    Attributes
    ----------
    candidates
        Of a search for hyperparameters, the best so many become runs within its own.
    log_every
        Of iterations, every such one is logged, and the last.
    """

    start: RunStarter
    frameworks: frozenset[str]
    log_models: bool = True
    log_every: int = 1
    candidates: int = 5
