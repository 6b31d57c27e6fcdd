"""The project's verbs of trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from noria.deploy.environments import Move
    from noria.workspace.project import Project
    from noria.workspace.trials.records import TrialState

__all__ = ["TrialVerbs"]


class TrialVerbs(Opened):
    """Trials on real traffic."""

    def begin_test(self, test: str, *references: str, to: str, reason: str = "") -> Move:
        """Let versions answer beside the stable one, by an A/B test or a bandit that the project declares.

        It is judged by what is declared now, by a running `noria up` or `noria serve`, and ended by its rule.

        Parameters
        ----------
        test
            Its name.
        references
            The versions that are tried, as many as the declaration has weights beside the first.
        to
            Which environment.
        reason
            Why, for the record.

        Raises
        ------
        NotFound
            If there is no such test, version or environment; says what exists.
        ConfigError
            If versions are of several models, or rows could not be told apart.
        Conflict
            If there is nothing beside which they could be tried, or weights and versions are not as many.
        GateRefused
            If the gate does not let one in.

        Examples
        --------
        ::

            spring = noria.deploy.ABTest(name="spring", metric="conversion", min_effect=0.01)
            project.begin_test("spring", "offers:2", to="production")
            project.trial("offers@production").told
        """
        from noria.workspace.trials.beginning import begin_trial

        return begin_trial(cast("Project", self), test, references, environment=to, reason=reason)

    def trial(self, reference: str) -> TrialState:
        """Tell how what is on trial at `NAME@ENVIRONMENT` stands: a canary, a shadow, a test or a bandit.

        Raises
        ------
        NotFound
            If nothing is on trial there; says where something is.
        ConfigError
            If outcomes, scores or the log are not what it is judged by.
        """
        from noria.workspace.trials.standing import trial_state

        return trial_state(cast("Project", self), reference)
