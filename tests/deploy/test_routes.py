"""Releases, routes, and moves of pointers: what answers, what did, and that kills change neither.

Run as a script, this file makes a fixed history in a folder: that process is what gets killed.
`python test_routes.py FOLDER [STEP]`: with a step such as `promote:after` it ends itself with -9 there,
`before` or `after` the target serves the route of that move.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.deploy.declarations import Canary, Gate, at_least
from noria.deploy.environments import Deployment, Move, deploy, promote, restore, rollback, start_canary
from noria.deploy.gates import GateEvidence, enter, judge
from noria.deploy.history import Action, list_moves
from noria.deploy.releases import (
    Release,
    find_standing,
    production_version,
    read_release,
    read_route,
    record_release,
    stable_release,
)
from noria.errors import Conflict, DeploymentError, DigestMismatch, GateRefused, LeaseHeld, NotFound
from noria.ledger.store import Ledger
from noria.records import Version, digest_of, sha256_hex
from noria.serving.records import Input, Route, Samples

NOW = datetime(2013, 4, 1, tzinfo=UTC)
ENVIRONMENT, NAME = "production", "late_arrival"


class FileTarget:
    """Serves a route by writing it to a file."""

    def __init__(self, folder: Path, fatal: str | None = None) -> None:
        self.file, self.fatal, self.doing = folder / "route.json", fatal, ""

    def swap(self, route: Route) -> None:
        self._maybe_die("before")
        self.file.write_bytes(msgspec.json.encode(route))
        self._maybe_die("after")

    def serving(self) -> Route | None:
        return msgspec.json.decode(self.file.read_bytes(), type=Route) if self.file.exists() else None

    def _maybe_die(self, moment: str) -> None:
        if self.fatal == f"{self.doing}:{moment}":
            os.kill(os.getpid(), signal.SIGKILL)


def fetch(sha256: str) -> Path:
    return Path(sha256)


def samples(release: Release) -> Samples:
    return Samples(matrix=release.model_ref.encode(), scores=b"")


def open_ledger(folder: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{folder}/noria.db"), clock=ReplayClock(NOW))


def make_release(ledger: Ledger, text: str, *, refit_of: Version | None = None) -> Version:
    model = ledger.record_version("model", NAME, sha256=sha256_hex(text.encode()), uri="x", at=NOW)
    return record_release(
        ledger,
        model,
        file_digest=sha256_hex(f"file of {text}".encode()),
        inputs=[Input(name="distance", kind="number")],
        refit_of=refit_of,
        at=NOW,
    )


def make_history(folder: Path, fatal: str | None = None) -> None:
    """Deploy a, try b and promote it, roll back to a, restore b, try c and roll that back."""
    target = FileTarget(folder, fatal)
    ledger = open_ledger(folder)
    place = Deployment(
        ledger,
        environment=ENVIRONMENT,
        name=NAME,
        fetch=fetch,
        samples=samples,
        target=target,
        gated=False,
    )
    a, b, c = (make_release(ledger, each) for each in "abc")
    moves: dict[str, Callable[[str, datetime], Move]] = {
        "deploy": lambda key, at: deploy(place, a, key=key, at=at),
        "canary": lambda key, at: start_canary(place, b, share=0.2, key=key, at=at),
        "promote": lambda key, at: promote(place, b, key=key, at=at),
        "rollback": lambda key, at: rollback(place, key=key, at=at),
        "restore": lambda key, at: restore(place, key=key, at=at),
        "retry": lambda key, at: start_canary(place, c, share=0.5, key=key, at=at),
        "abort": lambda key, at: rollback(place, key=key, at=at),
    }
    for hours, (name, move) in enumerate(moves.items()):
        target.doing = name
        move(name, NOW + timedelta(hours=hours))


class BrokenTarget:
    def swap(self, route: Route) -> None:
        raise DeploymentError(f"route {route.number} does not come up")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


@pytest.fixture
def place(ledger: Ledger, tmp_path: Path) -> Deployment:
    return at_place(ledger, FileTarget(tmp_path))


def at_place(ledger: Ledger, target: Any, *, gated: bool = False) -> Deployment:
    return Deployment(
        ledger, environment=ENVIRONMENT, name=NAME, fetch=fetch, samples=samples, target=target, gated=gated
    )


def answering(ledger: Ledger) -> dict[str, float]:
    """Shares by release number, as the pointer says."""
    standing = find_standing(ledger, environment=ENVIRONMENT, deployment=NAME, stable=False)
    assert standing is not None
    return {entry.release: entry.weight for entry in read_route(standing.route).entries}


def history(folder: Path) -> list[tuple[Any, ...]]:
    """What must not depend on kills: the pointers in order, and what the target serves."""
    ledger = open_ledger(folder)
    moves = list_moves(ledger, environment=ENVIRONMENT, deployment=NAME)
    serving = FileTarget(folder).serving()
    assert serving is not None
    found: list[tuple[Any, ...]] = [
        (
            move.action,
            move.pointer.number,
            move.pointer.version,
            move.pointer.stable,
            move.pointer.at,
            move.reason,
        )
        for move in moves
    ]
    return [*found, (serving.number, serving.id, serving.entries)]


def test_a_release_is_its_content_and_its_digest_can_be_recomputed(ledger: Ledger) -> None:
    release = make_release(ledger, "a")
    assert make_release(ledger, "a").id == release.id
    assert make_release(ledger, "b").number == 2
    assert digest_of(release.facts) == release.sha256
    assert read_release(release).model_ref == "late_arrival:1"


def test_a_changed_release_does_not_read(ledger: Ledger) -> None:
    release = make_release(ledger, "a")
    changed = msgspec.structs.replace(release, facts=release.facts | {"threshold": 0.1})
    with pytest.raises(DigestMismatch):
        read_release(changed)


def test_deploying_serves_first_and_then_moves_the_pointer(place: Deployment, ledger: Ledger) -> None:
    release = make_release(ledger, "a")
    move = deploy(place, release, key="d1", at=NOW)
    assert isinstance(place.target, FileTarget)
    assert place.target.serving() == move.route
    assert move.pointer.version == move.version.id
    assert move.route.id == move.version.sha256
    assert move.route.models[0].release == release.ref
    assert (move.route.models[0].model, move.route.models[0].version) == ("late_arrival", 1)
    assert "release late_arrival:1 (model late_arrival:1) answers all traffic" in move.pointer.reason


def test_the_same_key_again_changes_nothing(place: Deployment, ledger: Ledger) -> None:
    release = make_release(ledger, "a")
    first = deploy(place, release, key="d1", at=NOW)
    head = ledger.verify().events
    assert deploy(place, release, key="d1", at=NOW) == first
    assert ledger.verify().events == head
    with pytest.raises(Conflict, match="another move"):
        deploy(place, make_release(ledger, "b"), key="d1", at=NOW)


def test_an_old_move_made_again_does_not_undo_later_ones(place: Deployment, ledger: Ledger) -> None:
    a, b = make_release(ledger, "a"), make_release(ledger, "b")
    deploy(place, a, key="d1", at=NOW)
    later = deploy(place, b, key="d2", at=NOW)
    deploy(place, a, key="d1", at=NOW)
    assert isinstance(place.target, FileTarget)
    assert place.target.serving() == later.route
    assert answering(ledger) == {b.ref: 1.0}


def test_a_canary_shares_the_traffic_and_leaves_the_stable_release(place: Deployment, ledger: Ledger) -> None:
    a, b = make_release(ledger, "a"), make_release(ledger, "b")
    deploy(place, a, key="d1", at=NOW)
    start_canary(place, b, share=0.2, key="c1", at=NOW + timedelta(days=1))
    assert answering(ledger) == {a.ref: 0.8, b.ref: 0.2}
    assert stable_release(ledger, environment=ENVIRONMENT, deployment=NAME) == a
    promote(place, b, key="p1", at=NOW + timedelta(days=4))
    assert answering(ledger) == {b.ref: 1.0}
    then = production_version(ledger, environment=ENVIRONMENT, deployment=NAME, at=NOW + timedelta(days=2))
    now = production_version(ledger, environment=ENVIRONMENT, deployment=NAME)
    assert then is not None
    assert now is not None
    assert (then.number, now.number) == (1, 2)
    early = NOW - timedelta(seconds=1)
    assert production_version(ledger, environment=ENVIRONMENT, deployment=NAME, at=early) is None


def test_rolling_a_canary_back_gives_all_traffic_to_the_champion(place: Deployment, ledger: Ledger) -> None:
    a, b = make_release(ledger, "a"), make_release(ledger, "b")
    deploy(place, a, key="d1", at=NOW)
    start_canary(place, b, share=0.2, key="c1", at=NOW)
    rollback(place, key="r1", at=NOW)
    assert answering(ledger) == {a.ref: 1.0}
    with pytest.raises(NotFound, match="earlier stable route"):
        rollback(place, key="r2", at=NOW)


def test_rollbacks_go_further_back_and_restores_undo_them(place: Deployment, ledger: Ledger) -> None:
    a, b, c = (make_release(ledger, each) for each in "abc")
    for key, release in (("1", a), ("2", b), ("3", c)):
        deploy(place, release, key=key, at=NOW)
    steps = [("4", rollback, b), ("5", rollback, a), ("6", restore, b), ("7", restore, c)]
    for key, move, expected in steps:
        move(place, key=key, at=NOW)
        assert answering(ledger) == {expected.ref: 1.0}
    with pytest.raises(NotFound, match="rolled back"):
        restore(place, key="8", at=NOW)
    rollback(place, key="9", at=NOW)
    deploy(place, a, key="10", at=NOW)
    with pytest.raises(NotFound, match="rolled back"):  # a deploy ends what could be restored
        restore(place, key="11", at=NOW)
    rollback(place, key="12", at=NOW)
    assert answering(ledger) == {b.ref: 1.0}


def test_only_what_is_on_trial_is_promoted(place: Deployment, ledger: Ledger) -> None:
    a, b = make_release(ledger, "a"), make_release(ledger, "b")
    with pytest.raises(NotFound, match="stable release"):
        start_canary(place, b, share=0.2, key="c0", at=NOW)
    deploy(place, a, key="d1", at=NOW)
    with pytest.raises(Conflict, match="not on trial"):
        promote(place, b, key="p1", at=NOW)
    with pytest.raises(Conflict, match="nothing to try"):
        start_canary(place, a, share=0.2, key="c1", at=NOW)


def test_a_target_that_fails_is_recorded_and_the_pointer_stays(place: Deployment, ledger: Ledger) -> None:
    a, b = make_release(ledger, "a"), make_release(ledger, "b")
    deploy(place, a, key="d1", at=NOW)
    broken = at_place(ledger, BrokenTarget())
    for _ in range(2):
        with pytest.raises(DeploymentError, match="does not come up"):
            deploy(broken, b, key="d2", at=NOW)
    (failed,) = ledger.list_events(verb="route.failed")
    assert "its pointer stays" in failed.payload["reason"]
    assert answering(ledger) == {a.ref: 1.0}
    deploy(place, b, key="d2", at=NOW)  # repaired: the same key goes on
    assert answering(ledger) == {b.ref: 1.0}


def test_a_failed_move_is_not_finished_over_later_ones(place: Deployment, ledger: Ledger) -> None:
    a, b, c = (make_release(ledger, each) for each in "abc")
    deploy(place, a, key="d1", at=NOW)
    with pytest.raises(DeploymentError):
        deploy(at_place(ledger, BrokenTarget()), b, key="d2", at=NOW)
    deploy(place, c, key="d3", at=NOW)
    with pytest.raises(Conflict, match="under a new key"):
        deploy(place, b, key="d2", at=NOW)


def test_two_do_not_move_one_deployment_at_once(place: Deployment, ledger: Ledger) -> None:
    lease = ledger.acquire_lease(f"route:{ENVIRONMENT}/{NAME}", ttl_s=60)
    with pytest.raises(LeaseHeld):
        deploy(place, make_release(ledger, "a"), key="d1", at=NOW)
    ledger.release_lease(lease)
    deploy(place, make_release(ledger, "a"), key="d1", at=NOW)


GATE = Gate("production_gate", checks=[at_least("auc", 0.7)])


def admit(ledger: Ledger, release: Version, *, auc: float = 0.8, gate: Gate = GATE) -> str:
    model = ledger.get_version_by_id(read_release(release).model)
    evidence = GateEvidence(
        y=[], at=[], challenger=[], base_rate=0.2, data_version="landings:1", metrics={"auc": auc}
    )
    event = enter(ledger, gate, judge(gate, evidence), version=model, environment=ENVIRONMENT, at=NOW)
    return event.id


def test_only_the_digest_that_passed_the_gate_is_deployed(ledger: Ledger, tmp_path: Path) -> None:
    place = at_place(ledger, FileTarget(tmp_path), gated=True)
    a, b = make_release(ledger, "a"), make_release(ledger, "b")
    with pytest.raises(GateRefused, match="has not passed the gate"):
        deploy(place, a, key="d1", at=NOW)
    admitted = admit(ledger, a)
    move = deploy(place, a, key="d1", at=NOW)
    assert move.request.cause == admitted
    admit(ledger, b, auc=0.6)
    with pytest.raises(GateRefused):
        start_canary(place, b, share=0.2, key="c1", at=NOW)


def test_a_refit_enters_by_its_gated_version_and_through_a_canary(ledger: Ledger, tmp_path: Path) -> None:
    place = at_place(ledger, FileTarget(tmp_path), gated=True)
    refits = Gate("production_gate", checks=[at_least("auc", 0.7)], refit=True, canary=Canary())
    judged = make_release(ledger, "a")
    model = ledger.get_version_by_id(read_release(judged).model)
    refit = make_release(ledger, "a on all rows", refit_of=model)
    admit(ledger, judged)
    with pytest.raises(GateRefused, match="allows no refit"):
        deploy(place, refit, key="d1", at=NOW)
    admit(ledger, judged, gate=refits)
    deploy(place, refit, key="d1", at=NOW)  # nothing stands yet, so nothing could judge it
    second = make_release(ledger, "b")
    second_model = ledger.get_version_by_id(read_release(second).model)
    second_refit = make_release(ledger, "b on all rows", refit_of=second_model)
    admit(ledger, second, gate=refits)
    with pytest.raises(GateRefused, match="judged by a canary"):
        deploy(place, second_refit, key="d2", at=NOW)
    start_canary(place, second_refit, share=0.2, key="c2", at=NOW)
    promote(place, second_refit, key="p2", at=NOW)
    deploy(place, refit, key="d1", at=NOW)  # what was done is not judged again
    assert answering(ledger) == {second_refit.ref: 1.0}


def test_why_leads_from_the_pointer_to_the_gate(ledger: Ledger, tmp_path: Path) -> None:
    place = at_place(ledger, FileTarget(tmp_path), gated=True)
    release = make_release(ledger, "a")
    admit(ledger, release)
    move = deploy(place, release, key="d1", at=NOW)
    chain, event = [], ledger.get_event(move.pointer.event)
    while True:
        chain.append(event.verb)
        assert event.payload["reason"]
        if event.cause is None:
            break
        event = ledger.get_event(event.cause)
    assert chain == ["pointer.moved", "route.requested", "gate.passed"]


def run_worker(folder: Path, *more: str, kill_after_s: float | None = None) -> int:
    process = subprocess.Popen([sys.executable, __file__, str(folder), *more])
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        process.kill()
    return process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    make_history(folder)
    return history(folder)


def test_the_history_tells_every_move(undisturbed: list[tuple[Any, ...]]) -> None:
    actions = [entry[0] for entry in undisturbed[:-1]]
    assert actions == [
        Action.DEPLOY,
        Action.CANARY,
        Action.PROMOTE,
        Action.ROLLBACK,
        Action.RESTORE,
        Action.CANARY,
        Action.ROLLBACK,
    ]


@pytest.mark.parametrize("step", ["deploy:after", "promote:before", "rollback:after"])
def test_a_kill_between_serving_and_pointing_converges(
    step: str, tmp_path: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    assert run_worker(tmp_path, step) == -9
    make_history(tmp_path)
    assert history(tmp_path) == undisturbed
    assert open_ledger(tmp_path).verify().ok


def test_kills_at_random_instants_converge(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    rng = random.Random(7)
    for _ in range(4):
        run_worker(tmp_path, kill_after_s=rng.uniform(0.3, 0.9))
    make_history(tmp_path)
    assert history(tmp_path) == undisturbed
    assert open_ledger(tmp_path).verify().ok


if __name__ == "__main__":
    make_history(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
