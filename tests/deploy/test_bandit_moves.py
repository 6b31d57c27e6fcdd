"""Bandits at a deployment: how they begin, move their shares, end, and leave alone what others have ended."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.deploy.bandit_declarations import Bandit
from noria.deploy.bandit_moves import BanditState, bandit_state, begin_bandit, conclude_bandit, shift_bandit
from noria.deploy.environments import Deployment, deploy, promote, rollback
from noria.deploy.history import Action
from noria.deploy.releases import Release, record_release, stable_release
from noria.deploy.trials import Trial, find_trial
from noria.errors import ConfigError, Conflict, LeaseHeld
from noria.evaluation.sequential import Moments
from noria.ledger.store import Ledger
from noria.records import Version, sha256_hex
from noria.serving.records import Input, Samples

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OFFERS = Bandit(name="offers", metric="conversion", floor=0.1, sticky="customer_id", max_days=10)
BETTER = {"late:1": Moments(500, 50, 50), "late:2": Moments(500, 90, 90)}


@pytest.fixture
def place(tmp_path: Path) -> Deployment:
    def samples(release: Release) -> Samples:
        return Samples(matrix=release.model_ref.encode(), scores=b"")

    ledger = Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(NOW))
    return Deployment(ledger, environment="production", name="late", fetch=Path, samples=samples, gated=False)


@pytest.fixture
def old_and_new(place: Deployment) -> tuple[Version, Version]:
    found = []
    for number in range(2):
        model = place.ledger.record_version(
            "model", "late", sha256=sha256_hex(b"%d" % number), uri="x", at=NOW
        )
        inputs = [Input(name="x", kind="number")]
        file_digest = sha256_hex(b"file %d" % number)
        found.append(record_release(place.ledger, model, file_digest=file_digest, inputs=inputs, at=NOW))
    deploy(place, found[0], key="d", at=NOW)
    return found[0], found[1]


def on_trial(place: Deployment) -> Trial:
    found = find_trial(place.ledger, environment="production", deployment="late")
    assert found is not None
    return found


def state(trial: Trial, arms: dict[str, Moments]) -> BanditState:
    weights = {each.release: each.weight for each in trial.content.entries}
    return bandit_state(OFFERS, arms, weights=weights, seed=1)


def test_shares_move_on_record_to_what_is_better(
    place: Deployment, old_and_new: tuple[Version, Version]
) -> None:
    begun = begin_bandit(place, OFFERS, old_and_new, key="b", at=NOW)
    trial = on_trial(place)
    assert (trial.action, trial.pointer) == (Action.TEST, begun.pointer)
    assert trial.began is not None
    assert (trial.began.verb, trial.began.payload["kind"]) == ("test.began", "bandit")
    assert (begun.route.unit, [each.weight for each in begun.route.entries]) == ("customer_id", [0.5, 0.5])
    few = state(trial, {"late:1": Moments(49, 5, 5), "late:2": Moments(500, 90, 90)})
    assert shift_bandit(place, OFFERS, trial, few, at=NOW) is None
    moved = shift_bandit(place, OFFERS, trial, state(trial, BETTER), at=NOW + timedelta(hours=1))
    assert moved is not None
    assert [round(each.weight, 2) for each in moved.route.entries] == [0.1, 0.9]
    assert (moved.route.salt, moved.pointer.stable) == (begun.route.salt, False)
    event = place.ledger.get_event(moved.request.cause or "")
    assert (event.verb, event.cause, event.payload["before"]) == (
        "bandit.moved", trial.began.id, {"late:1": 0.5, "late:2": 0.5},
    )  # fmt: skip
    again = on_trial(place)
    assert again.began == trial.began
    assert shift_bandit(place, OFFERS, again, state(again, BETTER), at=NOW + timedelta(hours=2)) is None


def test_a_move_that_was_kept_from_is_made_by_the_next_look(
    place: Deployment, old_and_new: tuple[Version, Version]
) -> None:
    begin_bandit(place, OFFERS, old_and_new, key="b", at=NOW)
    trial = on_trial(place)
    lease = place.ledger.acquire_lease(f"route:{place.subject}", ttl_s=60)
    with pytest.raises(LeaseHeld):
        shift_bandit(place, OFFERS, trial, state(trial, BETTER), at=NOW)
    place.ledger.release_lease(lease)
    worse = {"late:1": Moments(900, 300, 300), "late:2": Moments(900, 90, 90)}
    moved = shift_bandit(place, OFFERS, trial, state(trial, worse), at=NOW + timedelta(hours=1))
    assert moved is not None
    assert moved.route.entries[1].weight > 0.85  # as it was found when the move began
    assert len(place.ledger.list_events(verb="bandit.moved")) == 1


@pytest.mark.parametrize("ended", [promote, None])
def test_a_trial_that_was_ended_meanwhile_is_left_alone(
    place: Deployment, old_and_new: tuple[Version, Version], ended: Any
) -> None:
    begin_bandit(place, OFFERS, old_and_new, key="b", at=NOW)
    trial = on_trial(place)
    if ended is None:
        rollback(place, key="r", at=NOW)
    else:
        promote(place, old_and_new[1], key="p", at=NOW)
    moves = len(place.ledger.list_pointers(environment="production", name="late"))
    with pytest.raises(Conflict, match="has ended"):
        shift_bandit(place, OFFERS, trial, state(trial, BETTER), at=NOW)
    for arms in (BETTER, {}):
        with pytest.raises(Conflict, match="has ended"):
            conclude_bandit(place, OFFERS, trial, state(trial, arms), at=NOW + timedelta(days=11))
    assert len(place.ledger.list_pointers(environment="production", name="late")) == moves


@pytest.mark.parametrize(
    ("arms", "decision", "model"),
    [
        (BETTER, "winner", 1),
        ({"late:1": Moments(500, 90, 90), "late:2": Moments(500, 50, 50)}, "winner", 0),
        ({"late:1": Moments(500, 50, 50), "late:2": Moments(500, 52, 52)}, "stopped", 0),
        ({}, "stopped", 0),
    ],
)
def test_after_its_days_the_best_answers_everything_if_that_is_sure(
    place: Deployment,
    old_and_new: tuple[Version, Version],
    arms: dict[str, Moments],
    decision: str,
    model: int,
) -> None:
    begin_bandit(place, OFFERS, old_and_new, key="b", at=NOW)
    trial = on_trial(place)
    found = state(trial, arms)
    assert conclude_bandit(place, OFFERS, trial, found, at=NOW + timedelta(days=9.9)) is None
    ended = conclude_bandit(place, OFFERS, trial, found, at=NOW + timedelta(days=10))
    assert ended is not None
    assert ended.pointer.stable
    assert stable_release(place.ledger, environment="production", deployment="late") == old_and_new[model]
    event = place.ledger.get_event(ended.request.cause or "")
    assert (event.verb, event.payload["decision"]) == ("test.concluded", decision)
    again = conclude_bandit(place, OFFERS, trial, found, at=NOW + timedelta(days=11))
    assert again is not None
    assert again.pointer == ended.pointer


@given(n=st.integers(0, 400), hits=st.integers(0, 400), rest=st.integers(0, 400), whole=st.booleans())
def test_shares_of_any_conversions_add_up(n: int, hits: int, rest: int, whole: bool) -> None:
    """Customers with several rows have a mean between 0 and 1."""
    hits = min(hits, n)
    arms = {"a": Moments(n, hits, hits if whole else hits / 2), "b": Moments(400, rest, rest)}
    found = bandit_state(OFFERS, arms, weights={"a": 0.3, "b": 0.7}, seed=2)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert min(found.shares.values()) >= 0.1 - 1e-12
    assert found.shares == {"a": 0.3, "b": 0.7} or n >= OFFERS.min_units


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "error_rate"},
        {"weights": (1.0,)},
        {"floor": 0.0},
        {"floor": 0.6},
        {"every": "soon"},
        {"every": "0s"},
        {"confidence": 1.0},
        {"min_units": 1},
        {"name": ""},
    ],
)
def test_a_bandit_that_can_never_be_judged_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Bandit"):
        Bandit(**{"name": "t", "metric": "value", **wrong})
