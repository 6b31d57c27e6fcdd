"""What a server takes of logs that others send: once, in order, and nothing that it could not keep."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from noria.clock import WallClock
from noria.errors import BadPath, ConfigError, Conflict, LeaseHeld, NoriaError, NotFound
from noria.ledger.processes import Process
from noria.ledger.store import Ledger
from noria.records import RunId, RunState, new_id, sha256_hex
from noria.storage.local import LocalStorage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.experiments import ExperimentBook
from noria.tracking.remote.hearing import heard_of
from noria.tracking.remote.sending import Batch, Beginning, Kept, SentCode
from noria.tracking.remote.sent_logs import SentLogs
from noria.tracking.run_desk import RunDesk
from noria.tracking.spools.records import Ended, Entry, Input, KeptFile, Params, Points, Tags
from noria.tracking.store import TrackingStore

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOLDER = Process(host="far", boot="b", pid=7, started="1")


@pytest.fixture
def ledger(either_ledger: Ledger, tmp_path: Path) -> Ledger:
    return Ledger(either_ledger.database, storage=LocalStorage(tmp_path / "storage"), clock=WallClock())


@pytest.fixture
def artifacts(ledger: Ledger, tmp_path: Path) -> ArtifactStore:
    assert ledger.storage is not None
    return ArtifactStore(ledger.database, ledger.storage, tmp_path / "staging")


@pytest.fixture
def logs(ledger: Ledger, artifacts: ArtifactStore) -> SentLogs:
    return SentLogs(ledger, artifacts)


def beginning(run: str = "", *, token: str = "0" * 8, **changed: Any) -> Beginning:
    id = RunId(run or new_id())
    made = Beginning(
        log=f"{id}.{token}",
        run=id,
        is_resumed=False,
        name="far one",
        experiment="Default",
        params={"depth": 3},
        tags={"team": "ops"},
        seed=7,
        owner="ada",
        told={"host": "far"},
        code=SentCode(commit="none", diff=None, runtime="a" * 64),
        holder=HOLDER,
        began_at=AT,
    )
    return replace(made, **changed)


def batch(begun: Beginning, after: int, end: int, *entries: Entry) -> Batch:
    return Batch(log=begun.log, run=begun.run, after=(1, after), end=(1, end), entries=[*entries])


def first(begun: Beginning, end: int, *entries: Entry) -> Batch:
    return Batch(log=begun.log, run=begun.run, after=(0, 0), end=(1, end), entries=[*entries])


def loss(step: int, value: float = 0.5) -> Points:
    return Points([("loss", value, step, 1_000_000 + step)])


ENDED = Ended(RunState.FINISHED, None, (1.5, 2.5), 1_800_000_000_000_000)
KILLED = Ended(RunState.KILLED, "pid 7 on far ended without closing the run", None, 1_800_000_000_000_000)


def test_a_run_is_what_it_was_told_to_be(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    begun = logs.begin(asked)
    assert begun.missing == ["a" * 64]
    logs.keep(first(asked, 10, loss(0), Params({"rate": 0.1}), Tags({"why": "try"})))
    logs.keep(batch(asked, 10, 20, loss(1, 0.25), ENDED))
    run = ledger.get_run(asked.run)
    assert (run.state, run.seed, run.code, run.name) == (RunState.FINISHED, 7, "none", "far one")
    assert run.params == {"depth": 3, "rate": 0.1}
    assert run.metrics == {"loss": 0.25}
    assert run.cost is not None
    assert (run.cost.cpu_s, run.cost.wall_s) == (1.5, 2.5)
    info = RunDesk(ledger).get(asked.run).info
    assert (info.owner, info.started_at, info.ended_at) == ("ada", AT, datetime(2027, 1, 15, 8, tzinfo=UTC))
    tags = TrackingStore(ledger.database).list_tags(asked.run)
    assert tags == {"host": "far", "team": "ops", "why": "try", "mlflow.runName": "far one"}
    assert {each.actor for each in ledger.list_events(subject=f"run/{asked.run}")} == {"ada"}
    assert ledger.verify().ok


def test_the_same_beginning_and_the_same_batch_twice_are_one(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    for _ in range(3):
        logs.begin(asked)
        assert logs.keep(first(asked, 10, loss(0), Tags({"n": "1"}))) == Kept(position=(1, 10))
    logs.keep(batch(asked, 10, 20, Tags({"n": "2"})))
    assert logs.keep(first(asked, 10, Tags({"n": "1"}))) == Kept(
        position=(1, 20)
    )  # came late: is passed over
    assert TrackingStore(ledger.database).list_tags(asked.run)["n"] == "2"
    assert len(TrackingStore(ledger.database).list_points(asked.run)) == 1
    assert len(ledger.list_events(subject=f"run/{asked.run}")) == 1


def test_a_batch_that_does_not_go_on_where_the_log_is_keeps_nothing(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    logs.keep(first(asked, 10, loss(0)))
    assert logs.keep(batch(asked, 15, 30, loss(5))) == Kept(position=(1, 10))
    assert logs.keep(batch(asked, 5, 30, loss(5))) == Kept(position=(1, 10))
    assert len(TrackingStore(ledger.database).list_points(asked.run)) == 1


def test_all_of_a_batch_is_kept_or_nothing(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    with pytest.raises(Conflict, match="depth"):
        logs.keep(first(asked, 10, loss(0), Params({"depth": 4})))
    assert TrackingStore(ledger.database).list_points(asked.run) == []
    assert logs.keep(first(asked, 10, loss(0))) == Kept(position=(1, 10))


def test_a_file_is_asked_for_before_it_is_named(
    logs: SentLogs, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    asked = beginning()
    logs.begin(asked)
    (tmp_path / "one.txt").write_bytes(b"one")
    digest = sha256_hex(b"one")
    named = first(asked, 10, KeptFile("files/notes/one.txt", digest, 3))
    assert logs.keep(named) == Kept(position=(0, 0), missing=[digest])
    artifacts.keep(tmp_path / "one.txt")
    assert logs.keep(named) == Kept(position=(1, 10))
    assert artifacts.open(f"0/{asked.run}/artifacts/notes/one.txt").read_bytes() == b"one"


def test_a_dataset_is_found_by_its_name_and_held_to_its_content(ledger: Ledger, logs: SentLogs) -> None:
    version = ledger.record_version("dataset", "flows", sha256="c" * 64, uri="x")
    asked = beginning()
    logs.begin(asked)
    logs.keep(first(asked, 10, Input("flows", "training")))
    assert [each.version for each in ledger.list_edges(run=asked.run)] == [version.id]
    with pytest.raises(NotFound, match="flaws"):
        logs.keep(batch(asked, 10, 20, Input("flaws", "")))
    with pytest.raises(Conflict, match="other content"):
        logs.keep(batch(asked, 10, 20, Input(version.id, "", "d" * 64)))


def test_a_run_within_one_that_waits_as_well_brings_it_along(ledger: Ledger, logs: SentLogs) -> None:
    outer = beginning()
    inner = beginning(parent=outer.run, before=(outer,))
    logs.begin(inner)
    logs.begin(outer)
    assert ledger.get_run(inner.run).parent == outer.run
    assert ledger.get_run(outer.run).state is RunState.RUNNING


def test_a_run_that_is_known_is_not_begun_by_another_log(logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    with pytest.raises(Conflict, match="already"):
        logs.begin(beginning(asked.run, token="1" * 8))


def test_one_at_work_does_not_go_on_and_whose_it_is_is_told(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    again = beginning(asked.run, token="1" * 8, is_resumed=True, name="", params={}, seed=None)
    with pytest.raises(LeaseHeld, match="pid 7 on far, last heard of at"):
        logs.begin(again)
    logs.keep(first(asked, 10, loss(4), ENDED))
    begun = logs.begin(again)
    assert begun.latest == [("loss", 0.5, 4, 1_000_004)]
    assert begun.params == {"depth": 3}
    logs.keep(first(again, 10, loss(5), ENDED))
    cost = ledger.get_run(asked.run).cost
    assert cost is not None
    assert (cost.cpu_s, cost.wall_s) == (3.0, 5.0)  # of both together


def test_whose_process_died_is_killed_unless_somebody_has_gone_on(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    logs.keep(first(asked, 10, loss(0)))
    RunDesk(ledger).update(asked.run, state=RunState.FAILED)
    again = beginning(asked.run, token="1" * 8, is_resumed=True, name="", params={}, seed=None)
    logs.begin(again)
    logs.keep(batch(asked, 10, 10, KILLED))
    assert ledger.get_run(asked.run).state is RunState.RUNNING
    logs.keep(Batch(log=again.log, run=again.run, after=(0, 0), end=(0, 0), entries=[KILLED]))
    assert ledger.get_run(asked.run).state is RunState.KILLED
    logs.keep(Batch(log=again.log, run=again.run, after=(0, 0), end=(0, 0), entries=[KILLED]))
    assert ledger.verify().ok


def test_who_was_heard_of_is_known(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    assert heard_of(ledger.database, asked.run) is None
    logs.begin(asked)
    before = heard_of(ledger.database, asked.run)
    assert before is not None
    logs.keep(Batch(log=asked.log, run=asked.run, after=(9, 9), end=(9, 9), entries=[]))  # it is still there
    after = heard_of(ledger.database, asked.run)
    assert after is not None
    assert (after.holder, after.at >= before.at) == (HOLDER, True)


def test_a_deleted_experiment_takes_no_run(ledger: Ledger, logs: SentLogs) -> None:
    book = ExperimentBook(ledger)
    book.delete(book.create("gone").id)
    with pytest.raises(Conflict, match="deleted"):
        logs.begin(beginning(experiment="gone"))


BAD: list[tuple[Entry, type[NoriaError]]] = [
    (Points([("a//b", 1.0, 0, 0)]), ConfigError),
    (Points([("loss", 1.0, 2**63, 0)]), ConfigError),
    (Points([("loss", 1.0, 0, 2**62)]), ConfigError),
    (Params({"..": 1}), ConfigError),
    (Params({"a": "\0"}), ConfigError),
    (Tags({"a": "\0"}), ConfigError),
    (KeptFile("files/../../x", "a" * 64, 1), BadPath),
    (KeptFile("/etc/passwd", "a" * 64, 1), ConfigError),
    (KeptFile("files/x", "../" * 20, 1), ConfigError),
    (KeptFile("files/x", "a" * 64, -1), ConfigError),
    (Input("flows\0", ""), ConfigError),
    (Input("flows@production", ""), ConfigError),
    (Input("project/dataset/none:1", ""), NotFound),
    (Ended(RunState.RUNNING, None, None, 0), ConfigError),
    (Ended(RunState.FINISHED, None, (float("nan"), 1.0), 0), ConfigError),
    (Ended(RunState.FINISHED, None, None, 2**62), ConfigError),
]
BAD_BEGINNINGS: list[dict[str, Any]] = [
    {"began_at": datetime(2026, 3, 1)},
    {"began_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
    {"began_at": datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12)))},
    {"params": {"a": msgspec.msgpack.Ext(5, b"x")}},
    {"params": {"\0": 1}},
    {"seed": 2**64 - 1},
    {"owner": "a\0"},
    {"owner": "a" * 501},
    {"experiment": "\0"},
    {"code": SentCode(commit="\0", diff=None, runtime="a" * 64)},
    {"code": SentCode(commit="none", diff="x", runtime="a" * 64)},
]


def test_what_no_client_of_ours_sends_is_refused(logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    for entry, error in BAD:
        with pytest.raises(error):
            logs.keep(first(asked, 10, entry))
    assert logs.keep(first(asked, 10, loss(0))) == Kept(position=(1, 10))


def test_a_beginning_that_can_be_kept_nowhere_is_refused(ledger: Ledger, logs: SentLogs) -> None:
    for changed in BAD_BEGINNINGS:
        with pytest.raises(ConfigError):
            logs.begin(beginning(**changed))
    with pytest.raises(ConfigError, match="within 101 others"):
        logs.begin(beginning(before=tuple(beginning() for _ in range(101))))
    assert ledger.list_runs() == []


def test_a_batch_that_others_would_wait_for_is_refused(artifacts: ArtifactStore, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    sha256 = artifacts.keep(Path(__file__))[0]
    for many in ([Tags({})] * 10_001, [KeptFile("files/x", sha256, 1)] * 1_001):
        with pytest.raises(ConfigError, match="send fewer"):
            logs.keep(first(asked, 10, *many))
    assert logs.keep(first(asked, 10, *[Tags({})] * 10_000)).position == (1, 10)


def test_whoever_had_a_run_before_does_not_end_it(ledger: Ledger, logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    logs.keep(first(asked, 10, loss(0)))
    ledger.finish_run(asked.run, state=RunState.CANCELLED)  # by somebody else, who then goes on with it
    again = beginning(asked.run, token="1" * 8, is_resumed=True, params={}, seed=None)
    logs.begin(again)
    with pytest.raises(Conflict, match="gone on elsewhere"):
        logs.keep(batch(asked, 10, 20, ENDED))
    assert ledger.get_run(asked.run).state is RunState.RUNNING
    logs.keep(first(again, 10, ENDED))
    assert ledger.get_run(asked.run).state is RunState.FINISHED


def test_ids_and_positions_that_are_none_are_refused(logs: SentLogs) -> None:
    asked = beginning()
    logs.begin(asked)
    for wrong in ("x", f"{asked.run}", f"{'f' * 32}.00000000", f"{asked.run}.../.."):
        with pytest.raises(ConfigError):
            logs.keep(replace(first(asked, 10, loss(0)), log=wrong))
        with pytest.raises(ConfigError):
            logs.begin(beginning(asked.run, log=wrong))
    for after, end in (((-1, 0), (1, 0)), ((2, 0), (1, 0)), ((0, 0), (2**63, 0))):
        with pytest.raises(ConfigError):
            logs.keep(replace(first(asked, 10, loss(0)), after=after, end=end))
    unknown = beginning()
    with pytest.raises(NotFound):
        logs.keep(first(unknown, 10, loss(0)))
