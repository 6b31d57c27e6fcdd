"""Rows over real HTTP: every format, each key once, and what is refused."""

import asyncio
import bz2
import gzip
import http.client
import io
import json
import lzma
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from tests.workspace.up_harness import Up

import noria
from noria.api import rows as api_rows
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.errors import Conflict, DiskFull, StoreError
from noria.lake.declarations import Dataset
from noria.lake.sources.contract import Source
from noria.workspace import pushing
from noria.workspace.project import Project
from noria.workspace.pushing import push_rows
from noria.workspace.source_openings import Watched
from noria.workspace.up.records import Role, UpState

DECLARED = """
import noria
from noria import check

sales = noria.Dataset(
    "sales", key="id", event_at="sold_at", max_rejected_share=0.5, checks=[check.between("n", 0, 100)])
"""
AT = datetime(2024, 1, 1, tzinfo=UTC)
TABLE = pa.table({"id": ["a", "b"], "n": [1, 2], "sold_at": pa.array([AT, AT], pa.timestamp("us", "UTC"))})
CSV = "id,n,sold_at\na,1,2024-01-01T00:00:00Z\nb,2,2024-01-01T00:00:00Z\n"
LINES = "\n".join(json.dumps({"id": each, "n": 1, "sold_at": "2024-01-01T00:00:00Z"}) for each in "ab")


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(TABLE, out)
    return out.getvalue()


def _arrow(*, as_file: bool) -> bytes:
    out = io.BytesIO()
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(out, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return out.getvalue()


def push(
    port: int, body: bytes | str, kind: str | None = "text/csv", *, to: str = "sales", **headers: str
) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {} if kind is None else {"content-type": kind}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        data = body.encode() if isinstance(body, str) else body
        connection.request("POST", f"/datasets/{to}/rows", data, named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["rows_declared"]\n')
    (tmp_path / "rows_declared.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def port(project: Project) -> Iterator[int]:
    with ControlPlane("127.0.0.1", 0) as plane:
        plane.start(
            application(project, lambda: UpState(role=Role.LEADER, since=AT, leader="me"), host="127.0.0.1")
        )
        yield int(plane.url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/csv", CSV.encode()),
        ("text/csv; charset=utf-16", CSV.encode("utf-16")),
        ("text/csv", gzip.compress(CSV.encode(), mtime=0)),
        ("text/tab-separated-values", CSV.replace(",", "\t").encode()),
        ("application/x-ndjson", LINES.encode()),
        ("application/json", f"[{LINES.replace(chr(10), ',')}]".encode()),
        ("application/vnd.apache.parquet", _parquet()),
        ("application/vnd.apache.arrow.stream", _arrow(as_file=False)),
        ("application/vnd.apache.arrow.file", _arrow(as_file=True)),
    ],
)
def test_rows_of_every_format_land(project: Project, port: int, kind: str, body: bytes) -> None:
    status, answer = push(port, body, kind)
    assert (status, answer) == (
        200,
        {
            "dataset": "sales",
            "state": "landed",
            "accepted": 2,
            "rejected": 0,
            "repeated": 0,
            "replaced": 0,
            "version": "sales:1",
        },
    )
    assert sorted(project.lake.read("sales")["id"].to_pylist()) == ["a", "b"]
    assert push(port, body, kind)[1] | {"version": None} == answer | {"state": "already", "version": None}
    assert list((project.state / "incoming").iterdir()) == []


def test_a_key_lands_once_and_stands_for_its_rows(project: Project, port: int) -> None:
    assert push(port, CSV, idempotency_key="k1")[1]["state"] == "landed"
    assert push(port, CSV, idempotency_key="k1")[1]["state"] == "already"
    status, answer = push(port, CSV + "c,3,2024-01-01T00:00:00Z\n", idempotency_key="k1")
    assert (status, answer["error"]["kind"]) == (409, "Conflict")
    assert "give new rows a key of their own" in answer["error"]["message"]
    status, answer = push(port, CSV + "c,3,2024-01-01T00:00:00Z\n", idempotency_key="k2")
    assert (status, answer["accepted"], answer["repeated"]) == (200, 1, 2)
    assert push(port, CSV, idempotency_key="x" * 300)[0] == 422


def test_of_two_contents_that_come_at_once_under_one_key_one_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text(CSV)
    second.write_text(CSV.replace("a,1", "z,1"))

    class Overtaken(Watched):
        def __init__(self, source: Source, dataset: Dataset) -> None:
            monkeypatch.setattr(pushing, "Watched", Watched)
            assert push_rows(project, "sales", first, format="csv", key="k1").state == "landed"
            super().__init__(source, dataset)

    monkeypatch.setattr(pushing, "Watched", Overtaken)
    with pytest.raises(Conflict, match="give new rows a key of their own"):
        push_rows(project, "sales", second, format="csv", key="k1")
    assert sorted(project.lake.read("sales")["id"].to_pylist()) == ["a", "b"]


def test_rows_that_break_the_contract_are_set_aside_or_block(project: Project, port: int) -> None:
    status, answer = push(port, CSV + "c,999,2024-01-01T00:00:00Z\nd,many,2024-01-01T00:00:00Z\n")
    assert (status, answer["accepted"], answer["rejected"]) == (200, 2, 2)
    status, answer = push(port, "id,n,sold_at\ne,999,2024-01-01T00:00:00Z\n")
    assert (status, answer["error"]["kind"]) == (422, "BatchBlocked")
    assert project.lake.read("sales").num_rows == 2


REFUSED: list[tuple[str, bytes]] = [
    ("text/csv", b"id,m\na,1\n"),
    ("text/csv", b"id,n,n,sold_at\na,1,1,2024-01-01T00:00:00Z\n"),
    ("text/csv", b"id,,sold_at\na,1,2024-01-01T00:00:00Z\n"),
    ("text/csv", b'"id,n\n'),
    ("text/csv", b"id;n|x\na;1|2\n"),
    ("text/csv", b"id,n,sold_at\na,1,2024-01-01T00:00:00\n"),
    ("text/csv", b"\xff\xfe\x00"),
    ("text/csv", b"\xe9,n\na,1\n"),
    ("text/csv; charset=utf-16", b"\xff\xfe\xff"),
    ("text/csv", gzip.compress(CSV.encode(), mtime=0)[:-9]),
    ("text/csv", gzip.compress(CSV.encode(), mtime=0)[:12] + b"x" * 30),
    ("text/csv", b"PK\x03\x04 no archive"),
    ("text/csv", b"BZh9 no archive"),
    ("text/csv", b"\xfd7zXZ\x00 no archive"),
    ("text/csv", b"\x28\xb5\x2f\xfd no archive"),
    ("application/x-ndjson", b'{"id": "a", "more": 1}\n'),
    ("application/json", b"[1, 2"),
    ("application/vnd.apache.parquet", b"PAR1 no such thing"),
    ("application/vnd.apache.parquet", b""),
    ("application/vnd.apache.parquet", _parquet()[:-1]),
    ("application/vnd.apache.arrow.stream", b"ARROW1 no such thing"),
    ("application/vnd.apache.arrow.stream", _arrow(as_file=False)[:-60]),
    ("application/vnd.apache.arrow.file", _arrow(as_file=True)[:-60]),
    ("text/csv", b"id,n,sold_at\n" + b"e,999,2024-01-01T00:00:00Z\n" * 3),
    ("text/csv", b"id,n,sold_at\n\ne,many,2024-01-01T00:00:00Z\nf,1\n"),
]


@pytest.mark.parametrize("landed", [False, True])
def test_an_answer_tells_nothing_of_where_the_body_lies(project: Project, port: int, landed: bool) -> None:
    if landed:
        assert push(port, CSV)[0] == 200
    for kind, body in REFUSED:
        status, answer = push(port, body, kind)
        told = json.dumps(answer)
        assert status == 422 or answer["state"] in {"empty", "landed"}, (kind, body, answer)
        assert str(project.root) not in told
        assert "/body" not in told
        assert "incoming" not in told
        assert "push-" not in told


def test_what_blocks_is_named_by_its_line(project: Project, port: int) -> None:
    assert push(port, CSV)[0] == 200
    status, answer = push(
        port, "id,n,sold_at\n\nc,1,2024-01-01T00:00:00Z\n" + "d,999,2024-01-01T00:00:00Z\n" * 2
    )
    assert (status, answer["error"]["message"].partition(",")[0]) == (422, "the body")
    assert answer["error"]["message"].endswith("Repair the rows and ingest them again")
    assert answer["error"]["notes"] == [
        'For example: between(n, 0, 100) fails for {"n":999}, line 4 of the body'
    ]
    status, answer = push(port, "id,n,sold_at\nd,many,2024-01-01T00:00:00Z\n")
    assert ", line 2 of the body" in answer["error"]["notes"][0]
    assert "the body lacks column 'n'" in push(port, "id,sold_at\na,1\n")[1]["error"]["message"]


def _bomb_of_parquet(values: list[str], places: list[int]) -> bytes:
    out = io.BytesIO()
    listed = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), values)
    many = len(places)
    columns = {"id": listed, "n": pa.repeat(1, many), "sold_at": pa.repeat(TABLE["sold_at"][0], many)}
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/csv", gzip.compress(b"id,n,sold_at\n" + b"\n" * 40_000_000, mtime=0)),
        ("text/csv", gzip.compress(b"id,n,sold_at\n" + b"k,1,2024-01-01T00:00:00Z\n" * 500_000, mtime=0)),
        ("application/x-ndjson", bz2.compress(b" " * 20_000_000)),
        ("application/json", lzma.compress(b"[" + b" " * 20_000_000)),
        ("application/vnd.apache.parquet", _bomb_of_parquet(["x" * 5_000_000], [0] * 10)),
        (
            "application/vnd.apache.parquet",
            _bomb_of_parquet([str(each) * 9 for each in range(99)], [0] * 999_999),
        ),
    ],
    ids=["blank lines", "lines", "bzip2", "xz", "one long text many times", "one text many times"],
)
def test_what_is_unpacked_is_bounded(
    project: Project, port: int, monkeypatch: pytest.MonkeyPatch, kind: str, body: bytes
) -> None:
    assert len(body) < 100_000
    monkeypatch.setattr(pushing, "MAX_UNPACKED_BYTES", 8 << 20)
    status, answer = push(port, body, kind)
    assert (status, answer["error"]["kind"]) == (413, "TooLarge")
    assert answer["error"]["message"] == (
        "the body is more than 8 MiB once it is unpacked, so nothing of it was taken; send fewer rows at once"
    )
    assert not project.lake.exists("sales")
    assert push(port, gzip.compress(CSV.encode(), mtime=0))[1]["state"] == "landed"


def test_what_is_refused_is_told(project: Project, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, kind, asked in [
        (404, "NotFound", push(port, CSV, to="sale")),
        (415, "BadRequest", push(port, CSV, "text/plain")),
        (415, "BadRequest", push(port, CSV, None)),
        (422, "SourceError", push(port, b"PAR1 no such thing", "application/vnd.apache.parquet")),
        (422, "SourceError", push(port, "id,m\na,1\n")),
        (422, "ConfigError", push(port, CSV, "text/csv; charset=klingon")),
    ]:
        assert (asked[0], asked[1]["error"]["kind"]) == (status, kind)
    assert "did you mean 'sales'" in push(port, CSV, to="sale")[1]["error"]["message"]
    assert push(port, "")[1]["state"] == "empty"
    monkeypatch.setattr(api_rows, "MAX_BODY_BYTES", 10)
    status, answer = push(port, CSV)
    assert (status, "send fewer rows at once" in answer["error"]["message"]) == (413, True)
    monkeypatch.setattr(api_rows, "MAX_AT_ONCE", 0)
    assert push(port, "a")[0] == 503
    assert not project.lake.exists("sales")
    assert list((project.state / "incoming").iterdir()) == []


def test_a_body_without_a_length_is_bounded_too(
    project: Project, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_rows, "MAX_BODY_BYTES", 1_000)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        chunks = iter([b"x" * 600, b"x" * 600])
        headers = {"content-type": "text/csv", "transfer-encoding": "chunked"}
        connection.request("POST", "/datasets/sales/rows", chunks, headers, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_a_sender_that_goes_away_leaves_nothing(project: Project, port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.putrequest("POST", "/datasets/sales/rows")
        for name, value in (("content-type", "text/csv"), ("content-length", str(len(CSV)))):
            connection.putheader(name, value)
        connection.endheaders(CSV[:40].encode())
    assert push(port, "id,n,sold_at\nz,1,2024-01-01T00:00:00Z\n")[1]["accepted"] == 1
    assert project.lake.read("sales")["id"].to_pylist() == ["z"]


def test_many_senders_at_once_land_each_row_once(project: Project, port: int) -> None:
    answers: list[tuple[int, Any]] = []

    def send(number: int) -> None:
        rows = "".join(f"{number % 4}-{each},1,2024-01-01T00:00:00Z\n" for each in range(50))
        answers.append(push(port, f"id,n,sold_at\n{rows}", idempotency_key=f"k{number % 4}"))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    assert [status for status, _ in answers] == [200] * 8
    assert sorted(answer["state"] for _, answer in answers) == ["already"] * 4 + ["landed"] * 4
    assert project.lake.read("sales").num_rows == 200


def test_only_a_full_disk_is_called_full(tmp_path: Path) -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": False}

    for path, kind in ((tmp_path / "gone" / "body", StoreError), (Path("/dev/full"), DiskFull)):
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        with pytest.raises(StoreError) as caught:
            asyncio.run(api_rows._spool(request, path))
        assert type(caught.value) is kind


def test_noria_up_takes_rows(project: Project, tmp_path: Path) -> None:
    up = Up(
        [sys.executable, "-m", "noria", "up", "--json", "--port", "0", "--project", str(tmp_path)],
        cwd=tmp_path,
    )
    try:
        port = int(up.url.rpartition(":")[2])
        assert push(port, CSV, idempotency_key="k1")[1]["state"] == "landed"
        assert push(port, CSV, idempotency_key="k1")[1]["state"] == "already"
    finally:
        assert up.stop() == 0
    assert project.lake.read("sales").num_rows == 2
