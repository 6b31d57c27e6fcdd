"""A subject is forgotten everywhere: in the dataset, and in all that was made from its rows."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from tests.conftest import PROJECTS

import noria
from noria.deploy.environments import deploy
from noria.deploy.releases import record_release, serve_route
from noria.errors import ConfigError, Conflict, NotFound
from noria.features.materialize import materialize
from noria.features.online import open_online_store
from noria.ledger.redacted import expected_digest
from noria.monitoring.outcomes import OutcomeLog
from noria.records import RunState
from noria.serving.records import Input
from noria.tracking.artifacts import ArtifactStore
from noria.training.engine import build_training_set, fit
from noria.workspace.file_sets import alone
from noria.workspace.forgetting.records import Forgetting
from noria.workspace.project import Project
from noria.workspace.streaming import consume_stream

ZOE = "zoe.zwingli@example.org"
HERS = [f"order-{number:04d}-z" for number in (4, 11, 18, 25, 32, 39, 46, 53, 606)]
DAY = datetime(2024, 3, 1, tzinfo=UTC)
OTHERS = ["ann", "ben", "cleo", "dan", "eve", "finn"]
PLACES = [*OTHERS[:4], ZOE, *OTHERS[4:]]


def orders(first: int, many: int, *, eur: float | None = None) -> pa.Table:
    """Give orders that customers make in turn, three an hour."""
    numbers = range(first, first + many)
    who = [PLACES[number % 7] for number in numbers]
    return pa.table(
        {
            "order_id": [
                f"order-{n:04d}-{'z' if w == ZOE else 'o'}" for n, w in zip(numbers, who, strict=True)
            ],
            "customer": who,
            "eur": [float(number % 50) if eur is None else eur for number in numbers],
            "big": pa.array([int(number % 50 > 25) for number in numbers], pa.int64()),
            "ordered_at": pa.array(
                [DAY + timedelta(minutes=20 * number) for number in numbers], pa.timestamp("us", "UTC")
            ),
        }
    )


def events(first: int, many: int) -> list[dict[str, object]]:
    rows = orders(first, many).to_pylist()
    return [{**row, "ordered_at": row["ordered_at"].isoformat()} for row in rows]


def live(root: Path) -> None:
    """Let the shop have customers, one of whom is Zoe."""
    with noria.open(root) as project:
        project.ingest("orders", orders(0, 28), batch=1)
        project.transform()
        project.ingest("orders", pa.concat_tables([orders(28, 6), orders(600, 8, eur=5_000.0)]), batch=2)
        project.repair("orders", values={"eur": "9"})
        project.push("tills", events(35, 20))
        consume_stream(project, "tills", stop=Event(), until_empty=True)
        project.transform()
        project.run_pipeline("review")
        _train_and_serve(project)
        project.push("tills", events(60, 9))  # these have not landed


def _train_and_serve(project: Project) -> None:
    training, lake = project.declarations.trainings["big_order"], project.lake
    rows = lake.read("orders")
    materialize(lake, "big_order__features", rows.select(["order_id", "ordered_at", "customer", "eur"]),
                training, batch=1)  # fmt: skip
    features = lake.record_version("big_order__features", kind="features")
    until = DAY + timedelta(days=30)
    data = build_training_set(training, lake.read("big_order__features"), rows, until=until)
    fitted = fit(training, data, ledger=project.ledger, registry=project.registry,
                 inputs=[project.ledger.get_version("dataset", "orders"), features])  # fmt: skip
    online = open_online_store(project.settings.stores.online, root=project.root)
    for view in training.views:
        online.load(view, rows)
    online.close()
    manifest = project.registry.read_manifest(fitted.version)
    release = record_release(
        project.ledger,
        fitted.version,
        file_digest=manifest.parts["model"].sha256,
        inputs=[Input(name=each.name, kind=each.kind) for each in manifest.signature.inputs],
        views=[view.spec() for view in training.views],
    )
    with project.supervisor("production") as supervisor:
        place = replace(project.deployment("production", "big_order", supervisor=supervisor), gated=False)
        deploy(place, release, key="first")
        with supervisor.client() as client:
            asked = rows.slice(0, 12)
            columns = {name: asked[name].to_pylist() for name in ("customer", "eur")}
            client.infer("big_order", columns, ids=asked["order_id"].to_pylist())
            client.infer("big_order", {"customer": [ZOE], "eur": [3.0]}, ids=["call-1"])
    with OutcomeLog(project.state / "outcomes", deployment="production/big_order") as log:
        ids = asked["order_id"].to_pylist()
        log.record(ids, [1.0] * 12, known_at=[1] * 12)
        log.ship(lake)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(PROJECTS / "shop", tmp_path_factory.mktemp("shop") / "shop"))
    live(folder)
    return folder


@pytest.fixture
def shop(lived: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived, tmp_path / "shop"))


def bytes_below(root: Path) -> Iterator[tuple[str, bytes]]:
    """Give every file as it lies there, and what is packed also unpacked."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield path.relative_to(root).as_posix(), data
        if path.suffix == ".parquet":
            rows, told = pq.read_table(path).to_pylist(), pq.read_metadata(path).to_dict()
            yield f"{path.relative_to(root).as_posix()}, unpacked", f"{rows}{told}".encode()
        elif data[:6] == b"ARROW1":
            yield (
                f"{path.relative_to(root).as_posix()}, unpacked",
                str(pa.ipc.open_file(path).read_all().to_pylist()).encode(),
            )
        elif data[:2] == b"\x1f\x8b":
            yield f"{path.relative_to(root).as_posix()}, unpacked", gzip.decompress(data)


def holding(root: Path, *texts: str) -> dict[str, int]:
    """Tell which files below a folder hold one of some texts, in any case."""
    found = {}
    for name, data in bytes_below(root):
        count = sum(data.lower().count(each.lower().encode()) for each in texts)
        if count:
            found[name] = count
    return found


def forget(root: Path, *, dry_run: bool = False) -> Forgetting:
    with noria.open(root) as project:
        done = project.forget("orders", "customer", [ZOE], reason="article 17", dry_run=dry_run)
        for name in project.lake.names():
            project.lake.vacuum(name, retention=timedelta(0))
        return done


def test_no_byte_of_the_subject_is_left_in_the_whole_folder(shop: Path) -> None:
    before = holding(shop, ZOE, *HERS)
    for place in ("orders/", "orders__rejected", "by_customer", "lines", "first_lines", "big_order__features",
                  "outcomes", "streams/", "deployments/", "online/", "noria.db"):  # fmt: skip
        assert any(place in name for name in before), place
    done = forget(shop)
    assert holding(shop, ZOE, *HERS) == {}
    assert {(each.kind, each.name) for each in done.left} == {("table", "by_day")}
    assert done.models == ("big_order:1",)
    found = {each.kind: each.held for each in done.holdings if each.state == "forgotten"}
    assert set(found) == {
        "samples",
        "results",
        "logs",
        "predictions",
        "answers",
        "table",
        "stream",
        "dataset",
    }
    assert done.rows == 9


def test_what_is_left_reads_and_proves_and_works_on(shop: Path) -> None:
    forget(shop)
    with noria.open(shop) as project:
        ledger, lake = project.ledger, project.lake
        assert ledger.verify().ok
        for version in ledger.list_versions():
            if version.uri.startswith("delta:"):
                assert lake.version_digest(version.name, version, verify=True) == expected_digest(
                    ledger, version
                )
        assert set(lake.read("orders")["customer"].to_pylist()) == set(OTHERS)
        assert project.query("select sum(eur) from by_day") == project.query("select sum(eur) from orders")
        assert project.query("select count(*) from lines") == project.query("select count(*) from orders")
        assert all(each.state == "unchanged" for each in project.plan_transform().models)
        loaded = project.registry.load(ledger.get_version("model", "big_order"))
        assert loaded.sample_error() == 0
        assert 0 < loaded.samples.num_rows < 50
        consume_stream(project, "tills", stop=Event(), until_empty=True)
        assert set(lake.read("orders")["customer"].to_pylist()) == set(OTHERS)
        assert lake.last_batch("orders", "stream:tills/0") == 28
        assert project.run_pipeline("review").counts["ran"] == 1
        why = {each.payload["why"] for each in ledger.list_events(verb="redacted")}
        assert why == {"article 17"}
        told = ledger.list_events(verb="subject.forgotten")[0].payload
        assert (told["column"], told["subjects"], told["models"]) == ("customer", 1, ["big_order:1"])
    assert holding(shop, ZOE) == {}


def test_a_server_answers_on_and_knows_nothing_of_the_subject(shop: Path) -> None:
    forget(shop)
    with noria.open(shop) as project, project.supervisor("production") as supervisor:
        place = project.deployment("production", "big_order")
        pointer = project.ledger.find_pointer("production", "big_order")
        assert pointer is not None
        version = project.ledger.get_version_by_id(pointer.version)
        supervisor.start(serve_route(project.ledger, version, fetch=place.fetch, samples=place.samples))
        with supervisor.client() as client:
            other = client.infer("big_order", {"customer": ["ann"], "eur": [0.0]}, ids=["order-0000-o"])
            again = client.infer("big_order", {"customer": ["nobody"], "eur": [7.0]}, ids=["call-1"])
        assert len(other.scores) == len(again.scores) == 1


def test_what_a_server_at_work_has_logged_is_left_until_it_ends(shop: Path) -> None:
    with noria.open(shop) as serving:
        ledger, pointer = serving.ledger, serving.ledger.find_pointer("production", "big_order")
        assert pointer is not None
        place = serving.deployment("production", "big_order")
        version = ledger.get_version_by_id(pointer.version)
        with serving.supervisor("production") as supervisor:
            supervisor.start(serve_route(ledger, version, fetch=place.fetch, samples=place.samples))
            with supervisor.client() as client:
                client.infer("big_order", {"customer": [ZOE], "eur": [4.0]}, ids=["call-2"])
            told = forget(shop)
            assert ("predictions", "log of production/big_order") in {(e.kind, e.name) for e in told.left}
            with supervisor.client() as client:
                assert client.infer("big_order", {"customer": ["ann"], "eur": [4.0]}).scores
    forget(shop)
    assert holding(shop, ZOE, *HERS) == {}


def test_a_dry_run_tells_the_same_and_changes_nothing(shop: Path) -> None:
    before = dict(bytes_below(shop / ".noria" / "storage"))
    planned = forget(shop, dry_run=True)
    assert dict(bytes_below(shop / ".noria" / "storage")) == before
    done = forget(shop)

    def forgotten(told: Forgetting) -> dict[tuple[str, str], int]:
        return {(each.kind, each.name): each.held for each in told.holdings
                if each.state == "forgotten" and each.held}  # fmt: skip

    assert planned.is_dry
    assert planned.models == done.models
    told, became = forgotten(planned), forgotten(done)
    assert told.keys() <= became.keys()
    late = ("predictions", "answers")  # what is logged comes into the lake first
    assert became.keys() - told.keys() <= {("dataset", "orders__repairs")} | {
        k for k in became if k[0] in late
    }
    assert all(became[key] == held for key, held in told.items() if key[0] not in late)


def test_a_model_that_cannot_be_read_is_told_and_stops_nothing(shop: Path) -> None:
    with noria.open(shop) as project:
        (model,) = project.ledger.list_versions(kind="model")
        project.storage.remove(model.sha256)
    done = forget(shop)
    assert {(each.kind, each.name) for each in done.left} >= {("samples", "big_order:1")}
    with noria.open(shop) as project:
        assert set(project.lake.read("orders")["customer"].to_pylist()) == set(OTHERS)


def test_forgetting_again_finds_nothing(shop: Path) -> None:
    forget(shop)
    with noria.open(shop) as project:
        redacted = len(project.ledger.list_events(verb="redacted"))
        versions = len(project.ledger.list_versions())
    again = forget(shop)
    assert [each for each in again.holdings if each.state == "forgotten" and each.held] == []
    with noria.open(shop) as project:
        assert len(project.ledger.list_events(verb="redacted")) == redacted
        assert len(project.ledger.list_versions()) == versions
        assert len(project.ledger.list_events(verb="subject.forgotten")) == 1


def test_one_row_is_forgotten_by_its_key(shop: Path) -> None:
    with noria.open(shop) as project:
        done = project.forget("orders", "order_id", [HERS[0]])
        assert done.rows == 1
        for name in project.lake.names():
            project.lake.vacuum(name, retention=timedelta(0))
        assert ZOE in project.lake.read("orders")["customer"].to_pylist()
        assert ZOE in project.query("select customer from by_customer")["customer"].to_pylist()
    assert holding(shop, HERS[0]) == {}


def test_a_table_that_a_run_has_written_is_followed_by_the_ledger(shop: Path) -> None:
    with noria.open(shop) as project:
        ledger, lake = project.ledger, project.lake
        lake.append("exported", orders(0, 14).select(["customer", "eur"]), batch=1, app_id="export")
        version = lake.record_version("exported", kind="table")
        run = ledger.start_run("step", "export/write")
        ledger.add_input(run.id, ledger.get_version("dataset", "orders").id)
        ledger.record_version("table", "exported", sha256=version.sha256, uri=version.uri, run=run.id)
        ledger.finish_run(run.id, state=RunState.FINISHED)
        done = project.forget("orders", "customer", [ZOE])
        assert [(each.state, each.versions) for each in done.of("table") if each.name == "exported"] == [
            ("forgotten", ("exported:1",))
        ]
        assert lake.read("exported").num_rows == 12


def test_older_versions_of_a_dropped_table_are_rid_of_the_subject(shop: Path) -> None:
    (shop / "models" / "by_customer.sql").unlink()
    with noria.open(shop) as project:
        project.drop_table("by_customer", reason="nobody reads it")
        done = project.forget("orders", "customer", [ZOE])
        assert [each.versions for each in done.of("table") if each.name == "by_customer"] == [
            ("by_customer:1", "by_customer:2")
        ]
        assert set(project.lake.read("by_customer", version=1)["customer"].to_pylist()) == set(OTHERS)
        assert not project.lake.exists("by_customer")
    assert holding(shop, ZOE, *HERS) == {}


def test_what_the_ledger_names_is_told(shop: Path) -> None:
    with noria.open(shop) as project:
        project.ledger.append("person.asked", payload={"verb": "look", "reason": f"where is {ZOE}?"})
        done = project.forget("orders", "customer", [ZOE], dry_run=True)
    assert [(each.name, each.held) for each in done.of("record")] == [("events", 1)]


def test_files_that_runs_logged_are_told_and_stay(shop: Path) -> None:
    with noria.open(shop) as project:
        store = ArtifactStore(project.ledger.database, project.storage, shop / ".noria/artifacts")
        model = project.ledger.get_version("model", "big_order")
        assert model.run is not None
        run = project.ledger.get_run(model.run)
        for path in (f"{run.experiment}/{run.id}/artifacts/rows.csv", "0/other/artifacts/x"):
            with store.writing(path) as writer:
                writer.write(ZOE.encode())
        done = project.forget("orders", "customer", [ZOE])
        assert [(each.name, each.held) for each in done.of("artifacts")] == [(f"run/{run.id}", 1)]
        assert {store.open(each.path).read_bytes() for each in store.tree()} == {ZOE.encode()}


def test_kept_bytes_of_files_go_unless_another_row_names_them(shop: Path) -> None:
    folder = shop / "scans"
    folder.mkdir()
    for name, text in (("a.txt", "a secret"), ("b.txt", "shared"), ("c.txt", "shared")):
        (folder / name).write_text(text)
    with noria.open(shop) as project:
        project.ingest("scans")
        done = project.forget("scans", "path", ["scans/a.txt", "scans/b.txt"])
        assert done.of("files")[0].held == 1
        with pytest.raises(NotFound), project.blob("scans", "scans/a.txt"):
            pass
        with project.blob("scans", "scans/c.txt") as file:
            assert file.read() == b"shared"
    assert holding(shop / ".noria", "a secret") == {}


def test_bytes_stay_while_files_are_taken_in_and_a_vacuum_removes_them(shop: Path) -> None:
    folder = shop / "scans"
    folder.mkdir()
    (folder / "a.txt").write_text("a secret")
    (folder / "b.txt").write_text("another")
    with noria.open(shop) as project:
        project.ingest("scans")
        with alone(project, "scans"):
            told = project.forget("scans", "path", ["scans/a.txt"]).of("files")
        assert [each.state for each in told] == ["left"]
        assert "noria dataset vacuum scans" in told[0].told
        project.vacuum("scans", retention=timedelta(0))
    assert holding(shop / ".noria", "a secret") == {}


def test_what_cannot_be_is_told(shop: Path) -> None:
    with noria.open(shop) as project:
        with pytest.raises(NotFound, match="did you mean 'customer'"):
            project.forget("orders", "custmer", [ZOE])
        with pytest.raises(ConfigError, match="at least one value"):
            project.forget("orders", "customer", [])
        run = project.ledger.start_run("pipeline", "review")
        with pytest.raises(Conflict, match="at work: review"):
            project.forget("orders", "customer", [ZOE])
        assert run.name == "review"


def forget_and_die(root: Path, *, at: int | None) -> None:
    """Forget, and be killed right before a write to a store; tell how many there were if not."""
    with pytest.MonkeyPatch.context() as patch:
        writes = _counting(patch, stop_at=at)
        forget(root)
    print(len(writes))


def in_a_process(root: Path, *, at: int | None) -> subprocess.CompletedProcess[str]:
    code = (
        "from pathlib import Path; from tests.workspace.test_forgetting import forget_and_die; "
        f"forget_and_die(Path({str(root)!r}), at={at})"
    )
    top = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", code], cwd=top, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def writes(lived: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Tell how many writes forgetting takes."""
    whole = in_a_process(Path(shutil.copytree(lived, tmp_path_factory.mktemp("whole") / "shop")), at=None)
    assert whole.returncode == 0, whole.stderr
    return int(whole.stdout)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_kill_leaves_nothing_that_the_same_call_does_not_complete(
    shop: Path, writes: int, share: float
) -> None:
    assert in_a_process(shop, at=int(share * writes)).returncode == -signal.SIGKILL
    forget(shop)
    assert holding(shop, ZOE, *HERS) == {}
    with noria.open(shop) as project:
        for version in project.ledger.list_versions():
            if version.uri.startswith("delta:"):
                digest = project.lake.version_digest(version.name, version, verify=True)
                assert digest == expected_digest(project.ledger, version)


def _counting(monkeypatch: pytest.MonkeyPatch, *, stop_at: int | None) -> list[str]:
    """Note every write to a store; be killed right before one."""
    from noria.features.backends.lmdb import LmdbOnlineStore
    from noria.lake.delta import Table
    from noria.lake.files import LocalFiles
    from noria.ledger.store import Ledger
    from noria.pipelines.store import PipelineStore
    from noria.serving.logs.index import PredictionIndex
    from noria.storage.local import LocalStorage
    from noria.streams.backends.log import LogStream

    done: list[str] = []

    def watched(kind: type, name: str) -> Callable[..., object]:
        original = getattr(kind, name)

        def write(self: object, *args: object, **kwargs: object) -> object:
            if len(done) == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(name)
            return original(self, *args, **kwargs)

        return write

    for kind, names in (
        (LocalFiles, ("put", "create", "delete")),
        (Table, ("checkpoint",)),
        (LocalStorage, ("put", "remove")),
        (Ledger, ("append", "record_version")),
        (LmdbOnlineStore, ("load", "scrub")),
        (PredictionIndex, ("forget",)),
        (PipelineStore, ("put_logs",)),
        (LogStream, ("erase",)),
    ):
        for name in names:
            monkeypatch.setattr(kind, name, watched(kind, name))
    return done
