"""Retries that come when a model of other columns answers: each protocol gives what was answered before."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from tests.serving.served import Asked, mixed, numeric, supervised

from noria.deploy.supervisor import Address, Supervisor
from noria.serving.records import Route, RouteEntry

Row = dict[str, Any]
NAME = "mixed"
ROWS = [{"distance": 320.5, "carrier": "DL"}, {"distance": 1200, "carrier": "AA"}]
CSV = {"content-type": "text/csv"}


@dataclass(frozen=True)
class Answer:
    status: int
    text: str


class Client:
    """Asks a server over one connection."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=30)

    def post(
        self,
        path: str,
        *,
        json_body: object = None,
        content: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        body = content or json.dumps(json_body)
        self._connection.request("POST", path, body, dict(headers or {}))
        response = self._connection.getresponse()
        return Answer(response.status, response.read().decode())

    def close(self) -> None:
        self._connection.close()


def with_ids(ids: list[str]) -> list[Row]:
    return [{**row, "prediction_id": each} for row, each in zip(ROWS, ids, strict=True)]


def columns_of(rows: list[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def plain(client: Client, rows: list[Row]) -> Answer:
    return client.post(f"/models/{NAME}/predict", json_body={"rows": rows})


def kserve(client: Client, rows: list[Row]) -> Answer:
    return client.post(f"/v1/models/{NAME}:predict", json_body={"instances": rows})


def records(client: Client, rows: list[Row]) -> Answer:
    return client.post("/invocations", json_body={"dataframe_records": rows})


def split(client: Client, rows: list[Row]) -> Answer:
    data = [list(row.values()) for row in rows]
    return client.post(
        "/invocations", json_body={"dataframe_split": {"columns": list(rows[0]), "data": data}}
    )


def inputs(client: Client, rows: list[Row]) -> Answer:
    return client.post("/invocations", json_body={"inputs": columns_of(rows)})


def table(client: Client, rows: list[Row]) -> Answer:
    lines = [",".join(map(str, row.values())) for row in (dict(zip(rows[0], rows[0], strict=True)), *rows)]
    return client.post("/invocations", content="\n".join(lines), headers=CSV)


def oip(client: Client, rows: list[Row]) -> Answer:
    kinds = {"distance": "FP64", "carrier": "BYTES", "prediction_id": "BYTES"}
    tensors = [
        {"name": name, "datatype": kinds[name], "shape": [len(values)], "data": values}
        for name, values in columns_of(rows).items()
    ]
    return client.post(f"/v2/models/{NAME}/infer", json_body={"inputs": tensors})


WIRES = [plain, kserve, records, split, inputs, table, oip]


def scores(response: Answer) -> list[float]:
    assert response.status == 200, response.text
    found = json.loads(response.text)
    if "rows" in found:
        return [each["score"] for each in found["rows"]]
    if "outputs" in found:
        return list(found["outputs"][0]["data"])
    return list(found["predictions"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Asked, Asked]:
    folder = tmp_path_factory.mktemp("models")
    return mixed(folder), numeric(folder)


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory, models: tuple[Asked, Asked]) -> Iterator[Supervisor]:
    with supervised(models[0], folder=tmp_path_factory.mktemp("server")) as started:
        yield started


def swap(supervisor: Supervisor, model: Asked, number: int) -> None:
    served = model.served
    supervisor.swap(
        Route(
            environment="production",
            deployment=NAME,
            number=number,
            id=f"route-{number}",
            entries=(RouteEntry(release=served.release),),
            models=(served,),
        )
    )


def test_a_retry_gets_what_an_earlier_model_of_other_columns_answered(
    supervisor: Supervisor, models: tuple[Asked, Asked]
) -> None:
    before, now = models
    asked = {wire: with_ids([f"{wire.__name__}-{row}" for row in range(len(ROWS))]) for wire in WIRES}
    with closing(Client(supervisor.address)) as client:
        given = {wire: scores(wire(client, rows)) for wire, rows in asked.items()}
        assert len({tuple(each) for each in given.values()}) == 1
        try:
            swap(supervisor, now, 2)
            for wire, rows in asked.items():
                assert scores(wire(client, rows)) == given[wire], wire.__name__
                new = wire(client, with_ids([f"{wire.__name__}-0", f"{wire.__name__}-new"]))
                assert new.status == 400 and "'distance'" in new.text, new.text
                other = wire(client, [{**rows[0], "distance": 999.5}])
                assert other.status == (409 if wire is oip else 400), other.text
                unnamed = wire(client, ROWS)
                assert unnamed.status == 400 and "'distance'" in unnamed.text, unnamed.text
        finally:
            swap(supervisor, before, 3)


def test_rows_of_other_names_each_are_refused_at_once(
    supervisor: Supervisor, models: tuple[Asked, Asked]
) -> None:
    """So that a body cannot become many more cells than it has bytes."""
    rows = [{"prediction_id": f"wide-{each}", f"column {each}": each} for each in range(3000)]
    with closing(Client(supervisor.address)) as client:
        for wire in (plain, kserve, records):
            refused = wire(client, rows)
            assert refused.status == 400 and "'column 0'" in refused.text
        lists: list[Row] = [{"prediction_id": "list", "v": [0] * 20_000}]
        lists += [{"prediction_id": f"none-{each}", "v": None} for each in range(3000)]
        for wire in (plain, kserve, records):
            began = time.monotonic()
            refused = wire(client, lists)
            assert refused.status == 400 and "'v'" in refused.text
            assert time.monotonic() - began < 5.0  # 60 million cells would take longer, and end the worker
