"""Explanations as a worker answers them: of requests and of predictions, refused, counted, limited."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import lightgbm
import numpy as np
import orjson
import pytest
from sklearn.neighbors import KNeighborsClassifier
from tests.serving.conftest import Trained, route
from tests.serving.served import CARRIERS, Asked, mixed, numeric, strings

from noria.registry.skops_archives import dump_archive
from noria.serving.http.app import App
from noria.serving.http.metrics import Metrics
from noria.serving.logs.log import decode_frame, encode_frame, redacted
from noria.serving.models import load_route
from noria.serving.process.hosting import Hosted, Hosting
from noria.serving.protocols import pages
from noria.serving.records import (
    SCORE,
    Input,
    Limits,
    LogRules,
    Output,
    Route,
    RouteEntry,
    Samples,
    ServedModel,
    WorkerStatus,
)
from noria.serving.requests import BadRequestError
from noria.serving.wire.explanations import read_top
from noria.streams.spool import Spool, drop_segments, read_spool

Answer = tuple[int, Any, dict[bytes, bytes]]
LABEL = Output(name="label", datatype="BYTES")
PLAIN = tuple(Input(name=f"x{each}", kind="number") for each in range(4))


class _Control:
    def status(self) -> WorkerStatus:
        return WorkerStatus(state="ready", pid=1, worker=0, host="", port=0)

    async def reload(self, deployment: str) -> Any:
        raise AssertionError(deployment)

    unload = wake = reload


class Server:
    """What a worker answers with, without its sockets."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self._folder, self._limits = folder, limits or Limits()
        self.hosting = Hosting()
        self.metrics = Metrics(environment="production")
        self.app = App(self.hosting, control=_Control(), metrics=self.metrics, limits=self._limits)

    def host(self, wanted: Route, log: LogRules | None = None) -> Hosted:
        hosted = Hosted(
            self._folder / wanted.deployment,
            environment="production",
            deployment=wanted.deployment,
            worker=0,
            clock="wall",
            features=None,
            limits=self._limits,
            log=log or LogRules(),
        )
        self.hosting.add(hosted)
        self.hosting.switch(wanted.deployment, load_route(wanted, folder=self._folder))
        return hosted

    def serve(self, asked: Asked, log: LogRules | None = None) -> Hosted:
        model = asked.served
        return self.host(
            Route(
                environment="production",
                deployment=asked.name,
                number=1,
                id=f"route-{asked.name}",
                entries=(RouteEntry(release=model.release),),
                models=(model,),
            ),
            log,
        )

    async def post(self, path: str, body: Any, query: str = "") -> Answer:
        sent: list[dict[str, Any]] = []
        data = body if isinstance(body, bytes) else orjson.dumps(body)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "headers": [], "query_string": query.encode(),
            "client": ("127.0.0.1", 1), "scheme": "http",
        }  # fmt: skip
        await self.app(scope, receive, send)
        return sent[0]["status"], orjson.loads(sent[1]["body"]), dict(sent[0]["headers"])

    async def close(self) -> None:
        for each in self.hosting.values():
            await each.batcher.close()
        self.hosting.close()


Talk = Callable[[Server], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Run a talk with a server."""

    def run(talk: Talk, limits: Limits | None = None) -> None:
        async def whole() -> None:
            server = Server(tmp_path, limits)
            try:
                await talk(server)
            finally:
                await server.close()

        asyncio.run(whole())

    yield run


def total(told: Any) -> float:
    return float(told["base"] + sum(each["contribution"] for each in told["contributions"]))


def row_of(asked: Asked, row: int) -> dict[str, Any]:
    """Give a row by its fields; what is missing is null."""
    values = {name: values[row] for name, (_, values) in asked.columns.items()}
    return {name: None if value != value else value for name, value in values.items()}


def test_named_fields_are_explained_by_name_and_value(run: Callable[..., None], tmp_path: Path) -> None:
    asked = mixed(tmp_path)
    booster = lightgbm.Booster(model_file=asked.served.path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        status, told, _ = await server.post("/models/mixed/explain", row_of(asked, 1))
        assert status == HTTPStatus.OK
        fixed = {name: told[name] for name in ("model", "version", "release", "method", "unit")}
        assert fixed == {
            "model": "mixed", "version": 1, "release": "mixed:1", "method": "tree_shap", "unit": "log_odds"
        }  # fmt: skip
        assert told["score"] == asked.outputs["score"][1]
        assert told["total"] == pytest.approx(total(told), abs=1e-9)
        assert 1 / (1 + np.exp(-told["total"])) == pytest.approx(told["score"], abs=1e-9)
        by_name = {each["name"]: each for each in told["contributions"]}
        assert by_name["carrier"]["value"] == "DL"
        assert (by_name["carrier"]["kind"], by_name["distance"]["kind"]) == ("category", "number")
        matrix = [[row_of(asked, 1)["distance"], CARRIERS.index("DL")]]
        (wanted,) = np.asarray(booster.predict(np.array(matrix), pred_contrib=True)).tolist()
        assert [by_name["distance"]["contribution"], by_name["carrier"]["contribution"]] == wanted[:-1]
        assert told["base"] == wanted[-1]

    run(talk)


def test_rows_of_several_and_the_most_important_inputs(run: Callable[..., None], tmp_path: Path) -> None:
    asked = numeric(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        rows = {"rows": [{**row_of(asked, row), "prediction_id": f"p{row}"} for row in range(5)]}
        _, whole, _ = await server.post("/models/numbers/explain", rows)
        _, brief, _ = await server.post("/models/numbers/versions/1/explain", rows, "top=2")
        assert [each["prediction_id"] for each in whole["rows"]] == [f"p{row}" for row in range(5)]
        assert [each["score"] for each in whole["rows"]] == asked.outputs["score"]
        for all_told, told in zip(whole["rows"], brief["rows"], strict=True):
            sizes = [abs(each["contribution"]) for each in all_told["contributions"]]
            assert sizes == sorted(sizes, reverse=True)
            assert told["contributions"] == all_told["contributions"][:2]
            assert told["others"]["inputs"] == 2
            assert total(told) + told["others"]["contribution"] == pytest.approx(told["total"], abs=1e-9)
        _, gap, _ = await server.post("/models/numbers/explain", row_of(asked, 2))
        assert {each["name"]: each["value"] for each in gap["contributions"]}["x1"] is None

    run(talk)


def test_classes_are_explained_each(run: Callable[..., None], tmp_path: Path) -> None:
    asked = strings(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        _, told, _ = await server.post("/models/strings/explain", row_of(asked, 0))
        assert (told["method"], told["unit"]) == ("linear_shap", "logits")
        assert [each["label"] for each in told["outputs"]] == ["cold", "mild", "warm"]
        scores = [each["score"] for each in told["outputs"]]
        assert scores == pytest.approx(asked.outputs["probability"][0], abs=1e-9)
        powers = np.exp([total(each) for each in told["outputs"]])
        assert (powers / powers.sum()).tolist() == pytest.approx(scores, abs=1e-9)

    run(talk)


def test_instances_are_explained_as_kserve_has_it(run: Callable[..., None], tmp_path: Path) -> None:
    asked, classes = mixed(tmp_path), strings(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        server.serve(classes)
        rows = {"instances": [row_of(asked, row) for row in range(3)]}
        status, told, _ = await server.post("/v1/models/mixed:explain", rows, "top=1")
        assert status == HTTPStatus.OK
        assert told["predictions"] == asked.outputs["score"][:3]
        assert [each["score"] for each in told["explanations"]] == told["predictions"]
        assert [len(each["contributions"]) for each in told["explanations"]] == [1, 1, 1]
        _, told, _ = await server.post("/v1/models/strings:explain", {"instances": [row_of(classes, 0)]})
        assert told["predictions"][0] == pytest.approx(classes.outputs["probability"][0])

    run(talk)


def test_answers_are_as_the_document_of_the_server_says(run: Callable[..., None], tmp_path: Path) -> None:
    asked, classes = mixed(tmp_path), strings(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        server.serve(classes)
        document = orjson.loads(pages.openapi(server.app._answering).body)
        for each in (asked, classes):
            row = row_of(each, 0)
            for path, body in (
                (f"/models/{each.name}/explain", row),
                (f"/models/{each.name}/explain", {"rows": [row, row]}),
                (f"/v1/models/{each.name}:explain", {"instances": [row]}),
            ):
                operation = document["paths"][path]["post"]
                _, told, _ = await server.post(path, body)
                for schema, value in (
                    (operation["requestBody"]["content"]["application/json"]["schema"], body),
                    (operation["responses"]["200"]["content"]["application/json"]["schema"], told),
                ):
                    jsonschema.validate(value, {**schema, "components": document["components"]})

    run(talk)


def test_a_prediction_is_explained_by_its_id(run: Callable[..., None], tmp_path: Path) -> None:
    asked, classes = mixed(tmp_path), strings(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        server.serve(classes)
        for each in (asked, classes):
            ids = [f"{each.name}-{row}" for row in range(3)]
            rows = [{**row_of(each, row), "prediction_id": ids[row]} for row in range(3)]
            status, _, _ = await server.post(f"/models/{each.name}/predict", {"rows": rows})
            assert status == HTTPStatus.OK
            for row, prediction_id in zip(rows, ids, strict=True):
                _, before, _ = await server.post(f"/models/{each.name}/explain", row)
                _, told, _ = await server.post(
                    f"/models/{each.name}/explain", {"prediction_id": prediction_id}
                )
                assert told == before

    run(talk)


def test_a_prediction_that_is_not_here_is_told_where_to_ask(run: Callable[..., None], tmp_path: Path) -> None:
    asked = numeric(tmp_path)

    async def talk(server: Server) -> None:
        hosted = server.serve(asked)
        path = "/models/numbers/explain"
        assert (await server.post(path, {"prediction_id": "never"}))[0] == HTTPStatus.NOT_FOUND
        await server.post("/models/numbers/predict", {**row_of(asked, 0), "prediction_id": "one"})
        drop_segments(hosted.folder / "spool", through=hosted.rotate())
        status, told, _ = await server.post(path, {"prediction_id": "one"})
        assert status == HTTPStatus.NOT_FOUND
        assert "`noria explain PREDICTION_ID`" in told["error"]
        assert "project.explain" in told["error"]

    run(talk)


def test_values_that_were_left_out_of_the_log_are_not_made_up(
    run: Callable[..., None], tmp_path: Path
) -> None:
    asked = numeric(tmp_path)

    async def talk(server: Server) -> None:
        hosted = server.serve(asked)
        row = {**row_of(asked, 0), "prediction_id": "one"}
        await server.post("/models/numbers/predict", row)
        ((_, payload),) = read_spool(hosted.folder / "spool")
        drop_segments(hosted.folder / "spool", through=hosted.rotate())
        with Spool(hosted.folder / "spool-1") as other:
            other.append(encode_frame(redacted(decode_frame(payload), {"x0"})))
        status, told, _ = await server.post("/models/numbers/explain", {"prediction_id": "one"})
        assert status == HTTPStatus.NOT_FOUND
        assert "redacted or forgotten" in told["error"]

    async def redacting(server: Server) -> None:
        server.serve(asked, LogRules(redact=("x3", "other")))
        await server.post("/models/numbers/predict", {**row_of(asked, 0), "prediction_id": "two"})
        status, told, _ = await server.post("/models/numbers/explain", {"prediction_id": "two"})
        assert status == HTTPStatus.NOT_FOUND
        assert "x3, which numbers:1 reads, is left out of the log" in told["error"]

    run(talk)
    run(redacting)


def test_each_row_is_explained_by_the_release_that_answers_it(
    run: Callable[..., None], tmp_path: Path, first: Trained, second: Trained
) -> None:
    models = [each.served(number, inputs=PLAIN, views=()) for number, each in enumerate((first, second), 1)]
    rows = [{f"x{place}": float(row + place) for place in range(4)} for row in range(20)]

    async def talk(server: Server) -> None:
        hosted = server.host(route(1, *models, weights=[0.5, 0.5]))
        named = {"rows": [{**row, "prediction_id": f"p{place}"} for place, row in enumerate(rows)]}
        _, answered, _ = await server.post("/models/late/predict", named)
        _, told, _ = await server.post("/models/late/explain", named)
        assert {each["version"] for each in told["rows"]} == {1, 2}
        for answer, each in zip(answered["rows"], told["rows"], strict=True):
            assert (answer["version"], answer["score"]) == (each["version"], each["score"])
        hosted.predictor.switch(load_route(route(2, models[0]), folder=tmp_path))
        gone = next(each for each in answered["rows"] if each["version"] == 2)["prediction_id"]
        status, told, _ = await server.post("/models/late/explain", {"prediction_id": gone})
        assert status == HTTPStatus.NOT_FOUND
        assert "answered by late_arrival:2, which is not loaded here" in told["error"]

    run(talk)


@pytest.mark.parametrize(
    ("body", "query", "status", "message"),
    [
        (b"{", "", 400, "not JSON"),
        ({"x0": 1}, "", 400, "field 'x1' is missing"),
        ({"x0": "secret", "x1": 1, "x2": 1, "x3": 1}, "", 400, "field 'x0' takes a number"),
        ({"x0": 1, "x1": 1, "x2": 1, "x3": 1, "y": 1}, "", 400, "there is no field 'y'"),
        ({"rows": []}, "", 400, "no rows"),
        ({"rows": [{"x0": 1, "x1": 1, "x2": 1, "x3": 1}] * 101}, "", 413, "at most 100 are explained"),
        ({"prediction_id": 7}, "", 400, "'prediction_id' is the id of one prediction"),
        ({"prediction_id": ""}, "", 400, "'prediction_id' is the id of one prediction"),
        ({"x0": 1, "x1": 1, "x2": 1, "x3": 1}, "top=0", 400, "`top` is how many"),
        ({"x0": 1, "x1": 1, "x2": 1, "x3": 1, "at": "2013-06-01T00:00:00Z"}, "", 400, "clock is 'replay'"),
    ],
)
def test_bad_input_is_refused_as_of_a_prediction(
    run: Callable[..., None], tmp_path: Path, body: Any, query: str, status: int, message: str
) -> None:
    asked = numeric(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        found, told, _ = await server.post("/models/numbers/explain", body, query)
        assert found == status
        assert message in told["error"]
        assert "secret" not in told["error"]
        assert (await server.post("/models/other/explain", {}))[0] == HTTPStatus.NOT_FOUND
        assert (await server.post("/models/numbers/versions/9/explain", {}))[0] == HTTPStatus.NOT_FOUND
        text = server.metrics.expose().decode()
        place = 'deployment="numbers",environment="production"'
        told_as = f'noria_explanation_requests_total{{{place},model="numbers",status="{status}"}} 1.0'
        assert told_as in text
        assert 'model="other"' not in text

    run(talk)


def test_a_model_that_is_no_trees_is_explained_by_sampling(run: Callable[..., None], tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(60, 2))
    late, named = (rows[:, 0] > 0).astype(int), np.where(rows[:, 0] > 0, "late", "early")

    async def talk(server: Server) -> None:
        for name, target, outputs in (("near", late, (SCORE,)), ("word", named, (LABEL,))):
            fitted = KNeighborsClassifier(5).fit(rows, target)
            path = tmp_path / f"{name}.skops"
            path.write_bytes(dump_archive(fitted)[0])
            told = {} if outputs == (SCORE,) else {"label": fitted.predict(rows[:16]).tolist()}
            score = fitted.predict_proba(rows[:16])[:, 1].copy()
            server.host(
                Route(
                    environment="production", deployment=name, number=1, id=name,
                    entries=(RouteEntry(release=f"{name}:1"),),
                    models=(
                        ServedModel(
                            release=f"{name}:1", model=name, version=1, path=str(path), format="skops",
                            digest=hashlib.sha256(path.read_bytes()).hexdigest(), outputs=outputs,
                            inputs=tuple(Input(name=f"x{each}", kind="number") for each in range(2)),
                            samples=Samples(
                                matrix=rows[:16].tobytes(),
                                scores=(np.full(16, np.nan) if told else score).tobytes(),
                                outputs=told,
                            ),
                        ),
                    ),
                )
            )  # fmt: skip
        asked = {"x0": 0.1, "x1": 3.0, "prediction_id": "one"}
        _, answered, _ = await server.post("/models/near/predict", asked)
        _, told, _ = await server.post("/models/near/explain", {"prediction_id": "one"})
        assert (told["method"], told["unit"], told["orders"]) == ("sampled_shapley", "score", 24)
        assert told["score"] == answered["score"]
        assert total(told) == pytest.approx(told["score"], abs=1e-9)
        assert all(each["standard_error"] >= 0 for each in told["contributions"])
        _, again, _ = await server.post("/models/near/explain", asked)
        assert again == told
        status, told, _ = await server.post("/models/word/explain", {"x0": 0.1, "x1": 3.0})
        assert status == HTTPStatus.UNPROCESSABLE_ENTITY
        assert "gives label (BYTES), and no number" in told["error"]

    run(talk)


def test_explanations_take_their_share_and_no_more(run: Callable[..., None], tmp_path: Path) -> None:
    asked = numeric(tmp_path)
    row = row_of(asked, 0)

    async def talk(server: Server) -> None:
        server.serve(asked)
        used = [await server.post("/models/numbers/explain", row) for _ in range(2)]
        assert [each[0] for each in used] == [200, 200]
        (explanations,) = server.app._answering.explanations.values()
        explanations._left_s = -2.0  # as after two seconds more than there were
        status, told, headers = await server.post("/models/numbers/explain", row)
        assert (status, headers[b"retry-after"]) == (503, b"20")
        assert "10% of a core" in told["error"]
        assert (await server.post("/models/numbers/predict", row))[0] == HTTPStatus.OK

    run(talk, Limits(explain_share=0.1))


def test_an_explanation_ends_in_time_and_may_be_switched_off(
    run: Callable[..., None], tmp_path: Path
) -> None:
    asked = numeric(tmp_path)

    async def expect(server: Server, status: int, message: str) -> None:
        server.serve(asked)
        found, told, _ = await server.post("/models/numbers/explain", row_of(asked, 0))
        assert found == status
        assert message in told["error"]

    run(lambda server: expect(server, 504, "longer than 1e-09 s"), Limits(explain_timeout_s=1e-9))
    run(lambda server: expect(server, 403, "switched off"), Limits(explain_share=0))


def test_nothing_is_logged_and_answers_go_on_meanwhile(run: Callable[..., None], tmp_path: Path) -> None:
    asked = numeric(tmp_path)

    async def talk(server: Server) -> None:
        hosted = server.serve(asked)
        many = {"rows": [row_of(asked, 0)] * 100}
        row = row_of(asked, 1)
        found = await asyncio.gather(
            *(server.post("/models/numbers/explain", many) for _ in range(4)),
            *(server.post("/models/numbers/predict", row) for _ in range(50)),
        )
        assert {each[0] for each in found} == {200}
        assert {each[1]["score"] for each in found[4:]} == {asked.outputs["score"][1]}
        assert sum(len(decode_frame(each).ids) for _, each in read_spool(hosted.folder / "spool")) == 50
        text = server.metrics.expose().decode()
        place = 'deployment="numbers",environment="production"'
        assert f'noria_explained_rows_total{{{place},release="numbers:1"}} 400.0' in text

    run(talk)


@pytest.mark.parametrize("given", ["", "0", "-1", "x", "1.5", "٣"])
def test_how_many_inputs_are_told_is_a_whole_number(given: str) -> None:
    assert (read_top(None), read_top("7")) == (None, 7)
    with pytest.raises(BadRequestError, match="whole number"):
        read_top(given)


def test_a_digest_that_changed_is_no_model_to_explain_by(run: Callable[..., None], tmp_path: Path) -> None:
    asked = numeric(tmp_path)

    async def talk(server: Server) -> None:
        server.serve(asked)
        path = Path(asked.served.path)
        path.write_bytes(path.read_bytes() + b"\n")
        assert hashlib.sha256(path.read_bytes()).hexdigest() != asked.served.digest
        status, told, _ = await server.post("/models/numbers/explain", row_of(asked, 0))
        assert status == HTTPStatus.INTERNAL_SERVER_ERROR
        assert "could not be explained" in told["error"]
        assert str(path) not in told["error"]

    run(talk)
