from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import ReplayClock, WallClock
from noria.database.store import Database
from noria.errors import Conflict, NotFound
from noria.ledger.store import Ledger
from noria.records import digest_of

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


def test_an_event_comes_back_as_it_was_appended(ledger: Ledger) -> None:
    event = ledger.append(
        "drift.found", subject="late", payload={"js": 0.2, "on": ["a", None]}, actor="monitor"
    )
    assert ledger.get_event(event.id) == event
    assert (event.id, event.seq, event.actor) == ("project:1", 1, "monitor")
    assert event.payload == {"js": 0.2, "on": ["a", None]}
    assert event.at == NOON
    assert abs(event.recorded_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_each_event_names_the_digest_before_it(ledger: Ledger) -> None:
    first, second = ledger.append("a.b"), ledger.append("a.b")
    assert first.previous == "0" * 64
    assert second.previous == first.digest


def test_an_exported_event_proves_itself(ledger: Ledger) -> None:
    cause = ledger.append("a.b")
    event = ledger.append("a.c", subject="ü", payload={"x": [1, 2.5, "ß"]}, cause=cause.id, key="k")
    exported = {name: getattr(event, name) for name in event.__struct_fields__ if name != "digest"}
    assert digest_of({name: value for name, value in exported.items() if value is not None}) == event.digest


def test_the_same_key_gives_the_same_event(ledger: Ledger) -> None:
    event = ledger.append("drift.found", subject="late", payload={"day": 1}, key="late/1")
    assert ledger.append("drift.found", subject="late", payload={"day": 2}, key="late/1") == event
    assert ledger.find_event(key="late/1") == event
    assert ledger.find_event(key="late/2") is None
    assert len(ledger.list_events()) == 1


def test_a_key_is_not_taken_for_something_else(ledger: Ledger) -> None:
    ledger.append("drift.found", subject="late", key="k")
    with pytest.raises(Conflict, match=r"project:1, drift\.found late"):
        ledger.append("decay.found", subject="late", key="k")


@pytest.mark.parametrize(
    "cause", ["project:2", "project:99", "other:1", "nonsense", "project:", ":1", "project:-1"]
)
def test_an_unknown_cause_is_not_found(ledger: Ledger, cause: str) -> None:
    ledger.append("a.b")
    with pytest.raises(NotFound, match="no event named"):
        ledger.append("a.b", cause=cause)
    assert len(ledger.list_events()) == 1


def test_a_cause_may_be_in_another_scope(ledger: Ledger, database: Database) -> None:
    other = Ledger(database, scope="production", clock=WallClock())
    cause = ledger.append("a.b")
    effect = other.append("a.c", cause=cause.id)
    assert effect.id == "production:1"
    assert other.get_event(str(effect.cause)) == cause
    assert other.list_events() == [effect]


@pytest.mark.parametrize("id", ["project:1", "x", "", "project:one", "project:" + "9" * 40])
def test_an_unknown_event_is_not_found(ledger: Ledger, id: str) -> None:
    with pytest.raises(NotFound):
        ledger.get_event(id)


def test_events_are_listed_by_verb_noun_subject_place_and_instant(ledger: Ledger, clock: ReplayClock) -> None:
    verbs = ["drift.found", "drift.gone", "drifter.found", "decay.found"]
    made = []
    for number, verb in enumerate(verbs):
        clock.move_to(NOON + timedelta(days=number))
        made.append(ledger.append(verb, subject=f"s{number % 2}"))
    assert ledger.list_events(verb="drift.*") == made[:2]
    assert ledger.list_events(verb="decay.found") == made[3:]
    assert ledger.list_events(subject="s1") == [made[1], made[3]]
    assert ledger.list_events(after=2) == made[2:]
    assert ledger.list_events(newest_first=True, limit=2) == [made[3], made[2]]
    since, until = NOON + timedelta(days=1), NOON + timedelta(days=3)
    assert ledger.list_events(since=since, until=until) == made[1:3]


def test_instants_are_kept_in_utc_and_need_a_zone(ledger: Ledger) -> None:
    event = ledger.append("a.b", at=datetime(2013, 4, 1, 9, tzinfo=timezone(timedelta(hours=-4))))
    assert event.at == datetime(2013, 4, 1, 13, tzinfo=UTC)
    assert ledger.get_event(event.id).at.tzinfo is UTC
    assert ledger.verify().ok
    naive = datetime(2013, 4, 1, 9)
    with pytest.raises(ValueError, match="no time zone"):
        ledger.append("a.b", at=naive)
    with pytest.raises(ValueError, match="no time zone"):
        ledger.list_events(since=naive)
    with pytest.raises(ValueError, match="no time zone"):
        ledger.find_pointer("production", "late", at=naive)


@pytest.mark.parametrize("scope", ["", "a:b", "a/b"])
def test_a_scope_is_a_plain_name(database: Database, scope: str) -> None:
    with pytest.raises(ValueError, match="no scope"):
        Ledger(database, scope=scope, clock=WallClock())


_TEXTS = st.text(max_size=12).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
_PAYLOADS = st.dictionaries(
    _TEXTS,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | _TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(st.tuples(_TEXTS, _TEXTS, _PAYLOADS), max_size=5))
def test_whatever_is_appended_verifies_and_comes_back(
    entries: list[tuple[str, str, dict[str, object]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    database = Database.open(f"sqlite:///{tmp_path_factory.getbasetemp()}/whatever.db")
    ledger = Ledger(database, clock=WallClock())
    made = [ledger.append(verb, subject=subject, payload=payload) for verb, subject, payload in entries]
    assert [ledger.get_event(event.id) for event in made] == made
    assert [event.payload for event in made] == [payload for _, _, payload in entries]
    assert ledger.verify().ok
    database.close()
