"""What a server says of itself: to programs as OpenAPI, to people as a page."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.servers.browser import Visiting, chromium, visiting
from tests.serving.test_wire_oip import answer

from noria.serving.binding import RequestColumn, RequestPlan
from noria.serving.http.docs_page import docs_page
from noria.serving.http.openapi import DescribedModel, example_row, openapi_document
from noria.serving.records import SCORE, Output
from noria.serving.requests import OutputColumn, RequestError
from noria.serving.wire import kserve, mlflow, oip, plain

__all__ = ["chromium", "visiting"]  # fixtures

EVIL = '</script><script>alert("4711")</script>\'"&@script@'
LATE = DescribedModel(
    "late",
    (3, 4),
    (
        RequestColumn("distance", is_text=False),
        RequestColumn("carrier", is_text=True, datatype="BYTES"),
        RequestColumn("seats", is_text=False, datatype="INT64", optional=True),
        RequestColumn("pixels", is_text=False, width=2),
        RequestColumn("cargo", is_text=False, datatype="BOOL"),
    ),
    (SCORE,),
    example={"distance": 733.5, "carrier": "A 'x'", "seats": None},
)
KIND = DescribedModel(
    f"kind {EVIL}/é",
    (1,),
    (RequestColumn(EVIL, is_text=True, datatype="BYTES"),),
    (Output(name="label", datatype="BYTES"), Output(name="probability", width=2, labels=("no", EVIL))),
)
MODELS = [LATE, KIND]
SCORED = answer(OutputColumn("score", "FP64", [0.5]), ids=1)
KINDS = answer(
    OutputColumn("label", "BYTES", ["no"]),
    OutputColumn("probability", "FP64", [0.75, 0.25], 2, ("no", EVIL)),
    ids=1,
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(orjson.dumps(openapi_document(MODELS, title="late", default="late")))
    return found


def path_of(document: dict[str, Any], model: DescribedModel, pattern: str) -> dict[str, Any]:
    """Give the operation of a model whose path is like `pattern`."""
    found = [
        path["post"]
        for name, path in document["paths"].items()
        if re.search(pattern, name) and path.get("post", {}).get("tags") == [model.name]
    ]
    assert found
    operation: dict[str, Any] = found[0]
    return operation


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
    return bool(validator.is_valid(value))


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(ids)) == len(ids)
    OpenAPIV31SpecValidator(openapi_document([], title="nothing")).validate()


FORMS = [
    ("/predict$", lambda body, plan, name: plain.parse_request(body, plan, name=name)),
    (":predict$", lambda body, plan, name: kserve.parse_predict(body, plan, name=name)),
    ("/infer$", lambda body, plan, name: oip.parse_request(body)),
    ("/invocations$", lambda body, plan, name: mlflow.parse_invocations(body, None, plan, name=name)),
]


ASKED = [(LATE, *each) for each in FORMS] + [(KIND, *each) for each in FORMS[:-1]]


@pytest.mark.parametrize(("model", "pattern", "parse"), ASKED)
def test_every_example_fits_its_schema_and_is_read(
    document: dict[str, Any], model: DescribedModel, pattern: str, parse: Any
) -> None:
    content = path_of(document, model, pattern)["requestBody"]["content"]["application/json"]
    assert check(document, content["schema"], content["example"])
    parse(orjson.dumps(content["example"]), RequestPlan(model.columns), model.name)
    assert not check(document, content["schema"], [content["example"]])


def test_what_a_schema_refuses_is_refused(document: dict[str, Any]) -> None:
    schema = path_of(document, LATE, "/predict$")["requestBody"]["content"]["application/json"]["schema"]
    row = example_row(LATE)
    rows = [row | {"airline": 1}, row | {"distance": "1"}, row | {"pixels": [1]}, row | {"carrier": 1}]
    rows += [{key: value for key, value in row.items() if key != "carrier"}, {"rows": []}]
    for wrong in rows:
        assert not check(document, schema, wrong)
        with pytest.raises(RequestError):
            plain.parse_request(orjson.dumps(wrong), RequestPlan(LATE.columns), name="late")
    for right in (row, {"rows": [row]}, row | {"prediction_id": "p"}, row | {"distance": None, "at": 5}):
        assert check(document, schema, right)
        plain.parse_request(orjson.dumps(right), RequestPlan(LATE.columns), name="late")


@pytest.mark.parametrize(("model", "prediction"), [(LATE, SCORED), (KIND, KINDS)], ids=["late", "kind"])
def test_answers_fit_their_schemas(document: dict[str, Any], model: DescribedModel, prediction: Any) -> None:
    answers = [
        ("/predict$", plain.encode_answer(prediction, is_single=True)),
        ("/predict$", plain.encode_answer(prediction, is_single=False)),
        (":predict$", mlflow.encode_predictions(prediction)),
        ("/infer$", oip.encode_answer(prediction, model=model.name)[0]),
    ]
    if model is LATE:
        answers.append(("/invocations$", mlflow.encode_predictions(prediction)))
    for pattern, body in answers:
        schema = path_of(document, model, pattern)["responses"]["200"]["content"]["application/json"][
            "schema"
        ]
        assert check(document, schema, orjson.loads(body))
        assert not check(document, schema, {})


def test_texts_of_others_are_only_texts_on_the_page() -> None:
    page = docs_page(MODELS, title=EVIL)[0].decode()
    assert page.count("<script>") == page.count("</script>") == 1
    assert "<p>No model is served yet.</p>" in docs_page([], title="x")[0].decode()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body, headers = docs_page(MODELS, title="Models of production", address="http://127.0.0.1:8080")
        self._send(200, body, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/models/late/explain":
            self._send(200, orjson.dumps({"explained": orjson.loads(body)}), {})
            return
        is_late = self.path == "/models/late/predict"
        model, prediction = (LATE, SCORED) if is_late else (KIND, KINDS)
        try:
            plain.parse_request(body, RequestPlan(model.columns), name=model.name)
        except RequestError as err:
            self._send(err.status, orjson.dumps({"error": str(err)}), {})
        else:
            self._send(200, plain.encode_answer(prediction, is_single=True), {})

    def _send(self, status: int, body: bytes, headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_page_works_in_a_browser_and_asks_nobody_else(address: str, visiting: Visiting) -> None:
    with visiting(f"{address}/docs") as visit:
        page = visit.page
        late, kind = page.locator("form").all()
        late.get_by_role("button", name="Predict").click()
        late.locator("output pre").wait_for()
        assert orjson.loads(late.locator("output").inner_text())["score"] == 0.5
        assert visit.complaints == []
        late.get_by_role("button", name="Explain").click()
        late.locator("output pre", has_text="explained").wait_for()
        late.locator("input[name=distance]").fill("far")
        late.get_by_role("button", name="Predict").click()
        late.locator("output pre.bad").wait_for()
        assert "'distance' takes a number or null" in late.locator("output").inner_text()
        kind.get_by_role("button", name="Predict").click()
        kind.locator("output pre").wait_for()
        assert orjson.loads(kind.locator("output").inner_text())["label"] == "no"
        assert page.locator("tr", has_text="may be left out").count() == 1
    assert all(each.startswith((address, "data:")) for each in visit.requests)
    assert all("status of 400" in each for each in visit.complaints)
    for scheme, size in (("light", (1280, 900)), ("dark", (390, 800))):
        with visiting(f"{address}/docs", scheme=scheme, size=size) as visit:
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
