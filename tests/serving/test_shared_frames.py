"""Requests that were answered together share frames of the log: each is kept there as if it were alone."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from tests.serving.conftest import CARRIERS, NOW, Trained, route, train

import noria
from noria.clock import to_micros
from noria.deploy.shipping import prediction_table
from noria.records import new_ids
from noria.serving.counts import RouteCounts
from noria.serving.explaining.logged import find_frame, row_of_frame
from noria.serving.features.lookups import Found
from noria.serving.features.online import OnlineFeatures
from noria.serving.jobs import Job
from noria.serving.logs.framing import Framer
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.log import PredictionFrame, decode_frame, encode_frame
from noria.serving.models import LoadedModel, LoadedRoute, load_route
from noria.serving.process.hosting import INDEX, Hosted
from noria.serving.records import Input, LogRules
from noria.serving.requests import Column, InferRequest, RequestError
from noria.serving.rows import Rows
from noria.serving.scoring import Part
from noria.streams.spool import read_spool

APART = ("prediction_id", "recorded_at", "latency_us")  # what differs each time
FRAME = pd.DataFrame({"a": np.linspace(-1, 1, 30), "b": np.tile([0.0, 1.0, 2.0], 10)})
THREE = np.where(FRAME.b == 0, "low", np.where(FRAME.a > 0, "high", "mid"))


@pytest.fixture(scope="module")
def canary(
    tmp_path_factory: pytest.TempPathFactory, online: Path, first: Trained, second: Trained
) -> Iterator[Hosted]:
    with two_releases(tmp_path_factory.mktemp("canary"), online, first, second) as made:
        yield made


@pytest.fixture(scope="module")
def beside(
    tmp_path_factory: pytest.TempPathFactory, online: Path, first: Trained, second: Trained
) -> Iterator[Hosted]:
    """Another server of the same, with a log and an index of its own."""
    with two_releases(tmp_path_factory.mktemp("beside"), online, first, second) as made:
        yield made


@contextmanager
def two_releases(folder: Path, online: Path, first: Trained, second: Trained) -> Iterator[Hosted]:
    features = OnlineFeatures(str(shutil.copytree(online, folder / "online")), root=folder)
    with closing(features), closing(hosted(folder, clock="replay", features=features)) as made:
        of_two = route(1, first.served(1), second.served(2), weights=(0.5, 0.5))
        made.predictor.switch(load_route(of_two, folder=folder))
        yield made


def hosted(
    folder: Path, *, clock: Any = "wall", features: OnlineFeatures | None = None, **how: Any
) -> Hosted:
    return Hosted(
        folder / "late",
        environment="production",
        deployment="late",
        worker=0,
        clock=clock,
        features=features,
        **how,
    )


def jobs_of(
    made: Hosted, requests: Sequence[InferRequest], name: str = "late", versions: Sequence[str | None] = ()
) -> list[Job]:
    """Give jobs that arrived a second after each other, the last first; of versions where these are told."""
    return [
        made.predictor.job(
            each, "late_arrival" if version else name, version, arrived_ns=-1_000_000_000 * place
        )
        for place, (each, version) in enumerate(zip_longest(requests, versions))
    ]


def answer(
    made: Hosted, requests: Sequence[InferRequest], name: str = "late", versions: Sequence[str | None] = ()
) -> list[Job]:
    jobs = jobs_of(made, requests, name, versions)
    assert made.predictor.answer(jobs) == []
    assert [each.error for each in jobs] == [None] * len(jobs)
    return jobs


def frames(made: Hosted, since: tuple[int, int] = (0, 0)) -> list[PredictionFrame]:
    return [decode_frame(payload) for _, payload in read_spool(made.folder / "spool", after=since)]


def rows(made: Hosted, jobs: Sequence[Job], since: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """Give what the lake keeps of each request, by release: without what differs."""
    logged = frames(made, since)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in prediction_table(logged).to_pylist():
        kept = {"caller": None, "trace": None, "fallbacks": [], **row}
        found.setdefault(row["prediction_id"], []).append(
            {name: value for name, value in kept.items() if name not in APART}
        )
    assert sum(map(len, found.values())) == sum(len(each.ids) * len(each.releases) for each in logged)
    return [
        sorted((row for each in job.ids for row in found[each]), key=lambda row: row["release"])
        for job in jobs
    ]


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from([*CARRIERS, "zz", "ü" * 40, None]), min_size=1, max_size=4),
        st.integers(0, 1),
        st.sampled_from([None, "shop", "web"]),
        st.sampled_from([None, "00-aa-bb-01"]),
        st.booleans(),
        st.sampled_from([None, None, "1", "2"]),
    ),
    min_size=1,
    max_size=8,
)


@given(requests=REQUESTS)
@settings(max_examples=60, deadline=None)
def test_a_request_is_logged_among_others_as_it_is_alone(
    canary: Hosted, beside: Hosted, requests: list[Any]
) -> None:
    asked: list[InferRequest] = []
    for carriers, days, caller, trace, is_named, _ in requests:
        columns = {
            "carrier": Column("BYTES", carriers),
            "distance": Column("FP64", [float(len(asked))] * len(carriers)),
        }
        each = InferRequest(len(carriers), columns, at=to_micros(NOW) - days * 86_400_000_000)
        ids = new_ids(len(carriers)) if is_named else None
        asked.append(msgspec.structs.replace(each, caller=caller, trace=trace, prediction_ids=ids))
    since = canary.spool.position
    versions = [each[-1] for each in requests]
    together = answer(canary, asked, versions=versions)
    kept = rows(canary, together, since)
    for job, mine, version in zip(together, kept, versions, strict=True):
        since = beside.spool.position
        own = msgspec.structs.replace(job.request, prediction_ids=job.ids)  # they choose who answers
        (alone,) = answer(beside, [own], versions=[version])
        assert alone.prediction is not None
        assert job.prediction is not None
        assert alone.prediction.outputs == job.prediction.outputs
        assert rows(beside, [alone], since) == [mine]
    alike = {(each[1], each[-1]) for each in requests if not each[4]}  # of an instant and a target
    assert len({id(each.frame) for each in together if not each.names_ids}) == len(alike)


def test_each_row_keeps_its_own_time_and_its_own_caller(canary: Hosted) -> None:
    columns = {"carrier": Column("BYTES", ["AA", "DL"]), "distance": Column("FP64", [1.0, 2.0])}
    request = InferRequest(2, columns, at=to_micros(NOW))
    jobs = answer(canary, [request, msgspec.structs.replace(request, caller="shop"), request])
    frame = jobs[0].frame
    assert frame is not None
    assert frame is jobs[2].frame
    assert frame.ids == [each for job in jobs for each in job.ids]
    assert (frame.row_callers, frame.row_traces) == ([None, None, "shop", "shop", None, None], [None] * 6)
    times = np.diff(frame.row_latencies_us)  # each of them arrived a second before the one that is before it
    assert times.tolist() == [0, 1_000_000, 0, 1_000_000, 0]
    assert frame.latency_us == max(frame.row_latencies_us)


def test_what_shares_a_frame_is_found_for_a_retry_and_to_be_explained(canary: Hosted, tmp_path: Path) -> None:
    columns = {"carrier": Column("BYTES", ["AA"]), "distance": Column("FP64", [1.0])}
    asked = [
        InferRequest(1, {**columns, "distance": Column("FP64", [float(each)])}, at=to_micros(NOW))
        for each in range(20)
    ]
    jobs = answer(canary, asked)
    (stamp,) = {*canary.index.stamps([each for job in jobs for each in job.ids])}
    for place, job in enumerate(jobs):
        found = find_frame(canary.folder, job.ids[0], stamp=stamp)
        assert found is not None
        logged = row_of_frame(*found)
        assert (logged.prediction_id, logged.inputs["distance"]) == (job.ids[0], float(place))
        (again,) = answer(canary, [msgspec.structs.replace(job.request, prediction_ids=job.ids)])
        assert again.prediction is not None
        assert job.prediction is not None
        assert again.prediction.logged == 1
        assert again.prediction.outputs == job.prediction.outputs
    with PredictionIndex(tmp_path / INDEX) as anew:  # as where the index had been cut off
        assert anew.catch_up(canary.folder / "spool") > 0
        ids = [each for job in jobs for each in job.ids]
        assert anew.find(ids) == canary.index.find(ids)


def test_one_that_was_answered_elsewhere_meanwhile_is_asked_again_and_no_other(
    canary: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"carrier": Column("BYTES", ["AA"]), "distance": Column("FP64", [1.0])}
    of_client = [
        InferRequest(1, columns, prediction_ids=new_ids(1), at=to_micros(NOW), caller=str(each))
        for each in range(4)
    ]
    answer(canary, of_client[1:2])
    since = canary.spool.position
    jobs = jobs_of(canary, of_client)
    with monkeypatch.context() as patched:  # the other one answers after these have looked
        patched.setattr(canary.index, "find", lambda ids: [None] * len(ids))
        assert canary.predictor.answer(jobs) == [jobs[1]]
    assert [each.is_done for each in jobs] == [True, False, True, True]
    logged = [each for frame in frames(canary, since) for each in frame.ids]
    assert sorted(logged) == sorted(jobs[place].ids[0] for place in (0, 2, 3))
    assert canary.predictor.answer(jobs[1:2]) == []
    assert jobs[1].prediction is not None
    assert jobs[1].prediction.logged == 1


def test_a_release_that_fails_beside_another_is_missing_in_its_own_rows_alone(
    canary: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = canary.predictor._asking
    score = asking.score

    def fail_at_7(model: LoadedModel, rows: Rows, **how: bool) -> Any:
        if model.served.version == 2 and 7.0 in rows.matrix[:, 0]:
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "it could not")
        return score(model, rows, **how)

    requests = [
        InferRequest(
            1,
            {"carrier": Column("BYTES", ["AA"]), "distance": Column("FP64", [7.0 if each % 3 else 1.0])},
            at=to_micros(NOW),
        )
        for each in range(60)
    ]
    since = canary.spool.position
    jobs = jobs_of(canary, requests)
    with monkeypatch.context() as patched:
        patched.setattr(asking, "score", fail_at_7)
        assert canary.predictor.answer(jobs) == []
    told = [job for job in jobs if job.error is None]
    assert 20 < len(told) < 60
    for job, kept in zip(told, rows(canary, told, since), strict=True):
        fails = job.request.columns["distance"].values[0] == 7.0
        assert job.prediction is not None
        assert not fails or job.prediction.versions == [1]
        assert [each["version"] for each in kept] == ([1] if fails else [1, 2])


def test_what_could_not_be_looked_up_is_told_of_the_rows_that_lacked_it(
    canary: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = canary.predictor._lookups
    find = lookups.find

    def find_some(asked: Any) -> list[Any]:
        found = [each for each in find(asked) if isinstance(each, Found)]
        return [
            msgspec.structs.replace(each, defaulted=("carrier",) if place % 3 else (), lacking=())
            for place, each in enumerate(found)
        ]

    columns = {"carrier": Column("BYTES", ["AA"]), "distance": Column("FP64", [1.0])}
    since = canary.spool.position
    with monkeypatch.context() as patched:
        patched.setattr(lookups, "find", find_some)
        jobs = answer(canary, [InferRequest(1, columns, at=to_micros(NOW))] * 9)
    assert [each.fallbacks for each in frames(canary, since)] == [[], ["carrier"]]
    for place, kept in enumerate(rows(canary, jobs, since)):
        assert [each["fallbacks"] for each in kept] == [["carrier"] if place % 3 else []] * 2


def test_what_was_computed_on_demand_is_kept_of_each(canary: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"carrier": Column("BYTES", ["AA", "DL"]), "distance": Column("FP64", [1.0, 2.0])}
    parts: list[Part] = []

    def take(given: Sequence[Part]) -> list[Job]:
        parts.extend(given)
        return []

    with monkeypatch.context() as patched:
        patched.setattr(canary.predictor, "_log", take)
        answer(canary, [InferRequest(2, columns, at=to_micros(NOW))] * 3)
    for place, part in enumerate(parts):
        part.scores = [
            msgspec.structs.replace(
                each,
                computed_names=("load__a", "load__b"),
                computed=np.arange(4.0 * place, 4.0 * place + 4).tobytes(),
            )
            for each in part.scores
        ]
    framer = Framer(environment="production", deployment="late", log=canary.predictor.log)
    ((frame, _),) = framer.frames(parts)
    assert decode_frame(encode_frame(frame)) == frame
    for release in frame.releases:
        assert release.computed_matrix().tolist() == np.arange(12.0).reshape(6, 2).tolist()


def test_vectors_of_a_request_are_kept_of_each(tmp_path: Path) -> None:
    trained = train(tmp_path / "model.txt", seed=3, columns=3)
    inputs = Input(name="pair", kind="number", width=2), Input(name="more", kind="number")
    with closing(hosted(tmp_path)) as made:
        of_vectors = route(1, trained.served(1, inputs=inputs, views=()))
        made.predictor.switch(load_route(of_vectors, folder=tmp_path))
        asked = [
            InferRequest(
                count,
                {
                    "pair": Column("FP64", [float(place), *range(2 * count - 1)], 2),
                    "more": Column("FP64", [place + 0.5] * count),
                },
            )
            for place, count in enumerate((1, 3, 2))
        ]
        jobs = answer(made, asked)
        (frame,) = frames(made)
        assert frame.ids == [each for job in jobs for each in job.ids]
        given = [request.columns[each] for each in ("pair", "more") for request in asked]
        assert frame.number_array("pair").ravel().tolist() == [
            value for each in given[:3] for value in each.values
        ]
        assert frame.number_array("more").tolist() == [value for each in given[3:] for value in each.values]


@pytest.mark.parametrize("rules", [LogRules(sample=0.5), LogRules(redact=("a",))], ids=["sample", "redact"])
def test_frames_keep_the_rules_of_the_log(tmp_path: Path, rules: LogRules) -> None:
    with closing(hosted(tmp_path, log=rules)) as made, project(tmp_path) as opened:
        made.predictor.switch(loaded(opened, LinearRegression().fit(FRAME, FRAME.a), tmp_path))
        jobs = answer(made, [numbers(float(each)) for each in range(200)], name="tried")
        kept = frames(made)
        if rules.redact:
            assert [len(each.ids) for each in kept] == [200]
            assert np.isnan(kept[0].number_array("a")).all()
            assert kept[0].number_array("b").tolist() == [1.0] * 200
        else:
            assert {len(each.ids) for each in kept} == {1}
            assert 70 < len(kept) < 130
        assert all(made.index.find([each for job in jobs for each in job.ids]))


def test_what_is_large_has_a_frame_of_its_own_and_no_frame_is_without_end(tmp_path: Path) -> None:
    with closing(hosted(tmp_path)) as made, project(tmp_path) as opened:
        made.predictor.switch(loaded(opened, LinearRegression().fit(FRAME, FRAME.a), tmp_path))
        large = InferRequest(5_000, {each: Column("FP64", [1.0] * 5_000) for each in ("a", "b")})
        answer(made, [numbers(0.0), large, *map(numbers, range(299))], name="tried")
        assert sorted(len(each.ids) for each in frames(made)) == [300 - 256, 256, 5_000]


@pytest.mark.parametrize("kind", ["texts", "truths"])
def test_outputs_that_are_no_numbers_are_kept_of_each(tmp_path: Path, kind: str) -> None:
    target = THREE if kind == "texts" else (FRAME.a > 0)
    with closing(hosted(tmp_path)) as made, project(tmp_path) as opened:
        made.predictor.switch(loaded(opened, LogisticRegression().fit(FRAME, target), tmp_path))
        asked = [numbers(each, rows) for each, rows in ((-1.0, 1), (0.9, 3), (0.1, 1), (-0.3, 2))]
        jobs = answer(made, asked, name="tried")
        assert len({id(each.frame) for each in jobs}) == 1
        for job in jobs:
            again, *_ = answer(
                made, [msgspec.structs.replace(job.request, prediction_ids=job.ids)], name="tried"
            )
            assert again.prediction is not None
            assert job.prediction is not None
            assert again.prediction.logged == job.request.rows
            assert again.prediction.outputs == job.prediction.outputs


def project(folder: Path) -> Any:
    (folder / "noria.toml").write_text('[project]\nname = "shared"\n[environments.production]\n')
    return noria.open(folder)


def loaded(opened: Any, model: object, folder: Path) -> LoadedRoute:
    version = opened.models.register(model, name="tried", example=FRAME[:10])
    return load_route(opened.deploy(version.ref, to="production").route, folder=folder)


def numbers(a: float, count: int = 1) -> InferRequest:
    return InferRequest(count, {"a": Column("FP64", [a] * count), "b": Column("FP64", [1.0] * count)})


@pytest.mark.parametrize("where", ["frame", "answer"])
def test_a_fault_of_the_program_is_one_requests_and_counts_nobody_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with closing(hosted(tmp_path)) as made, project(tmp_path) as opened:
        made.predictor.switch(loaded(opened, LinearRegression().fit(FRAME, FRAME.a), tmp_path))
        owner, name = (
            (made.predictor._framer, "frame") if where == "frame" else (made.predictor, "_prediction")
        )
        at_work = getattr(owner, name)

        def fail(given: Any, **how: Any) -> Any:
            asked = [given] if isinstance(given, Job) else [part.job for part in given]
            if any(job.request.columns["a"].values[0] == 7.0 for job in asked):
                raise KeyError("a fault")
            return at_work(given, **how)

        monkeypatch.setattr(owner, name, fail)
        jobs = jobs_of(made, [numbers(each) for each in (1.0, 7.0, 2.0)], "tried")
        assert made.batcher._answer(jobs) == []
        assert [type(each.error) for each in jobs] == [type(None), KeyError, type(None)]
        (counts,) = made.predictor.counts.releases.values()
        assert counts.requests == 2
        logged = [each for frame in frames(made) for each in frame.ids]
        assert len(set(logged)) == len(logged)
        assert set(jobs[0].ids + jobs[2].ids) <= set(logged)


def test_counts_of_a_route_that_was_replaced_meanwhile_are_nobodys(canary: Hosted) -> None:
    columns = {"carrier": Column("BYTES", ["AA"]), "distance": Column("FP64", [1.0])}
    jobs = jobs_of(canary, [InferRequest(1, columns, at=to_micros(NOW))])
    before = canary.predictor.counts
    canary.predictor.counts = RouteCounts(route=before.route + 1)
    assert canary.predictor.answer(jobs) == []
    assert canary.predictor.counts.releases == {}
    canary.predictor.counts = before
