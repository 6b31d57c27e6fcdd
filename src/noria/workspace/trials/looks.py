"""The last look at a trial that is on record."""

from noria.deploy.trials import Trial
from noria.ledger.store import Ledger
from noria.records import Event

__all__ = ["last_look"]

_OF_CANARIES = ("canary.continued", "canary.passed", "canary.failed")
_OF_TESTS = ("test.continued", "test.concluded", "bandit.moved")


def last_look(ledger: Ledger, trial: Trial) -> Event | None:
    """Give the last look at a trial that is on record."""
    subject = f"{trial.pointer.environment}/{trial.pointer.name}"
    of = [(verb, subject) for verb in _OF_TESTS]
    of += [(verb, ref) for verb in _OF_CANARIES for ref in trial.tried]
    began = None if trial.began is None else trial.began.id
    looks = [
        event
        for verb, about in of
        for event in ledger.list_events(verb=verb, subject=about, newest_first=True, limit=1)
        if event.cause in (trial.pointer.event, began)
    ]
    return max(looks, key=lambda each: each.seq, default=None)
