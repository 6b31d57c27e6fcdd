"""Runs whose work is done elsewhere, on both databases."""

import math
import threading
from datetime import UTC, datetime, timedelta

import pytest

from noria.errors import ConfigError, Conflict, NotFound
from noria.ledger.store import Ledger
from noria.records import RunId, RunState
from noria.tracking.histories import HistoryReader
from noria.tracking.names import check_name
from noria.tracking.records import LoggedDataset, MetricPoint
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def desk(either_ledger: Ledger) -> RunDesk:
    return RunDesk(either_ledger)


def _point(name: str, value: float, *, step: int = 0, at_us: int = 0) -> MetricPoint:
    return MetricPoint(name=name, value=value, step=step, at_us=at_us)


def test_a_run_that_is_told_of_is_a_run_of_the_ledger(either_ledger: Ledger) -> None:
    desk, store = RunDesk(either_ledger), TrackingStore(either_ledger.database)
    begun = desk.start(
        "0", name="first", owner="ada", started_at=AT, tags={"mlflow.source.git.commit": "c0ffee"}
    )
    run = begun.info.id
    store.log(run, points=[_point("loss", 0.5)], params={"leaves": "31"}, is_open=True)
    ended = desk.update(run, state=RunState.FINISHED, ended_at=AT + timedelta(hours=1))
    assert (ended.state, ended.started_at, ended.ended_at) == (RunState.FINISHED, AT, AT + timedelta(hours=1))
    kept = either_ledger.get_run(run)
    assert (kept.kind, kept.name, kept.code) == ("experiment", "first", "c0ffee")
    assert desk.get(run).info.experiment == "0"
    assert (kept.params, kept.metrics, kept.experiment) == ({"leaves": "31"}, {"loss": 0.5}, "0")
    assert {each.actor for each in either_ledger.list_events(subject=f"run/{run}")} == {"ada"}
    assert either_ledger.verify().ok


def test_nobody_ends_a_run_whose_owner_is_elsewhere(either_ledger: Ledger) -> None:
    run = RunDesk(either_ledger).start("0").info.id
    assert either_ledger.mark_killed() == []
    assert either_ledger.get_run(run).state is RunState.RUNNING


def test_a_run_that_had_ended_goes_on_and_ends_another_way(either_ledger: Ledger) -> None:
    desk, store = RunDesk(either_ledger), TrackingStore(either_ledger.database)
    run = desk.start("0").info.id
    store.log(run, points=[_point("loss", 0.5)])
    desk.update(run, state=RunState.FAILED, ended_at=AT)
    again = desk.update(run, state=RunState.RUNNING)
    assert (again.state, again.ended_at) == (RunState.RUNNING, None)
    store.log(run, points=[_point("loss", 0.25, step=1)])
    desk.update(run, state=RunState.FINISHED)
    assert either_ledger.get_run(run).metrics == {"loss": 0.25}
    verbs = [each.verb for each in either_ledger.list_events(subject=f"run/{run}")]
    assert verbs == ["run.started", "run.failed", "run.resumed", "run.finished"]
    desk.update(run, state=RunState.KILLED)
    assert either_ledger.get_run(run).state is RunState.KILLED
    assert either_ledger.verify().ok


def test_a_name_is_a_tag_and_the_tag_is_the_name(desk: RunDesk, either_ledger: Ledger) -> None:
    nameless = desk.start("0")
    assert nameless.info.name.count("-") == 2
    assert nameless.tags == {"mlflow.runName": nameless.info.name}
    by_tag = desk.start("0", tags={"mlflow.runName": "by tag"}).info
    assert by_tag.name == "by tag"
    TrackingStore(either_ledger.database).put_tag(by_tag.id, "mlflow.runName", "renamed")
    assert desk.get(by_tag.id).info.name == "renamed"
    desk.update(by_tag.id, name="again")
    assert desk.get(by_tag.id).tags["mlflow.runName"] == "again"


def test_a_nested_run_names_its_parent(desk: RunDesk, either_ledger: Ledger) -> None:
    parent = desk.start("0").info.id
    child = desk.start("0", tags={"mlflow.parentRunId": parent}).info.id
    stray = desk.start("0", tags={"mlflow.parentRunId": "of another server"}).info.id
    assert either_ledger.get_run(child).parent == parent
    assert either_ledger.get_run(stray).parent is None


def test_the_latest_point_is_the_greatest_and_the_same_point_is_one(either_ledger: Ledger) -> None:
    desk, store = RunDesk(either_ledger), TrackingStore(either_ledger.database)
    run = desk.start("0").info.id
    points = [
        _point("a", 1.0, step=2, at_us=10),
        _point("a", 9.0, step=1, at_us=99),
        _point("a", 2.0, step=2, at_us=10),
        _point("a", 0.5, step=2, at_us=9),
    ]
    store.log(run, points=points)
    store.log(run, points=points[:2])
    assert [each.value for each in store.list_points(run, "a")] == [9.0, 0.5, 1.0, 2.0]
    assert desk.get(run).metrics == (points[2],)
    store.log(run, points=[_point("a", math.nan, step=3), _point("b", -math.inf), _point("b", math.inf)])
    latest = store.latest_points(run)
    assert math.isnan(latest["a"].value)
    assert latest["b"].value == math.inf


def test_a_clash_of_one_parameter_keeps_nothing_of_the_batch(desk: RunDesk, either_ledger: Ledger) -> None:
    store = TrackingStore(either_ledger.database)
    run = desk.start("0").info.id
    store.log(run, params={"a": "1", "b": 2})
    store.log(run, params={"a": "1", "b": "2"})
    with pytest.raises(Conflict, match=r"'b' of run .* is '2' and cannot become '3'"):
        store.log(run, points=[_point("loss", 1.0)], params={"c": "new", "b": "3"}, tags={"t": "x"})
    assert store.list_params(run) == {"a": "1", "b": "2"}
    assert store.params(run) == {"a": "1", "b": 2}
    assert store.list_points(run) == []
    assert "t" not in store.list_tags(run)


def test_a_deleted_run_is_shown_and_takes_nothing(desk: RunDesk, either_ledger: Ledger) -> None:
    store = TrackingStore(either_ledger.database)
    run = desk.start("0", tags={"t": "x"}).info.id
    desk.delete(run)
    desk.delete(run)
    assert desk.get(run).info.deleted_at is not None
    with pytest.raises(Conflict, match="restore it first"):
        store.log(run, points=[_point("loss", 1.0)], is_open=True)
    with pytest.raises(Conflict):
        store.remove_tag(run, "t")
    with pytest.raises(Conflict):
        desk.update(run, state=RunState.FINISHED)
    desk.restore(run)
    store.log(run, points=[_point("loss", 1.0)], is_open=True)
    verbs = [each.verb for each in either_ledger.list_events(subject=f"run/{run}")]
    assert verbs == ["run.started", "run.deleted", "run.restored"]


def test_what_is_not_there_is_not_found(desk: RunDesk, either_ledger: Ledger) -> None:
    store, nobody = TrackingStore(either_ledger.database), RunId("0" * 32)
    for ask in (desk.get, desk.delete, desk.restore, desk.update):
        with pytest.raises(NotFound, match="run"):
            ask(nobody)
    with pytest.raises(NotFound):
        store.log(nobody, points=[_point("loss", 1.0)], is_open=True)
    with pytest.raises(NotFound):
        HistoryReader(either_ledger.database).page(nobody, "loss", limit=10)
    with pytest.raises(NotFound):
        desk.start("7")


def test_what_a_run_read_is_kept_once(desk: RunDesk) -> None:
    run = desk.start("0").info.id
    flights = LoggedDataset(
        name="flights", digest="ab12", source_type="local", source="{}", schema="[]", context="train"
    )
    desk.log_datasets(run, [flights])
    desk.log_datasets(run, [flights])
    assert desk.get(run).datasets == (flights,)


def test_a_history_is_given_in_pages_that_join_without_a_gap(desk: RunDesk, either_ledger: Ledger) -> None:
    run = desk.start("0").info.id
    values = [math.nan if each % 7 == 0 else math.inf if each % 5 == 0 else each / 3 for each in range(50)]
    points = [_point("a", value, step=each % 3, at_us=each // 4) for each, value in enumerate(values)]
    TrackingStore(either_ledger.database).log(run, points=points)
    reader = HistoryReader(either_ledger.database)
    whole = reader.page(run, "a", limit=100)
    assert whole.next_page is None
    assert whole.at_us == sorted(whole.at_us)
    found: list[tuple[str, int, int]] = []
    page = None
    while True:
        got = reader.page(run, "a", limit=7, page=page)
        found += zip(map(repr, got.values), got.at_us, got.steps, strict=True)
        page = got.next_page
        if page is None:
            break
        assert len(got.values) == 7
    assert found == list(zip(map(repr, whole.values), whole.at_us, whole.steps, strict=True))
    assert reader.page(run, "none", limit=7).values == []
    with pytest.raises(ConfigError, match="no page token"):
        reader.page(run, "a", limit=7, page="bm9uc2Vuc2U=")


def test_a_history_is_thinned_evenly_and_keeps_its_ends(desk: RunDesk, either_ledger: Ledger) -> None:
    run, short = desk.start("0").info.id, desk.start("0").info.id
    store = TrackingStore(either_ledger.database)
    store.log(run, points=[_point("a", each, step=each) for each in range(1_000)])
    store.log(short, points=[_point("a", each, step=each) for each in range(3)])
    reader = HistoryReader(either_ledger.database)
    thinned = reader.thinned([run, short], "a", first=100, last=899, limit=9)
    steps = [each.step for each in thinned[run]]
    assert (steps[0], steps[-1], len(steps)) == (100, 899, 9)
    assert short not in thinned
    every = reader.thinned([run, short], "a", first=None, last=None, limit=1_000)
    assert (len(every[run]), len(every[short])) == (1_000, 3)
    last = reader.thinned([run], "a", first=None, last=None, limit=1)
    assert [each.step for each in last[run]] == [999]


def test_many_at_once_lose_nothing(desk: RunDesk, either_ledger: Ledger) -> None:
    store, run = TrackingStore(either_ledger.database), desk.start("0").info.id

    def log(who: int) -> None:
        for step in range(20):
            store.log(
                run, points=[_point(f"m{who % 3}", who, step=step, at_us=who)], params={f"p{step}": "same"}
            )

    threads = [threading.Thread(target=log, args=(each,)) for each in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(store.list_points(run)) == 160
    assert len(store.list_params(run)) == 20


@pytest.mark.parametrize("name", ["loss", "a/b/c", "val loss", "ü.β:1-x_", "x" * 250])
def test_names_that_may_be(name: str) -> None:
    assert check_name("metric", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/a", "a//b", "a/../b", "../a", "a/", "a\nb", "a\0", "é" * 251, "a;b", "a'b"]
)
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(ConfigError, match="Invalid metric name"):
        check_name("metric", name)


def test_points_of_many_runs_are_kept_as_one_by_one(either_ledger: Ledger, desk: RunDesk) -> None:
    store = TrackingStore(either_ledger.database)
    runs, twins = ([desk.start("0").info.id for _ in range(2)] for _ in range(2))
    points = [
        _point("ab"[number % 2], value, step=number * 7 % 5, at_us=number // 3)
        for number, value in enumerate([0.5, math.nan, -1.0, math.inf, 2.0, 0.5, math.nan, 1e300, 3.0, -0.5])
    ]
    assert store.log_points([(runs[place % 2], each) for place, each in enumerate(points)]) == [None] * 10
    for place, each in enumerate(points):
        store.log(twins[place % 2], points=[each], is_open=True)
    for run, twin in zip(runs, twins, strict=True):
        assert str(store.list_points(run)) == str(store.list_points(twin))  # NaN is not itself
        assert str(store.latest_points(run)) == str(store.latest_points(twin))


def test_points_of_runs_that_take_none_are_refused_beside_the_others(
    either_ledger: Ledger, desk: RunDesk
) -> None:
    store = TrackingStore(either_ledger.database)
    run, gone = desk.start("0").info.id, desk.start("0").info.id
    desk.delete(gone)
    asked = [(gone, _point("a", 1.0)), (run, _point("a", 2.0)), (RunId("none"), _point("a", 3.0))]
    refused, kept, unknown = store.log_points(asked)
    assert (type(refused), kept, type(unknown)) == (Conflict, None, NotFound)
    assert store.list_points(run) == [_point("a", 2.0)]
    assert store.list_points(gone) == []
