"""What a trial is judged by: the canary of an environment's gate, the test or bandit that was declared."""

from typing import TYPE_CHECKING

import msgspec

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.declarations import ABTest, Canary
from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.deploy.trials import Trial
    from noria.workspace.project import Project

__all__ = ["canary_of", "declared_of"]


def canary_of(project: "Project", environment: str) -> Canary:
    """Give the rules of canaries of an environment: its gate's, or the defaults."""
    if project.environment(environment).gate is None:
        return Canary()
    return project.gate_of(environment).canary or Canary()


def declared_of(trial: "Trial") -> ABTest | Bandit:
    """Give what a test or a bandit was declared as when it began.

    Raises
    ------
    ConfigError
        If that is not on record.
    """
    if trial.began is None:
        raise ConfigError(
            f"what the test at {trial.pointer.environment}/{trial.pointer.name} is judged by is not on "
            "record; end it by hand, with noria deploy or noria rollback"
        )
    kind: type[ABTest | Bandit] = Bandit if trial.began.payload["kind"] == "bandit" else ABTest
    return msgspec.convert(trial.began.payload["declared"], kind)
