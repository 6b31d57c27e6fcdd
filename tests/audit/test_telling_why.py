"""Why a model is where it is: chains of causes without a gap."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from sqlalchemy import text
from tests.audit.conftest import World

from noria.audit.records import Chain, Link
from noria.audit.why import why
from noria.deploy.environments import restore, rollback
from noria.errors import NotFound

LATER = datetime(2013, 3, 1, tzinfo=UTC)
PROMOTED = [
    "pointer.moved",
    "route.requested",
    "canary.passed",
    "pointer.moved",
    "route.requested",
    "gate.passed",
    "gate.passed",
    "trigger.decided",
    "decay.found",
    "monitor.evaluated",
    "replay.began",
]


def tell(world: World) -> Chain:
    return why(world.ledger, environment="production", deployment="late_parcel")


def assert_no_gap(links: Sequence[Link], *, ends_at: str | None = None) -> None:
    for link, cause in pairwise(links):
        assert link.cause == cause.event
        assert link.at >= cause.at
    assert links[-1].cause == ends_at


def test_every_link_is_the_cause_of_the_one_before(shared: World) -> None:
    chain = tell(shared)
    assert [link.verb for link in chain.links] == PROMOTED
    assert_no_gap(chain.links)
    assert chain.gap is None
    assert not chain.human
    for link in chain.links:
        event = shared.ledger.get_event(link.event)
        assert (event.cause, event.digest) == (link.cause, link.digest)
        assert link.reason


def test_every_model_of_the_chain_has_its_making_told(shared: World) -> None:
    chain = tell(shared)
    assert [branch.model for branch in chain.branches] == [f"late_parcel:{n}" for n in (4, 3, 2, 1)]
    told = {link.event for link in chain.links}
    for branch in chain.branches:
        assert [link.verb for link in branch.links][:2] == ["version.recorded", "run.started"]
        assert branch.joins in told
        assert_no_gap(branch.links, ends_at=branch.joins)


def test_verdicts_come_with_values_and_limits(shared: World) -> None:
    links = tell(shared).links
    gate = next(link for link in links if link.verb == "gate.passed" and "production_gate" in link.reason)
    (check,) = gate.checks
    assert (check.name, check.limit, check.passed) == ("beats_production(log_loss)", -0.5, True)
    assert check.value is not None
    assert check.low is not None
    assert check.low <= check.value
    canary = next(link for link in links if link.verb == "canary.passed")
    assert canary.checks[0].limit == 0.5
    assert canary.numbers["rows"] == canary.checks[0].rows
    found = next(link for link in links if link.verb == "decay.found")
    assert {"value", "limit", "rows"} <= set(found.numbers)


def test_what_was_there_before_is_told(shared: World) -> None:
    chain = tell(shared)
    assert (chain.now.model, chain.now.until, chain.on_trial) == ("late_parcel:4", None, None)
    assert chain.before is not None
    assert (chain.before.model, chain.before.until) == ("late_parcel:2", chain.now.since)


def test_after_a_drill_the_chain_of_the_promotion_is_told_as_well(world: World) -> None:
    asked = world.ledger.append(
        "person.asked", subject="late_parcel@production", payload={"reason": "a drill"}
    )
    rollback(world.production, key="back", cause=asked.id, at=LATER)
    back = tell(world)
    assert back.now.model == "late_parcel:2"
    assert [link.verb for link in back.links] == ["pointer.moved", "route.requested", "person.asked"]
    assert back.human
    assert_no_gap(back.links)
    assert [link.verb for link in back.origin][-1] == "replay.began"
    assert back.before is not None
    assert back.before.model == "late_parcel:4"
    restore(world.production, key="forth", cause=asked.id, at=LATER + timedelta(hours=1))
    forth = tell(world)
    assert forth.now.model == "late_parcel:4"
    assert [link.verb for link in forth.origin] == PROMOTED
    assert_no_gap(forth.origin)
    assert forth.gap is None


def test_an_event_that_is_gone_leaves_a_gap_that_is_named(world: World) -> None:
    decided = next(link for link in tell(world).links if link.verb == "trigger.decided")
    with world.ledger.database.write() as connection:
        connection.execute(
            text("delete from events where seq = :seq"), {"seq": int(decided.event.rpartition(":")[2])}
        )
    chain = tell(world)
    assert chain.gap == decided.event
    assert chain.links[-1].cause == decided.event


def test_an_unknown_deployment_says_what_there_is(shared: World) -> None:
    with pytest.raises(NotFound, match="late_parcel@production"):
        why(shared.ledger, environment="production", deployment="late_letter")


def test_a_chain_is_json_and_sentences(shared: World) -> None:
    chain = tell(shared)
    assert msgspec.json.decode(msgspec.json.encode(chain), type=Chain) == chain
    assert chain.sentences[-1] == "2013-01-31 00:00 replay.began: parcels are replayed"
    assert len(chain.sentences) == len(PROMOTED)
