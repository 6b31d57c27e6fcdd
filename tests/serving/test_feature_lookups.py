"""Features that a request's rows get: together as alone, the declared defaults, and how old they are."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.conftest import CARRIERS, FLIGHTS, NOW, VIEW, Trained, landed, route, train

from noria.clock import to_micros
from noria.deploy.shipping import prediction_table
from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.standing import Standing
from noria.serving.features.looked_up import logged_name
from noria.serving.features.online import OnlineFeatures
from noria.serving.logs.log import PredictionFrame, decode_frame
from noria.serving.models import load_route
from noria.serving.process.hosting import Hosted
from noria.serving.records import Input, ServedModel
from noria.serving.requests import Column, InferRequest, Prediction, RequestError
from noria.streams.spool import read_spool

RICH = FeatureView(
    "rich",
    source=FLIGHTS,
    entity="carrier",
    features={
        "kind": agg.last_text("kind"),
        "taste": agg.embedding("taste", 2),
        "late": agg.last("delay"),
        "many": agg.count(window="1d"),
    },
    defaults={"kind": "plain", "taste": [0.1, 2.0], "late": 7},
)
CHANGED = replace(VIEW, features={**VIEW.features, "flights_1d": agg.count(window="2d")})
RICH_INPUTS = (
    Input(name="distance", kind="number"),
    Input(name="rich__kind", kind="text", categories=("fast", "plain")),
    Input(name="rich__taste_0", kind="feature"),
    Input(name="rich__taste_1", kind="feature"),
    Input(name="rich__late", kind="feature"),
    Input(name="rich__many", kind="feature"),
    Input(name="carrier__flights_1d", kind="feature"),
)
Host = Callable[..., Hosted]


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    trained = train(tmp_path_factory.mktemp("rich") / "model.txt", seed=4, columns=len(RICH_INPUTS))
    return trained.served(3, inputs=RICH_INPUTS, views=(RICH.spec(), VIEW.spec()))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made: list[Hosted] = []
    stores: list[OnlineFeatures] = []

    def make(
        online: Path, *models: ServedModel, modes: Sequence[str] = ("answer", "shadow"), **how: Any
    ) -> Hosted:
        mine = tmp_path / f"online-{len(made)}"  # LMDB opens a folder once per process
        if online.exists():
            shutil.copytree(online, mine)
        features = OnlineFeatures(str(mine), root=tmp_path, **how)
        hosted = Hosted(
            tmp_path / f"late-{len(made)}",
            environment="production",
            deployment="late",
            worker=0,
            clock="replay",
            features=features,
        )
        made.append(hosted)
        stores.append(features)
        made_of = route(1, *models, modes=modes[: len(models)])
        hosted.predictor.switch(load_route(made_of, folder=tmp_path))
        return hosted

    yield make
    for hosted, store in zip(made, stores, strict=True):
        hosted.close()
        store.close()


def asked(carriers: Sequence[str | None], *, at: int = to_micros(NOW)) -> InferRequest:
    columns = {
        "carrier": Column("BYTES", list(carriers)),
        "distance": Column("FP64", [500.0] * len(carriers)),
    }
    return InferRequest(rows=len(carriers), columns=columns, at=at)


def answered(hosted: Hosted, *requests: InferRequest) -> list[tuple[Prediction, PredictionFrame]]:
    """Answer requests that arrived together."""
    jobs = [hosted.predictor.job(each, "late", None, arrived_ns=0) for each in requests]
    assert hosted.predictor.answer(jobs) == []
    found = []
    for job in jobs:
        if job.error is not None:
            raise job.error
        assert job.prediction is not None
        assert job.frame is not None
        found.append((job.prediction, job.frame))
    return found


def stood(folder: Path, view: FeatureView, *, known_ago_s: float, max_age_s: float | None) -> None:
    """Load a view that counts everything up to some time ago."""
    with LmdbOnlineStore(folder) as store:
        standing = Standing(
            table="t",
            version=1,
            known_us=to_micros(NOW) - round(known_ago_s * 1e6),
            at_us=0,
            max_age_us=None if max_age_s is None else round(max_age_s * 1e6),
        )
        store.load(view, landed(), standing=standing)


@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.sampled_from([*CARRIERS, "zz", None]), min_size=1, max_size=5), st.integers(0, 2)
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=30, deadline=None)
def test_requests_that_arrive_together_get_what_each_gets_alone(
    one: Hosted, requests: list[tuple[list[str | None], int]]
) -> None:
    several = [asked(rows, at=to_micros(NOW) - days * 86_400_000_000) for rows, days in requests]
    together = answered(one, *several)
    for (prediction, frame), request in zip(together, several, strict=True):
        ((alone, its_frame),) = answered(one, request)
        assert prediction.outputs == alone.outputs
        rows = [frame.ids.index(each) for each in prediction.ids]  # it may be among others there
        assert frame.feature_matrix()[rows].tobytes() == its_frame.features
        assert frame.at == its_frame.at
        assert not prediction.defaulted


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, online: Path, first: Trained) -> Iterator[Hosted]:
    folder = tmp_path_factory.mktemp("one")
    features = OnlineFeatures(str(shutil.copytree(online, folder / "online")), root=folder)
    hosted = Hosted(
        folder,
        environment="production",
        deployment="late",
        worker=0,
        clock="replay",
        features=features,
    )
    with closing(features), closing(hosted):
        hosted.predictor.switch(load_route(route(1, first.served(1)), folder=folder))
        yield hosted


def test_a_store_that_comes_later_is_refused_until_then_and_told_once_a_second(
    host: Host, tmp_path: Path, first: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    hosted = host(tmp_path / "later", first.served(1))
    for _ in range(20):
        with pytest.raises(RequestError, match="features cannot be looked up") as caught:
            answered(hosted, asked(["AA"]))
        assert caught.value.status == 503
    assert len([each for each in caplog.records if "no online store" in each.getMessage()]) <= 2
    with LmdbOnlineStore(tmp_path / "online-0") as store:
        store.load(VIEW, landed())
    ((prediction, frame),) = answered(hosted, asked(["AA", None, "zz"]))
    assert (prediction.defaulted, prediction.stale, frame.fallbacks) == ({}, {}, [])
    assert frame.feature_matrix()[0, 0] > 0


def test_declared_defaults_stand_in_for_a_store_that_is_away_and_the_answer_says_so(
    host: Host, tmp_path: Path, rich: ServedModel
) -> None:
    hosted = host(tmp_path / "away", rich, with_defaults=True)
    (prediction, frame), (_, other) = answered(hosted, asked(["AA", None]), asked(["zz"]))
    assert prediction.defaulted == {"rich": 2, "carrier": 2}
    assert frame is other
    assert frame.fallbacks == ["rich", "carrier"]
    features = dict(zip(frame.feature_names, frame.feature_matrix()[1], strict=True))
    assert features["rich__taste_0"] == float(np.float32(0.1))  # as the store would give it
    assert (features["rich__taste_1"], features["rich__late"]) == (2.0, 7.0)
    assert np.isnan([features["rich__many"], features["carrier__flights_1d"]]).all()
    assert frame.feature_texts == {"rich__kind": ["plain"] * 3}
    table = prediction_table([frame])
    assert table["fallbacks"].to_pylist() == [["rich", "carrier"]] * 3


def test_a_view_that_is_not_there_yet_gets_its_defaults_and_the_others_their_values(
    host: Host, online: Path, rich: ServedModel, first: Trained
) -> None:
    ((_, wanted),) = answered(host(online, first.served(1)), asked(["AA", "zz", None]))
    refusing = host(online, rich)
    with pytest.raises(RequestError, match="features cannot be looked up"):
        answered(refusing, asked(["AA"]))
    hosted = host(online, rich, with_defaults=True)
    ((prediction, frame),) = answered(hosted, asked(["AA", "zz", None]))
    assert (prediction.defaulted, frame.fallbacks) == ({"rich": 3}, ["rich"])
    place = frame.feature_names.index("carrier__flights_1d")
    np.testing.assert_array_equal(frame.feature_matrix()[:, place], wanted.feature_matrix()[:, 0])
    assert frame.feature_matrix()[0, frame.feature_names.index("rich__late")] == 7.0


def test_one_damaged_value_spoils_no_other_request(host: Host, tmp_path: Path, first: Trained) -> None:
    import lmdb

    folder = tmp_path / "damaged"
    with LmdbOnlineStore(folder) as store:
        store.load(VIEW, landed())
    with closing(lmdb.open(str(folder), max_dbs=8)) as opened, opened.begin(write=True) as txn:
        (name,) = [bytes(key) for key, _ in txn.cursor() if bytes(key).startswith(b"rows/")]
        rows = opened.open_db(name, txn=txn)
        assert txn.put(b"=AA", b"no value", db=rows)
    hosted = host(folder, first.served(1))
    jobs = [
        hosted.predictor.job(asked([each]), "late", None, arrived_ns=0) for each in ("AA", "DL", "AA", "zz")
    ]
    hosted.predictor.answer(jobs)
    assert [job.error is None for job in jobs] == [False, True, False, True]
    made_up = host(folder, first.served(1), with_defaults=True)
    found = answered(made_up, *map(asked, (["AA"], ["DL"])))
    assert [prediction.defaulted for prediction, _ in found] == [{"carrier": 1}, {}]


@pytest.mark.parametrize("with_defaults", [True, False])
def test_a_view_that_only_a_shadow_reads_changes_no_answer(
    host: Host, online: Path, first: Trained, second: Trained, with_defaults: bool
) -> None:
    ((wanted, _),) = answered(host(online, first.served(1)), asked(["AA"]))
    models = first.served(1), second.served(2, views=(CHANGED.spec(),))
    hosted = host(online, *models, with_defaults=with_defaults)
    ((prediction, frame),) = answered(hosted, asked(["AA"]))
    assert prediction.outputs == wanted.outputs
    assert (prediction.defaulted, prediction.stale) == ({}, {})
    assert frame.fallbacks == [logged_name(CHANGED.spec(), "carrier")]


def test_definitions_of_one_view_are_told_apart(
    host: Host, online: Path, first: Trained, second: Trained
) -> None:
    models = first.served(1), second.served(2, views=(CHANGED.spec(),))
    hosted = host(online, *models, modes=["answer", "answer"], with_defaults=True)
    ((prediction, frame),) = answered(hosted, asked(["AA"]))
    label = logged_name(CHANGED.spec(), "carrier")
    assert (prediction.defaulted, frame.fallbacks) == ({label: 1}, [label])
    features = dict(zip(frame.feature_names, frame.feature_matrix()[0], strict=True))
    assert np.isnan(features[f"{label}__flights_1d"])
    assert features[logged_name(VIEW.spec(), "carrier__flights_1d")] > 0


def test_texts_and_vectors_that_were_looked_up_are_logged_of_each(
    host: Host, tmp_path: Path, rich: ServedModel
) -> None:
    rows = landed()
    kinds = pa.array([f"kind of {each}" for each in rows["carrier"].to_pylist()])
    tastes = pa.array([[float(len(each)), float(ord(each[0]))] for each in rows["carrier"].to_pylist()])
    with LmdbOnlineStore(tmp_path / "stored") as store:
        store.load(VIEW, rows)
        store.load(RICH, rows.append_column("kind", kinds).append_column("taste", tastes))
    hosted = host(tmp_path / "stored", rich)
    several: list[list[str | None]] = [["AA", "DL"], ["DL"], ["zz", "AA"], [None]]
    together = answered(hosted, *map(asked, several))
    (frame,) = {id(each): each for _, each in together}.values()
    carriers = [each for request in several for each in request]
    known = [each if each in ("AA", "DL") else None for each in carriers]  # else the declared defaults
    assert frame.feature_texts == {"rich__kind": [f"kind of {each}" if each else "plain" for each in known]}
    taste = frame.feature_matrix()[:, frame.feature_names.index("rich__taste_1")]
    assert taste.tolist() == [ord(each[0]) if each else 2.0 for each in known]


def test_a_shadow_sees_the_features_that_the_answer_saw(
    host: Host, online: Path, tmp_path: Path, first: Trained, second: Trained
) -> None:
    hosted = host(online, first.served(1), second.served(2))
    several = asked(["AA", "DL"]), asked(["UA", None])
    jobs = [hosted.predictor.job(each, "late", None, arrived_ns=0) for each in several]
    hosted.predictor.answer(jobs)
    (tmp_path / "online-0" / "data.mdb").unlink()  # it would be asked in vain
    hosted.predictor.score_shadows(jobs)
    kept, *shadows = [decode_frame(payload) for _, payload in read_spool(hosted.folder / "spool")]
    assert [each.releases[0].version for each in (kept, *shadows)] == [1, 2, 2]
    assert [each.ids for each in shadows] == [each.ids for each in jobs]
    assert b"".join(each.features for each in shadows) == kept.features
    table = prediction_table([kept, *shadows], stamps=hosted.index.stamps)
    told = table["prediction_id"].to_pylist()
    assert sorted(told) == sorted(2 * kept.ids)  # none is taken for another's


@pytest.mark.parametrize(("ago_s", "says"), [(59, {}), (90, {"carrier": 90})])
def test_features_that_are_older_than_their_view_allows_are_told(
    host: Host, tmp_path: Path, first: Trained, ago_s: float, says: dict[str, int]
) -> None:
    stood(tmp_path / "online", VIEW, known_ago_s=ago_s, max_age_s=60)
    features = host(tmp_path / "online", first.served(1), max_age_s=5).predictor
    job = features.job(asked(["AA"]), "late", None, arrived_ns=0)
    features.answer([job])
    assert job.prediction is not None
    assert job.prediction.stale == says  # what the view says goes before what the environment allows


def test_a_view_that_declares_nothing_may_be_as_old_as_the_environment_says(
    host: Host, tmp_path: Path, first: Trained
) -> None:
    stood(tmp_path / "online", VIEW, known_ago_s=30, max_age_s=None)
    for max_age_s, says in ((0, {}), (20, {"carrier": 30}), (40, {})):
        hosted = host(tmp_path / "online", first.served(1), max_age_s=max_age_s)
        ((prediction, _),) = answered(hosted, asked(["AA"]))
        assert prediction.stale == says


def test_where_a_replay_stands_tells_how_old_a_view_is(host: Host, tmp_path: Path, first: Trained) -> None:
    with LmdbOnlineStore(tmp_path / "online") as store:
        store.load(VIEW, landed(), position=to_micros(NOW))
    hosted = host(tmp_path / "online", first.served(1), max_age_s=60)
    later = to_micros(NOW + timedelta(minutes=2))
    (now, _), (then, _) = answered(hosted, asked(["AA"]), asked(["AA"], at=later))
    assert (now.stale, then.stale) == ({}, {"carrier": 120})


def test_protocols_without_room_tell_it_in_headers() -> None:
    told = Prediction(1, (), [], [], [], 0, {}, {}, {}, {"shops": 2, "café\r\n": 1}, {"visits": 90})
    assert told.headers == (
        (b"x-noria-defaulted", b"shops=2, caf%C3%A9%0D%0A=1"),
        (b"x-noria-stale", b"visits=90"),
    )
    assert msgspec.structs.replace(told, defaulted={}, stale={}).headers == ()
