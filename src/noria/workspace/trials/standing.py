"""How what is on trial stands: by the last look on record, and by what is known now."""

from datetime import datetime
from typing import TYPE_CHECKING

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.bandit_moves import BanditState
from noria.deploy.canary import CanaryVerdict
from noria.deploy.experiments import ABVerdict
from noria.deploy.history import Action
from noria.deploy.releases import read_release
from noria.deploy.trials import Trial, find_trial
from noria.errors import NotFound
from noria.records import Event
from noria.workspace.trials.judging import look_at_bandit, look_at_canary, look_at_test
from noria.workspace.trials.looks import last_look
from noria.workspace.trials.records import TrialState
from noria.workspace.trials.rules import declared_of

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["trial_state"]


def trial_state(project: "Project", reference: str) -> TrialState:
    """Tell how what is on trial stands; see `noria.workspace.trials.verbs.TrialVerbs.trial`."""
    environment, name = project.place(reference)
    ledger = project.ledger
    trial = find_trial(ledger, environment=environment, deployment=name)
    if trial is None:
        names = {(each.environment, each.name) for each in ledger.list_pointers()}
        on_trial = {
            f"{each}@{where}"
            for where, each in names
            if find_trial(ledger, environment=where, deployment=each) is not None
        }
        raise NotFound("trial", reference, on_trial)
    kind, declared = trial.action.value, ""
    if trial.action is Action.TEST:
        test = declared_of(trial)
        kind, declared = ("bandit" if isinstance(test, Bandit) else "A/B test"), test.name
    found = _found(project, trial, now=project.now(environment))
    look = last_look(ledger, trial)
    return TrialState(
        environment=environment,
        deployment=name,
        kind=kind,
        name=declared,
        since=(trial.pointer if trial.began is None else trial.began).at,
        models={
            ref: read_release(ledger.get_version_by_id(each)).model_ref
            for ref, each in trial.content.releases.items()
        },
        shares={
            each.release: each.weight if each.mode == "answer" else 0.0 for each in trial.content.entries
        },
        found=found,
        told=_told(found, look),
        event=None if look is None else look.id,
    )


def _found(
    project: "Project", trial: Trial, *, now: datetime
) -> CanaryVerdict | ABVerdict | BanditState | None:
    match trial.action:
        case Action.CANARY:
            return look_at_canary(project, trial, now=now)
        case Action.TEST:
            test = declared_of(trial)
            if isinstance(test, Bandit):
                return look_at_bandit(project, trial, test)
            return look_at_test(project, trial, test, counts=None, now=now)
        case _:
            return None


def _told(found: CanaryVerdict | ABVerdict | BanditState | None, look: Event | None) -> str:
    if isinstance(found, BanditState):
        return found.told()
    if found is not None:
        return found.reason
    return "nothing is judged yet" if look is None else str(look.payload["reason"])
