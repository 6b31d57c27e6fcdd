from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from noria.checks.declarations import between, not_null, one_of, rejected_share
from noria.clock import ReplayClock
from noria.errors import BatchBlocked
from noria.lake.declarations import Dataset
from noria.lake.recording import Ingested
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import RunState

Day = Callable[..., pa.Table]

FLIGHTS = Dataset(
    "flights",
    key="flight",
    event_at="departed_at",
    known_at="landed_at",
    checks=[between("distance", 1, 6_000), one_of("carrier", ["AA", "UA"])],
    max_rejected_share=0.25,
)


def test_a_batch_lands_once_with_run_version_and_event(lake: Lake, ledger: Ledger, day: Day) -> None:
    cause = ledger.append("demo.started")
    at = datetime(2013, 1, 2, tzinfo=UTC)
    done = lake.ingest(FLIGHTS, day(1), batch=1, source="landings", cause=cause.id, at=at)
    assert (done.state, done.accepted, done.rejected, done.findings) == ("landed", 20, 0, ())
    assert lake.read("flights").equals(day(1))

    version = ledger.get_version("dataset", "flights")
    assert version == done.version
    assert (version.number, version.sha256, version.at) == (1, lake.version_digest("flights"), at)
    assert version.uri == "delta:flights@1"
    assert version.facts == {"rows": 20, "files": 1, "batch": 1, "accepted": 20, "rejected": 0}
    (run,) = ledger.list_runs(kind="ingest")
    assert (run.state, run.name, run.cause, run.params["batch"]) == (
        RunState.FINISHED,
        "flights",
        cause.id,
        1,
    )
    assert run.cost is not None
    assert [edge.version for edge in ledger.list_edges(run=run.id)] == [version.id]
    (event,) = ledger.list_events(verb="dataset.ingested")
    assert (event.subject, event.at, event.cause, event.payload["version"]) == (
        "flights",
        at,
        cause.id,
        version.id,
    )
    assert ledger.verify().ok


def test_the_same_batch_again_does_nothing(
    lake: Lake, reopened: Callable[[], Lake], ledger: Ledger, day: Day
) -> None:
    first = lake.ingest(FLIGHTS, day(1, distance=[9_999] + [5] * 19), batch=1)
    lake.ingest(FLIGHTS, day(2), batch=2)
    events = ledger.list_events()
    for again in (lake, reopened()):
        done = again.ingest(FLIGHTS, day(1), batch=1)
        assert (done.state, done.version, done.accepted, done.rejected) == ("already", first.version, 19, 1)
        assert [each.rule for each in done.findings] == ["between(distance, 1, 6000)"]
    assert lake.read("flights").num_rows == 39
    assert ledger.list_events() == events


def test_rejected_rows_are_kept_with_their_reason_and_the_rest_goes_on(lake: Lake, day: Day) -> None:
    at = datetime(2013, 1, 2, tzinfo=UTC)
    rows = day(1, 8, distance=[-5, 1, 1, 1, 1, 1, 1, 1], carrier=["??"] + ["AA"] * 7)
    done = lake.ingest(FLIGHTS, rows, batch=1, at=at)
    assert (done.accepted, done.rejected) == (7, 1)
    (rejected,) = lake.read("flights__rejected").to_pylist()
    assert rejected["reason"] == "between(distance, 1, 6000); one_of(carrier, AA, UA)"
    assert '"distance":-5' in rejected["payload"]
    assert (rejected["row"], rejected["batch"], rejected["rejected_at"]) == (0, 1, at)


def test_a_batch_beyond_the_limit_is_blocked_and_the_repaired_one_lands(
    lake: Lake, reopened: Callable[[], Lake], ledger: Ledger, day: Day
) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    kilometres = day(2, distance=[100_000 + each for each in range(20)])
    for again in (lake, lake, reopened()):
        with pytest.raises(BatchBlocked) as caught:
            again.ingest(FLIGHTS, kilometres, batch=2)
        assert caught.value.reasons == (
            "20 of 20 rows (100.0%) break the contract, at most 25.0% may: "
            "between(distance, 1, 6000) fails for 20",
        )
        assert caught.value.example == 'between(distance, 1, 6000) fails for {"distance":100000}'
        assert caught.value.__notes__ == [f"For example: {caught.value.example}"]
        assert "100000" not in str(caught.value)
    assert lake.read("flights").num_rows == 20
    assert "flights__rejected" not in lake.names()
    (event,) = ledger.list_events(verb="dataset.blocked")
    assert "100000" not in str(event.payload)
    assert [run.state for run in ledger.list_runs(kind="ingest")] == [RunState.FAILED, RunState.FINISHED]

    assert lake.ingest(FLIGHTS, day(2), batch=2).state == "landed"
    assert lake.read("flights").num_rows == 40
    assert [run.attempt for run in ledger.list_runs(kind="ingest")] == [2, 1, 1]
    assert ledger.verify().ok


def test_another_bad_content_of_a_batch_is_another_event(lake: Lake, ledger: Ledger, day: Day) -> None:
    for distance in (0, -1):
        with pytest.raises(BatchBlocked):
            lake.ingest(FLIGHTS, day(1, distance=[distance] * 20), batch=1)
    assert len(ledger.list_events(verb="dataset.blocked")) == 2


def test_one_row_blocks_where_the_rule_says_so(lake: Lake, day: Day) -> None:
    strict = Dataset(
        "flights",
        key="flight",
        event_at="departed_at",
        known_at="landed_at",
        checks=[not_null("carrier", severity="block")],
    )
    with pytest.raises(BatchBlocked, match=r"not_null\(carrier\) fails for 1 of 20 rows"):
        lake.ingest(strict, day(1, carrier=[None] + ["AA"] * 19), batch=1)
    assert lake.names() == []


def test_an_empty_batch_is_recorded_and_may_be_filled_later(lake: Lake, ledger: Ledger, day: Day) -> None:
    for _ in range(2):
        assert lake.ingest(FLIGHTS, day(1).slice(0, 0), batch=1).state == "empty"
    assert len(ledger.list_events(verb="dataset.empty")) == 1
    assert lake.names() == []
    assert lake.ingest(FLIGHTS, day(1), batch=1).state == "landed"


def test_keys_come_once_in_the_whole_table(lake: Lake, reopened: Callable[[], Lake], day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    other = [float(each) + 0.5 for each in range(20)]  # another delay than the one that landed
    mixed = pa.concat_tables([day(2), day(1, delay=other).slice(3, 2), day(2, delay=other).slice(0, 1)])
    for again in (lake, reopened()):
        verdict = again.check(FLIGHTS, mixed)
        expected = ["new_key(flight)", "new_key(flight)", "unique(flight)"]
        assert verdict.rejected["reason"].to_pylist() == expected
    done = reopened().ingest(FLIGHTS, mixed, batch=2)
    assert (done.accepted, done.rejected) == (20, 3)
    assert sorted(lake.read("flights")["flight"].to_pylist()) == sorted(
        [*day(1)["flight"].to_pylist(), *day(2)["flight"].to_pylist()]
    )
    after_compaction = pa.concat_tables([day(3), day(2, delay=other).slice(0, 2)])
    lake.compact("flights")
    assert lake.ingest(FLIGHTS, after_compaction, batch=3).rejected == 2
    assert reopened().check(FLIGHTS, after_compaction).accepted.num_rows == 0


def test_checking_before_landing_and_again_after_it(lake: Lake, day: Day) -> None:
    assert lake.check(FLIGHTS, day(1)).accepted.num_rows == 20
    assert lake.check(FLIGHTS, pa.table({"flight": pa.nulls(0)})).accepted.num_rows == 0
    assert lake.names() == []
    lake.ingest(FLIGHTS, day(1), batch=1)
    assert lake.check(FLIGHTS, day(1)).accepted.num_rows == 0
    assert lake.check(FLIGHTS, day(1), batch=1).accepted.num_rows == 20


def test_rows_without_key_or_instant_or_known_too_early_are_rejected(lake: Lake, day: Day) -> None:
    rows = day(1, 20)
    landed = rows["landed_at"].to_pylist()
    landed[1], landed[2] = None, landed[2] - timedelta(days=1)
    flight = [None, *rows["flight"].to_pylist()[1:]]
    rows = rows.set_column(0, "flight", pa.array(flight))
    rows = rows.set_column(5, "landed_at", pa.array(landed, pa.timestamp("us", "UTC")))
    lake.ingest(FLIGHTS, rows, batch=1)
    assert lake.read("flights__rejected")["reason"].to_pylist() == [
        "not_null(flight)",
        "not_null(landed_at)",
        "landed_at not before departed_at",
    ]


def test_a_float_key_that_is_nan_is_no_key(lake: Lake, day: Day) -> None:
    delays = Dataset(
        "delays", key="delay", event_at="departed_at", known_at="landed_at", max_rejected_share=1.0
    )
    lake.ingest(delays, day(1, 4, delay=[1.0, float("nan"), float("nan"), 2.0]), batch=1)
    assert lake.read("delays")["delay"].to_pylist() == [1.0, 2.0]


def test_the_lake_says_when_rows_were_known_where_the_source_does_not(
    lake: Lake, clock: ReplayClock, day: Day
) -> None:
    plain = Dataset("planes", key="flight", event_at="departed_at")
    frame = day(1, 2).drop(["landed_at"])
    lake.ingest(plain, frame, batch=1)
    clock.move_to(clock.now() + timedelta(days=1))
    lake.ingest(plain, day(2, 2).drop(["landed_at"]), batch=2)
    known = lake.read("planes")["known_at"].to_pylist()
    assert known == [datetime(2014, 1, 1, tzinfo=UTC)] * 2 + [datetime(2014, 1, 2, tzinfo=UTC)] * 2


def test_what_is_known_when_it_happens_has_one_column_for_both(lake: Lake, day: Day) -> None:
    schedule = Dataset("schedule", key="flight", event_at="departed_at", known_at="departed_at")
    assert lake.ingest(schedule, day(1), batch=1).accepted == 20


def test_a_batch_of_which_nothing_is_accepted_still_counts_as_landed(lake: Lake, day: Day) -> None:
    lenient = Dataset(
        "flights", key="flight", event_at="departed_at", known_at="landed_at", max_rejected_share=1.0
    )
    lake.ingest(lenient, day(1), batch=1)
    assert lake.ingest(lenient, day(1), batch=2).accepted == 0
    assert lake.ingest(lenient, day(1), batch=2).state == "already"
    assert lake.read("flights").num_rows == 20


def test_unicode_goes_through(lake: Lake, day: Day) -> None:
    names = ["München ✈", "Zürich", "\u202eodd", "a\x00b"]
    lake.ingest(FLIGHTS, day(1, 4, flight=names, carrier=["AA"] * 4), batch=1)
    assert lake.read("flights")["flight"].to_pylist() == names
    assert lake.check(FLIGHTS, day(1, 4, flight=names)).accepted.num_rows == 0


def test_without_a_ledger_batches_land_once_too(tmp_path: str, day: Day) -> None:
    lake = Lake(f"{tmp_path}/plain", ledger=None)
    assert lake.ingest(FLIGHTS, day(1), batch=1).version is None
    assert lake.ingest(FLIGHTS, day(1), batch=1).state == "already"
    assert Lake(f"file://{tmp_path}/plain", ledger=None).read("flights").num_rows == 20


def test_a_rejected_share_that_jumps_is_told_and_may_block(lake: Lake, ledger: Ledger, day: Day) -> None:
    rules = [between("distance", 1, 6_000), rejected_share(2, against="10d", severity="warn")]

    def ingest(number: int, bad: int, severity: str = "warn") -> Ingested:
        rule = rejected_share(2, against="10d", severity=severity)
        dataset = replace(FLIGHTS, checks=[rules[0], rule], max_rejected_share=0.5)
        rows = day(number, 400, distance=[-1] * bad + [500] * (400 - bad))
        return lake.ingest(
            dataset, rows, batch=number, at=datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number)
        )

    for number in range(1, 8):
        assert "rejected_share" not in str(ingest(number, number % 3).findings)
    jumped = ingest(8, 60).findings
    assert [(each.rule, each.severity) for each in jumped][1:] == [("rejected_share(2, against=10d)", "warn")]
    assert jumped[1].detail == (
        "60 of 400 rows (15.00%) break the contract, 60 times the 0.25% of the 7 batches before "
        "(by chance in at most 0.001 of all batches)"
    )
    with pytest.raises(
        BatchBlocked, match="rejected_share\\(2, against=10d\\) does not hold: 60 of 400 rows"
    ):
        ingest(9, 60, "block")  # the alarm before is no measure of it
    assert "rejected_share" not in str(ingest(9, 1, "block").findings)
    assert "rejected_share" not in str(ingest(40, 60).findings)  # nothing within ten days
    assert lake.ingest(replace(FLIGHTS, checks=rules), day(41, 10), batch=41).findings == ()
    with pytest.raises(BatchBlocked):
        lake.ingest(FLIGHTS, day(42, 3, distance=[-1] * 3), batch=42)
