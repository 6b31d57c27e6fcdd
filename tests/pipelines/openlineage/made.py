"""Runs and versions of any kind, by hand and by hypothesis."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from noria.pipelines.openlineage.emitter import Lineage
from noria.records import Cost, EventId, Run, RunId, RunState, Version, VersionId, new_id

NAMESPACE = "noria://shop"
_START = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def a_run(**changed: Any) -> Run:
    """Give a run that was begun, or `state=` ended a second later."""
    ended = changed.get("state", RunState.RUNNING) is not RunState.RUNNING
    given: dict[str, Any] = {
        "id": RunId(new_id()),
        "scope": "project",
        "kind": "train",
        "name": "late",
        "state": RunState.RUNNING,
        "attempt": 1,
        "key": None,
        "cause": EventId("project:7"),
        "parent": None,
        "experiment": None,
        "params": {},
        "metrics": {},
        "seed": None,
        "code": "none",
        "code_diff": None,
        "runtime": "0" * 64,
        "error": None,
        "cost": None,
        "at": datetime(2013, 1, 1, tzinfo=UTC),
        "started_at": _START,
        "ended_at": _START + timedelta(seconds=1) if ended else None,
    }
    return Run(**{**given, **changed})


def a_version(
    kind: str = "dataset", name: str = "parcels", number: int = 1, *, scope: str = "project"
) -> Version:
    return Version(
        id=VersionId(f"{scope}/{kind}/{name}:{number}"),
        scope=scope,
        kind=kind,
        name=name,
        number=number,
        sha256="ab" * 32,
        uri="tables/parcels",
        run=None,
        facts={},
        at=_START,
        recorded_at=_START,
    )


texts = st.text(max_size=30) | st.text(st.characters(), max_size=5)  # the second with lone surrogates
instants = st.datetimes(timezones=st.just(UTC))
hexes = st.integers(0, 2**256 - 1).map(lambda value: f"{value:064x}")
ids = st.builds(lambda _: RunId(new_id()), st.none())
scopes = st.just("project") | st.text(min_size=1, max_size=12).filter(lambda text: not {":", "/"} & set(text))

runs = st.builds(
    Run,
    id=ids,
    scope=scopes,
    kind=texts,
    name=texts,
    state=st.sampled_from([each for each in RunState if each is not RunState.RUNNING]),
    attempt=st.integers(1, 99),
    key=st.none() | texts,
    cause=st.none() | texts.map(EventId),
    parent=st.none() | ids,
    experiment=st.none() | texts,
    params=st.dictionaries(texts, texts | st.floats(), max_size=2),
    metrics=st.dictionaries(texts, st.floats(), max_size=2),
    seed=st.none() | st.integers(),
    code=st.just("none") | hexes | hexes.map(lambda value: value[:40]) | texts,
    code_diff=st.none() | hexes,
    runtime=hexes,
    error=st.none() | texts | st.text(min_size=4_000, max_size=4_100),
    cost=st.none() | st.builds(Cost, cpu_s=st.floats(), wall_s=st.floats()),
    at=instants,
    started_at=instants,
    ended_at=instants,
)
versions = st.builds(a_version, kind=texts, name=texts, number=st.integers(1, 10**9), scope=scopes)
lineages = st.builds(
    Lineage,
    run=runs,
    parent=st.none() | runs,
    inputs=st.lists(versions, max_size=4),
    outputs=st.lists(versions, max_size=4),
    root=st.none() | runs,
)
