"""Databases of earlier revisions, with rows in them, brought up to the newest; on both kinds."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from noria.clock import WallClock, from_micros, to_micros
from noria.database import revisions
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.records import RunId, RunState
from noria.registry.catalogue import ModelCatalogue
from noria.tracking.experiments import ExperimentBook
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore

AT_US = to_micros(datetime(2024, 3, 1, tzinfo=UTC))
RUN, OTHER = RunId("a" * 32), RunId("b" * 32)
REVISIONS = ("0001", "0002", "0003", "0004")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'old.db'}"


def _make(url: str, revision: str, fill: Any) -> None:
    """Make a database as the noria of a revision left it."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(revisions.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        fill(connection)
    engine.dispose()


def _fill_runs(connection: Connection) -> None:
    event = text("""INSERT INTO events
            (scope, seq, verb, subject, actor, payload, rows, at, recorded_at, previous, digest)
        VALUES ('project', :seq, 'run.started', :subject, 'ada', '{}', '{}', :at, :at, '', :digest)""")
    run = text("""INSERT INTO runs
            (id, scope, kind, name, state, attempt, experiment, params, metrics,
             code, runtime, at, started_at)
        VALUES
            (:id, 'project', 'train', 'late', 'running', 1, :experiment, :params, '{}',
             'none', 'r', :at, :at)""")
    for seq, (id, experiment) in enumerate(((RUN, "0"), (OTHER, None)), start=1):
        connection.execute(event, {"seq": seq, "subject": f"run/{id}", "at": AT_US, "digest": str(seq)})
        params = '{"leaves":31,"name":"ü","deep":{"a":[1]}}'
        connection.execute(run, {"id": id, "experiment": experiment, "params": params, "at": AT_US})


def _fill_tracking(connection: Connection) -> None:
    _fill_runs(connection)
    point = text("""INSERT INTO metric_points (run, name, step, value, recorded_at)
        VALUES (:run, :name, :step, :value, :at)""")
    for run in (RUN, OTHER):
        for step, value in ((0, 0.5), (2, None), (1, 0.25), (1, 0.25)):  # NULL was NaN; a point twice
            row = {"run": run, "name": "loss", "step": step, "value": value, "at": AT_US + step}
            connection.execute(point, row)
        tag = text("INSERT INTO run_tags (run, name, value) VALUES (:run, 'team', 'ops')")
        connection.execute(tag, {"run": run})


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_empty_database_of_any_revision_is_brought_up(url: str, revision: str) -> None:
    _make(url, revision, lambda connection: None)
    with Database.open(url) as database, database.read() as connection:
        assert revisions.current_revision(connection) == revisions.newest_revision()


@pytest.mark.parametrize("revision", ["0002", "0003"])
def test_runs_points_and_tags_of_before_are_all_there(url: str, revision: str) -> None:
    _make(url, revision, _fill_tracking)
    with Database.open(url) as database:
        ledger = Ledger(database, clock=WallClock())
        store, desk = TrackingStore(database), RunDesk(ledger)
        shown = desk.get(RUN)
        assert (shown.info.name, shown.info.owner, shown.info.experiment) == ("late", "ada", "0")
        assert shown.params == {"leaves": "31", "name": "ü", "deep": '{"a": [1]}'}
        assert store.params(RUN) == {"leaves": 31, "name": "ü", "deep": {"a": [1]}}
        assert shown.tags == {"team": "ops"}
        for run in (RUN, OTHER):
            points = store.list_points(run, "loss")
            assert [each.step for each in points] == [0, 1, 2]
            assert [each.value for each in points[:2]] == [0.5, 0.25]
            assert math.isnan(points[2].value)
            assert store.latest_points(run)["loss"].step == 2
        assert ExperimentBook(ledger).get("Default").updated_at is not None
        desk.update(RUN, state=RunState.FINISHED)
        assert ledger.get_run(RUN).state is RunState.FINISHED


def _fill_models(connection: Connection) -> None:
    _fill_runs(connection)
    version = text("""INSERT INTO versions
            (id, scope, kind, name, number, sha256, uri, run, facts, at, recorded_at)
        VALUES (:id, 'project', :kind, :name, :number, :id, 'x', :run, '{}', :at, :at)""")
    for kind, name, number in (("model", "late", 1), ("model", "late", 2), ("dataset", "late", 1)):
        id = f"project/{kind}/{name}:{number}"
        row = {"id": id, "kind": kind, "name": name, "number": number, "run": RUN, "at": AT_US + number}
        connection.execute(version, row)


def test_models_of_before_are_found_by_clients(url: str) -> None:
    _make(url, "0003", _fill_models)
    with Database.open(url) as database:
        catalogue = ModelCatalogue(Ledger(database, clock=WallClock()))
        (found,) = catalogue.search().models
        assert (found.name, found.ledger_name, found.created_at) == ("late", "late", from_micros(AT_US + 1))
        (latest,) = found.latest
        assert (latest.number, latest.source, latest.run) == (2, "noria:/model/late:2", RUN)
        catalogue.create("early")


def _fill_labels(connection: Connection) -> None:
    """Give a model of a client, as revision 0004 keeps it."""
    _fill_models(connection)
    model = text("""INSERT INTO registered_models (id, name, ledger_name, created_at, updated_at)
        VALUES (1, 'late', 'late', :at, :at)""")
    version = text("""INSERT INTO model_versions
            (version, model, number, source, location, stage, created_at, updated_at)
        VALUES ('project/model/late:2', 1, 2, 's3://b/c', 's3://b/c', 'Staging', :at, :at)""")
    for each in (model, version):
        connection.execute(each, {"at": AT_US})


def test_versions_of_before_were_registered_whole(url: str) -> None:
    _make(url, "0004", _fill_labels)
    with Database.open(url) as database:
        (found,) = ModelCatalogue(Ledger(database, clock=WallClock())).get("late").latest
        assert (found.number, found.stage.value, found.source) == (2, "Staging", "s3://b/c")
        assert (found.status, found.status_message, found.owner) == ("READY", None, None)
