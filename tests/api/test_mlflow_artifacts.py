"""Files over MLflow's protocol and real HTTP: sent, ranged, listed, refused, and none half there."""

import http.client
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from noria.api.mlflow import receiving
from noria.api.mlflow.application import MlflowApplication
from noria.api.mlflow.artifacts import ArtifactRoutes
from noria.api.server import ControlPlane
from noria.database.store import Database
from noria.errors import NotFound
from noria.storage.local import LocalStorage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.multipart import PartedUploads

BELOW = "/api/2.0/mlflow-artifacts/artifacts"
ROOT = "0/r1/artifacts"
DATA = random.Random(7).randbytes(2_560)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def fault(self) -> tuple[int, str]:
        return self.status, self.json()["error_code"]


@dataclass
class Client:
    """Speaks to one server."""

    port: int
    store: ArtifactStore
    folder: Path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            found = connection.getresponse()
            return Answer(found.status, found.headers, found.read())

    def put(self, path: str, body: Any = DATA) -> Answer:
        return self.ask("PUT", f"{BELOW}/{quote(path)}", body)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", f"{BELOW}/{quote(path)}", **headers)

    def listed(self, path: str) -> Any:
        return self.ask("GET", f"{BELOW}?path={quote(path)}").json()

    def left(self) -> list[Path]:
        """Give the files that are on their way."""
        return [each for each in self.folder.rglob("*") if each.is_file() and "sha256" not in each.parts]


def root_of(run: str) -> str:
    if run != "r1":
        raise NotFound("run", run)
    return ROOT


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(scope["path"])


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    yield from served(tmp_path, tmp_path / "files")


def served(tmp_path: Path, folder: Path) -> Iterator[Client]:
    with Database.open(f"sqlite:///{tmp_path}/noria.db") as database, ControlPlane("127.0.0.1", 0) as plane:
        store = ArtifactStore(database, LocalStorage(folder / "storage"), folder / "staging")
        routes = ArtifactRoutes(store, root_of, root_of, PartedUploads(store, folder / "staging" / "parts"))
        plane.start(MlflowApplication([], routes.endpoints(), otherwise=nothing))
        yield Client(int(plane.url.rpartition(":")[2]), store, folder)


def until(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def test_a_file_comes_back_as_an_attachment(client: Client) -> None:
    put = client.put(f"{ROOT}/model/w.txt")
    assert (put.status, put.json()) == (200, {})
    found = client.get(f"{ROOT}/model/w.txt")
    assert (found.status, found.body) == (200, DATA)
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    assert found.headers["content-length"] == str(len(DATA))
    assert found.headers["content-disposition"] == 'attachment; filename="w.txt"'
    assert found.headers["x-content-type-options"] == "nosniff"
    assert client.put(f"{ROOT}/model/w.txt", b"").status == 200
    assert client.get(f"{ROOT}/model/w.txt").body == b""
    assert client.left() == []


@pytest.mark.parametrize(
    "name", ["größe 模型.bin", 'a"b.bin', "a\r\nx: y.bin", "100%.bin", "a;b#c?d&e.bin", "x\t🙂"]
)
def test_odd_names_come_back_and_stay_in_their_header(client: Client, name: str) -> None:
    assert client.put(f"0/{name}").status == 200
    found = client.get(f"0/{name}")
    assert found.body == DATA
    assert found.headers["content-disposition"] == f"attachment; filename*=utf-8''{quote(name)}"
    assert found.headers["x"] is None
    assert client.listed("0") == {"files": [{"path": name, "is_dir": False, "file_size": len(DATA)}]}


@pytest.mark.parametrize(
    ("asked", "status", "wanted"),
    [
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=10-", 206, DATA[10:]),
        ("bytes=-10", 206, DATA[-10:]),
        ("bytes=2559-2559", 206, DATA[-1:]),
        ("bytes=2000-9999", 206, DATA[2000:]),
        ("bytes=-9999", 206, DATA),
        ("bytes=2560-", 416, b""),
        ("bytes=9999-10000", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=5-4", 200, DATA),
        ("bytes=-", 200, DATA),
        ("bytes=x-y", 200, DATA),
        ("bytes=0-1,5-6", 200, DATA),
        ("rows=0-1", 200, DATA),
        ("bytes=" + "9" * 5_000 + "-", 200, DATA),
        ("bytes=٣-٤".encode().decode("latin-1"), 200, DATA),
    ],
)
def test_one_range_is_served_and_what_is_none_is_all(
    client: Client, asked: str, status: int, wanted: bytes
) -> None:
    client.put("0/x")
    found = client.get("0/x", range=asked)
    assert (found.status, found.body) == (status, wanted)
    if status == 206:
        first = DATA.rindex(wanted)
        assert found.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(DATA)}"
    if status == 416:
        assert found.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_range_of_a_file_that_was_put_again_is_all_of_it(client: Client) -> None:
    client.put("0/x")
    tag = client.get("0/x").headers["etag"]
    assert client.get("0/x", range="bytes=0-1", **{"if-range": tag}).body == DATA[:2]
    client.put("0/x", b"other")
    again = client.get("0/x", range="bytes=0-1", **{"if-range": tag})
    assert (again.status, again.body) == (200, b"other")


def test_the_head_of_a_file_tells_its_size(client: Client) -> None:
    client.put("0/x.json")
    found = client.ask("HEAD", f"{BELOW}/0/x.json")
    assert (found.status, found.body, found.headers["content-length"]) == (200, b"", str(len(DATA)))
    assert found.headers["content-type"] == "application/json"
    assert client.ask("HEAD", f"{BELOW}/0/y").status == 404


@pytest.mark.parametrize(
    "path",
    ["", "..", "../x", "0/../x", "0/%2e%2e/x", "0/%252e%252e/x", "%2fetc/passwd", "/etc/passwd", "0//x",
     "0/x/", "0/a%5cb", "0/a\\b", "0/a%00b", "C:/x", "c%3a%5cx", "0/%ff", "0/%ed%a0%80", "0/%255c",
     "0/" + "x" * 2_000],
)  # fmt: skip
def test_paths_that_lead_astray_are_invalid(client: Client, path: str) -> None:
    for method in ("PUT", "GET", "DELETE")[: 2 if path.endswith("x/") else 3]:
        found = client.ask(method, f"{BELOW}/{path}", DATA if method == "PUT" else None)
        assert found.fault() == (400, "INVALID_PARAMETER_VALUE"), method
        assert found.json()["message"].startswith("Invalid path")
    if "%ff" not in path and "%ed" not in path and path not in {"", "0/x/"}:
        assert client.ask("GET", f"{BELOW}?path={path}").fault() == (400, "INVALID_PARAMETER_VALUE")
    assert client.listed("") == {}
    assert client.left() == []


def test_what_is_not_there_and_what_is_a_folder(client: Client) -> None:
    client.put("0/m/x")
    assert client.get("0/none").fault() == (404, "RESOURCE_DOES_NOT_EXIST")
    for found in (client.get("0/m"), client.put("0/m"), client.put("0/m/x/y")):
        assert found.fault() == (400, "INVALID_PARAMETER_VALUE")
    assert client.listed("0/none") == client.listed("0/m/x") == {}


def test_folders_are_listed_and_deleted(client: Client) -> None:
    for name in ("a", "b/c", "b/d/e"):
        client.put(f"0/{name}")
    client.put("0/empty", b"")
    size = len(DATA)
    assert client.listed("0") == {
        "files": [
            {"path": "a", "is_dir": False, "file_size": size},
            {"path": "b", "is_dir": True},
            {"path": "empty", "is_dir": False},
        ]
    }
    assert client.listed("0/b/") == {
        "files": [{"path": "c", "is_dir": False, "file_size": size}, {"path": "d", "is_dir": True}]
    }
    assert client.ask("GET", BELOW).json() == client.listed(".") == {"files": [{"path": "0", "is_dir": True}]}
    for path in ("0/b/", "0/b", "0/empty"):
        gone = client.ask("DELETE", f"{BELOW}/{path}", b"{}", **{"content-type": "application/json"})
        assert (gone.status, gone.json()) == (200, {})
    assert [each["path"] for each in client.listed("0")["files"]] == ["a"]


def test_files_of_a_run_are_named_from_its_root(client: Client) -> None:
    client.put(f"{ROOT}/m/x.txt")
    listing = "/api/2.0/mlflow/artifacts/list"
    root = {"root_uri": f"mlflow-artifacts:/{ROOT}"}
    assert client.ask("GET", f"{listing}?run_id=r1").json() == {
        **root,
        "files": [{"path": "m", "is_dir": True}],
    }
    below = {**root, "files": [{"path": "m/x.txt", "is_dir": False, "file_size": len(DATA)}]}
    for query in ("run_id=r1&path=m", "run_uuid=r1&path=m/"):
        assert client.ask("GET", f"{listing}?{query}").json() == below
    assert client.ask("GET", listing, json.dumps({"run_id": "r1", "path": "m"})).json() == below
    assert client.ask("GET", f"{listing}?run_id=r1&path=none").json() == root
    assert client.ask("GET", "/ajax-api/2.0/mlflow/artifacts/list?run_id=r1&path=.").json()["files"]
    assert client.ask("GET", "/get-artifact?run_id=r1&path=m/x.txt").body == DATA
    got = client.ask("GET", "/get-artifact?run_uuid=r1&path=m/x.txt", range="bytes=0-1")
    assert (got.status, got.body, got.headers["x-content-type-options"]) == (206, DATA[:2], "nosniff")


def test_questions_about_runs_that_cannot_be_answered(client: Client) -> None:
    listing, getting = "/api/2.0/mlflow/artifacts/list", "/get-artifact"
    for path in (listing, f"{listing}?path=x", f"{getting}?path=x", f"{getting}?run_id=r1"):
        found = client.ask("GET", path)
        assert found.fault() == (400, "INVALID_PARAMETER_VALUE")
        assert found.json()["message"].startswith("Missing value for required parameter")
    for path in (f"{listing}?run_id=r2", f"{getting}?run_id=r2&path=x", f"{getting}?run_id=r1&path=none"):
        assert client.ask("GET", path).fault() == (404, "RESOURCE_DOES_NOT_EXIST")
    for path in ("..", "../../r2/artifacts/x", "/etc", "%252e%252e/x"):
        for asked in (f"{listing}?run_id=r1&path={path}", f"{getting}?run_id=r1&path={path}"):
            assert client.ask("GET", asked).json()["message"].startswith("Invalid path")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_dies_in_an_upload_leaves_nothing(client: Client, is_chunked: bool) -> None:
    length = b"transfer-encoding: chunked" if is_chunked else b"content-length: 9000000"
    piece = b"x" * 3_000_000
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(b"PUT %s/0/x HTTP/1.1\r\nhost: a\r\n%s\r\n\r\n" % (BELOW.encode(), length))
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
        assert until(lambda: any(each.stat().st_size for each in client.left()))
    assert until(lambda: client.left() == [])
    assert client.store.find("0/x") is None
    assert client.put("0/x").status == 200


def test_an_upload_that_falls_silent_gives_its_place_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "_LOOK_EVERY_S", 0.2)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(b"PUT %s/0/x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx" % BELOW.encode())
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400 ")
    assert (client.left(), client.store.find("0/x")) == ([], None)


def test_many_at_once_all_arrive(client: Client) -> None:
    bodies = {f"0/m/{number}": bytes([number]) * 200_000 for number in range(64)}
    with ThreadPoolExecutor(64) as pool:
        assert {each.status for each in pool.map(client.put, bodies, bodies.values())} == {200}
        assert [each.body for each in pool.map(client.get, bodies)] == list(bodies.values())
    assert len(client.listed("0/m")["files"]) == 64


def test_one_path_put_by_many_at_once_is_one_of_theirs(client: Client) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert {each.status for each in pool.map(lambda body: client.put("0/x", body), bodies)} == {200}
    assert client.get("0/x").body in bodies


def test_bytes_that_were_changed_are_this_side_s_fault(client: Client) -> None:
    client.put("0/x")
    path = client.store.open("0/x")
    path.chmod(0o644)
    path.write_bytes(b"other")
    assert client.get("0/x").fault() == (500, "INTERNAL_ERROR")
    path.unlink()
    assert client.get("0/x").fault() == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_full_disk_is_a_503_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here; a full one is tested where it can")
    try:
        for client in served(tmp_path, folder):
            found = client.put("0/x", b"x" * 9_000_000)
            assert found.fault() == (503, "TEMPORARILY_UNAVAILABLE")
            assert "no space left" in found.json()["message"]
            assert client.put("0/x", b"y" * 2_000_000).fault()[0] == 503  # it is there twice for a moment
            assert (client.left(), client.store.find("0/x")) == ([], None)
            assert client.put("0/x", b"z" * 900_000).status == 200
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


hostile = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "%2e", "%25", "%2f", "\0", "C:", "a", "\n", "é"]), max_size=7
)


def test_any_path_comes_back_or_is_refused(client: Client) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(path=st.one_of(st.text(max_size=30), hostile.map("".join)), data=st.binary(max_size=40))
    def holds(path: str, data: bytes) -> None:
        put = client.put(path, data)
        if put.status == 200:
            assert client.get(path).body == data
            assert client.ask("DELETE", f"{BELOW}/{quote(path)}").status == 200
        else:
            assert put.fault() == (400, "INVALID_PARAMETER_VALUE")
            assert put.json()["message"].startswith("Invalid path")
        assert client.listed("") == {}

    holds()
    assert client.left() == []


SERVER = """
import sys
from pathlib import Path
from noria.api.mlflow.application import MlflowApplication
from noria.api.mlflow.artifacts import ArtifactRoutes
from noria.api.server import ControlPlane
from noria.database.store import Database
from noria.storage.local import LocalStorage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.multipart import PartedUploads
root = Path(sys.argv[1])
with Database.open(f"sqlite:///{root}/noria.db") as database, ControlPlane("127.0.0.1", 0) as plane:
    store = ArtifactStore(database, LocalStorage(root / "storage"), root / "staging")
    routes = ArtifactRoutes(store, str, str, PartedUploads(store, root / "parts"))
    plane.start(MlflowApplication([], routes.endpoints(), otherwise=None))
    print(plane.url.rpartition(":")[2], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("megabytes", [300, pytest.param(2_048, marks=pytest.mark.soak)])
def test_a_file_that_is_larger_than_memory_goes_through(tmp_path: Path, megabytes: int) -> None:
    piece = b"0123456789abcdef" * 65_536
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        port = int(server.stdout.readline())
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
            pieces = (piece for _ in range(megabytes))
            connection.request("PUT", f"{BELOW}/0/x", pieces, {"content-length": str(megabytes << 20)})
            assert connection.getresponse().read() == b"{}"
            connection.request("GET", f"{BELOW}/0/x")
            answer = connection.getresponse()
            assert all(answer.read(1 << 20) == piece for _ in range(megabytes))
            assert answer.read() == b""
        peak_kb = next(
            int(line.split()[1])
            for line in Path(f"/proc/{server.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        server.stdin.close()
    assert server.returncode == 0
    assert peak_kb < 200_000
