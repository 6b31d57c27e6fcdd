import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from tests.pipelines.openlineage.made import NAMESPACE, a_run, a_version, lineages
from tests.pipelines.openlineage.published import KEYS, faults

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.pipelines.openlineage.emitter import Lineage, end_event, start_event
from noria.records import RunId, RunState

Event = dict[str, Any]


def told(lineage: Lineage) -> tuple[Event, Event]:
    """Give both events as a reader gets them: through JSON."""
    events = start_event(lineage, namespace=NAMESPACE), end_event(lineage, namespace=NAMESPACE)
    start, end = (msgspec.json.decode(msgspec.json.encode(each)) for each in events)
    return start, end


def full_event() -> Event:
    """Give an event with every facet that there is."""
    parent = a_run(kind="pipeline", name="weekly")
    run = a_run(state=RunState.FAILED, error="out of memory", code="a" * 40, parent=parent.id)
    lineage = Lineage(run, parent, inputs=[a_version()], outputs=[a_version("model", "late", 4)])
    return told(lineage)[1]


@given(lineages)
@settings(max_examples=150, deadline=None)
def test_events_of_any_run_are_valid(lineage: Lineage) -> None:
    start, end = told(lineage)
    assert faults(start) == []
    assert faults(end) == []


def test_an_event_can_have_every_facet_and_is_valid() -> None:
    event = full_event()
    places = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    used = {key for place in places for key in place["facets"]}
    assert used == {*KEYS, "noria_run", "noria_version"}
    assert faults(event) == []


BROKEN: dict[str, Callable[[Event], object]] = {
    "a run id that is no UUID": lambda e: e["run"].update(runId="0" * 31),
    "no run id": lambda e: e["run"].pop("runId"),
    "an instant without a day": lambda e: e.update(eventTime="08:30"),
    "an instant without an offset": lambda e: e.update(eventTime="2026-03-01T08:30:00"),
    "an unknown type": lambda e: e.update(eventType="DONE"),
    "a producer that is no URI": lambda e: e.update(producer="noria 0.1"),
    "no schema": lambda e: e.pop("schemaURL"),
    "no job": lambda e: e.pop("job"),
    "a job without a namespace": lambda e: e["job"].pop("namespace"),
    "inputs that are no list": lambda e: e.update(inputs=e["inputs"][0]),
    "a dataset without a name": lambda e: e["outputs"][0].pop("name"),
    "a null": lambda e: e["job"].update(facets=None),
    "a facet without a producer": lambda e: e["run"]["facets"]["noria_run"].pop("_producer"),
    "a facet without a schema": lambda e: e["inputs"][0]["facets"]["noria_version"].pop("_schemaURL"),
    "a facet of another entity": lambda e: e["job"]["facets"].update(
        noria_run=e["run"]["facets"]["noria_run"]
    ),
    "a facet of another version": lambda e: e["job"]["facets"]["jobType"].update(
        _schemaURL="https://openlineage.io/spec/facets/1-0-0/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"
    ),
    "a facet that nobody knows": lambda e: e["run"]["facets"].update(mine={}),
    "a misspelt field": lambda e: e["job"]["facets"]["jobType"].update(jobtype="TRAIN"),
    "no nominal start": lambda e: e["run"]["facets"]["nominalTime"].pop("nominalStartTime"),
    "a number for a version": lambda e: e["inputs"][0]["facets"]["version"].update(datasetVersion=3),
    "code at no URI": lambda e: e["job"]["facets"]["sourceCodeLocation"].update(url="a b"),
    "a parent without a job": lambda e: e["run"]["facets"]["parent"].pop("job"),
    "a root whose id is no UUID": lambda e: e["run"]["facets"]["parent"]["root"]["run"].update(runId="x"),
    "an error without a language": lambda e: e["run"]["facets"]["errorMessage"].pop("programmingLanguage"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_found(fault: str) -> None:
    event = full_event()
    sound = copy.deepcopy(event)
    BROKEN[fault](event)
    assert event != sound
    assert faults(event) != []


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (RunState.FINISHED, "COMPLETE"),
        (RunState.FAILED, "FAIL"),
        (RunState.CANCELLED, "ABORT"),
        (RunState.KILLED, "ABORT"),
    ],
)
def test_a_run_ends_as_it_ended(state: RunState, kind: str) -> None:
    start, end = told(Lineage(a_run(state=state)))
    assert (start["eventType"], end["eventType"]) == ("START", kind)
    facets = [each["run"]["facets"]["noria_run"] for each in (start, end)]
    assert [each["state"] for each in facets] == ["running", state.value]


def test_a_run_at_work_has_no_end() -> None:
    with pytest.raises(ValueError, match="is running; its end is told once it has ended"):
        end_event(Lineage(a_run()), namespace=NAMESPACE)


def test_instants_are_the_walls_and_the_projects_is_nominal() -> None:
    day = datetime(2013, 4, 1, tzinfo=UTC)
    start, end = told(Lineage(a_run(state=RunState.FINISHED, at=day)))
    assert (start["eventTime"], end["eventTime"]) == ("2026-03-01T08:30:00Z", "2026-03-01T08:30:01Z")
    assert end["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2013-04-01T00:00:00Z"


def test_the_run_id_is_a_uuid_of_version_7() -> None:
    start, _ = told(Lineage(a_run(id=RunId("0199f2b4c1d27e3f8a5b6c7d8e9f0a1b"), state=RunState.FINISHED)))
    assert start["run"]["runId"] == "0199f2b4-c1d2-7e3f-8a5b-6c7d8e9f0a1b"


def test_errors_are_told_of_what_did_not_finish_only() -> None:
    def error_of(**changed: Any) -> str | None:
        facet = told(Lineage(a_run(**changed)))[1]["run"]["facets"].get("errorMessage")
        return None if facet is None else str(facet["message"])

    assert error_of(state=RunState.FAILED, error="größer als 3 \U0001f40b") == "größer als 3 \U0001f40b"
    assert error_of(state=RunState.KILLED, error="gone") == "gone"
    assert error_of(state=RunState.FAILED, error=None) is None
    assert error_of(state=RunState.FINISHED, error="odd") is None
    assert error_of(state=RunState.FAILED, error="a\0b\ud800") == "a\\0b\\ud800"
    assert error_of(state=RunState.FAILED, error="x" * 10**6) == "x" * 4_000 + "…"


def test_code_is_told_by_its_commit_where_there_is_one() -> None:
    def code_of(commit: str) -> Event | None:
        found: Event | None = told(Lineage(a_run(state=RunState.FINISHED, code=commit)))[0]["job"][
            "facets"
        ].get("sourceCodeLocation")
        return found

    assert code_of("none") is None
    sha1 = code_of("3b" * 20)
    assert sha1 is not None
    assert (sha1["type"], sha1["url"], sha1["version"]) == ("git", "swh:1:rev:" + "3b" * 20, "3b" * 20)
    sha256 = code_of("3b" * 32)
    assert sha256 is not None
    assert sha256["url"] == "urn:noria:git:" + "3b" * 32


def test_a_thing_has_one_name_whoever_tells_of_it() -> None:
    shared, own = a_version("model", "late", 2), a_version("route", "late", 1, scope="staging")
    start, _ = told(Lineage(a_run(state=RunState.FINISHED, scope="staging"), inputs=[shared], outputs=[own]))
    assert (start["job"]["namespace"], start["job"]["name"]) == ("noria://shop/staging", "train/late")
    names = [(each["namespace"], each["name"]) for each in start["inputs"] + start["outputs"]]
    assert names == [("noria://shop", "model/late"), ("noria://shop/staging", "route/late")]
    facets = start["inputs"][0]["facets"]
    assert facets["version"]["datasetVersion"] == "2"
    told_of = {key: value for key, value in facets["noria_version"].items() if not key.startswith("_")}
    assert told_of == {"id": "project/model/late:2", "kind": "model", "number": 2, "sha256": "ab" * 32}


def test_two_versions_of_a_dataset_are_two_inputs_and_the_same_twice_is_one() -> None:
    versions = [a_version(number=3), a_version(number=4), a_version(number=3)]
    start, _ = told(Lineage(a_run(state=RunState.FINISHED), inputs=versions))
    assert [each["facets"]["version"]["datasetVersion"] for each in start["inputs"]] == ["3", "4"]


def test_the_root_is_the_parent_that_has_none_or_the_one_that_is_given() -> None:
    top, outer = a_run(kind="pipeline", name="year"), a_run(kind="pipeline", name="month")
    inner = a_run(kind="pipeline", name="month", parent=top.id)

    def root_of(**related: Any) -> str | None:
        facet = told(Lineage(a_run(state=RunState.FINISHED), **related))[0]["run"]["facets"]["parent"]
        assert facet["job"]["name"] == "pipeline/month"
        return None if "root" not in facet else str(facet["root"]["job"]["name"])

    assert root_of(parent=outer) == "pipeline/month"
    assert root_of(parent=inner) is None  # there is one, but which is not known
    assert root_of(parent=inner, root=top) == "pipeline/year"


def test_what_a_ledger_recorded_is_told(tmp_path: Path) -> None:
    ledger = Ledger(Database.open(f"sqlite:///{tmp_path / 'noria.db'}"), clock=WallClock())
    raw = ledger.record_version("dataset", "parcels", sha256="1" * 64, uri="a")
    parent = ledger.start_run("pipeline", "weekly")
    run = ledger.start_run("step", "weekly/clean", parent=parent.id)
    ledger.add_input(run.id, raw.id)
    made = ledger.record_version("output", "weekly/clean", sha256="2" * 64, uri="b", run=run.id)
    run = ledger.finish_run(run.id, state=RunState.FINISHED)
    edges = {each.role: each.version for each in ledger.list_edges(run=run.id)}
    assert edges == {"input": raw.id, "output": made.id}
    start, end = told(Lineage(run, parent, [raw], [made]))
    assert faults(start) + faults(end) == []
    assert (end["inputs"][0]["name"], end["outputs"][0]["name"]) == ("dataset/parcels", "output/weekly/clean")
    assert end["run"]["facets"]["parent"]["run"]["runId"].replace("-", "") == parent.id
