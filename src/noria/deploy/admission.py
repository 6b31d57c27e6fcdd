"""What lets a release into an environment: the gate's event for the very digest that is to answer."""

from noria.deploy.gates import find_admission
from noria.deploy.releases import find_standing, read_release
from noria.errors import GateRefused
from noria.ledger.store import Ledger
from noria.records import Event, Version

__all__ = ["require_admission"]


def require_admission(
    ledger: Ledger, release: Version, *, environment: str, deployment: str, on_trial: bool
) -> Event:
    """Give the event by which the gate of `environment` let the model of `release` in.

    A refit passes on the admission of the version it was made from, where the gate allows refits; beside a
    stable release it may only enter on trial, because the canary is its judge.

    Raises
    ------
    GateRefused
        If there is no such event.
    """
    content = read_release(release)
    model = ledger.get_version_by_id(content.model)
    admission = find_admission(ledger, model, environment=environment)
    if admission is not None:
        return admission
    if content.refit_of is None:
        lacking = f"its digest {model.sha256[:16]}… has not passed the gate; judge it first"
        raise GateRefused(model.ref, environment, [lacking])
    judged = ledger.get_version_by_id(content.refit_of)
    admission = find_admission(ledger, judged, environment=environment)
    if admission is None or not admission.payload["refit_allowed"]:
        why = "has not passed the gate" if admission is None else "passed a gate that allows no refit"
        raise GateRefused(model.ref, environment, [f"it is a refit of {judged.ref}, which {why}"])
    standing = find_standing(ledger, environment=environment, deployment=deployment)
    if not on_trial and standing is not None and standing.release.id != release.id:
        lacking = f"it is a refit of {judged.ref} and has to be judged by a canary; start one"
        raise GateRefused(model.ref, environment, [lacking])
    return admission
