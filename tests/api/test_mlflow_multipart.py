"""Files in parts, and addresses that prove themselves: raw, and by a real client with small parts."""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.api.test_control_plane import SINCE
from tests.api.test_mlflow_artifacts import Answer, Client, served, until
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture

import noria
from noria.api.application import application
from noria.api.mlflow.signing import NOBODY, PARTS
from noria.api.server import ControlPlane
from noria.workspace.up.records import Role, UpState

MPU = "/api/2.0/mlflow-artifacts/mpu"
JSON = {"content-type": "application/json"}
PROGRAM = """
import hashlib, os, pathlib, random, sys
import mlflow

data = random.Random(3).randbytes(3_000_001)
pathlib.Path("large.bin").write_bytes(data)
pathlib.Path("small.txt").write_text("small")
with mlflow.start_run() as run:
    mlflow.log_artifact("large.bin", "below here")
    mlflow.log_artifact("small.txt")
client = mlflow.MlflowClient()
found = client.download_artifacts(run.info.run_id, "below here/large.bin", ".")
assert pathlib.Path(found).read_bytes() == data
listed = client.list_artifacts(run.info.run_id, "below here")
assert [(each.path, each.file_size) for each in listed] == [("below here/large.bin", len(data))]
print(run.info.run_id)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("parted")
    yield from served(folder, folder / "files")


def post(client: Client, what: str, folder: str, **fields: Any) -> Answer:
    return client.ask("POST", f"{MPU}/{what}/{folder}", json.dumps(fields).encode(), **JSON)


def begun(client: Client, folder: str, name: str, parts: int) -> tuple[str, list[str]]:
    made = post(client, "create", folder, path=f"/home/me/{name}", num_parts=parts)
    assert made.status == 200, made.body
    told = made.json()
    assert [each["part_number"] for each in told["credentials"]] == list(range(1, parts + 1))
    assert made.headers["cache-control"] == "no-store"
    return told["upload_id"], [urlsplit(each["url"]).path for each in told["credentials"]]


def sent(client: Client, address: str, data: bytes) -> str:
    found = client.ask("PUT", address, data)
    assert found.status == 200, found.body
    return str(found.headers["etag"])


def named(tags: list[str]) -> list[dict[str, Any]]:
    return [{"part_number": number, "etag": tag, "url": "x"} for number, tag in enumerate(tags, start=1)]


def test_parts_make_a_file_in_whatever_order_they_come(client: Client) -> None:
    pieces = [random.Random(number).randbytes(70_000 + number) for number in range(8)]
    id, addresses = begun(client, "0/a/artifacts/deep", "w.bin", 8)
    order = list(range(8))
    random.Random(1).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        tags = dict(zip(order, pool.map(lambda n: sent(client, addresses[n], pieces[n]), order), strict=True))
    assert client.get("0/a/artifacts/deep/w.bin").status == 404
    asked = {"path": "w.bin", "upload_id": id, "parts": named([tags[number] for number in range(8)])}
    assert post(client, "complete", "0/a/artifacts/deep", **asked).status == 200
    assert client.get("0/a/artifacts/deep/w.bin").body == b"".join(pieces)
    assert post(client, "complete", "0/a/artifacts/deep", **asked).json() == {}  # a client that asks again
    found = client.store.get("0/a/artifacts/deep/w.bin")
    assert found.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_the_last_part_of_a_number_counts(client: Client) -> None:
    id, (address,) = begun(client, "0/b", "x", 1)
    first, second = sent(client, address, b"first"), sent(client, address, b"second")
    refused = post(client, "complete", "0/b", path="x", upload_id=id, parts=named([first]))
    assert refused.fault() == (400, "INVALID_PARAMETER_VALUE")
    assert "part 1 has not come, or came again" in refused.json()["message"]
    assert post(client, "complete", "0/b", path="x", upload_id=id, parts=named([second])).status == 200
    assert client.get("0/b/x").body == b"second"


def test_an_upload_goes_on_with_another_server(client: Client, tmp_path: Path) -> None:
    id, addresses = begun(client, "0/c", "x", 2)
    tags = [sent(client, addresses[0], b"one ")]
    for other in served(tmp_path, client.folder):  # as after a restart
        tags.append(sent(other, addresses[1], b"two"))
        asked = {"path": "x", "upload_id": id, "parts": named(tags)}
        assert post(other, "complete", "0/c", **asked).status == 200
        assert other.get("0/c/x").body == b"one two"


def test_what_is_aborted_is_gone(client: Client) -> None:
    id, (address,) = begun(client, "0/d", "x", 1)
    tag = sent(client, address, b"data")
    assert post(client, "abort", "0/elsewhere", path="x", upload_id=id).status == 400
    assert post(client, "abort", "0/d", path="x", upload_id=id).json() == {}
    assert post(client, "abort", "0/d", path="x", upload_id=id).json() == {}
    assert client.ask("PUT", address, b"data").fault() == (404, "RESOURCE_DOES_NOT_EXIST")
    asked = {"path": "x", "upload_id": id, "parts": named([tag])}
    assert post(client, "complete", "0/d", **asked).fault() == (404, "RESOURCE_DOES_NOT_EXIST")
    assert not list(client.folder.rglob(id))


def test_what_nobody_goes_on_with_is_swept(client: Client, tmp_path: Path) -> None:
    old, _ = begun(client, "0/e", "x", 1)
    new, _ = begun(client, "0/e", "y", 1)
    for upload, age_s in ((old, 90_000), (new, 80_000)):
        (folder,) = client.folder.rglob(upload)
        os.utime(folder, (time.time() - age_s,) * 2)
    for other in served(tmp_path, client.folder):
        begun(other, "0/e", "z", 1)
    assert not list(client.folder.rglob(old))
    assert list(client.folder.rglob(new))


@pytest.mark.parametrize(
    ("what", "folder", "fields", "code"),
    [
        ("create", "0/../x", {"path": "a"}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/%2e%2e", {"path": "a"}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/f", {"path": ".."}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/f", {"path": "a/"}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/f", {}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/f", {"path": "a", "num_parts": 0}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/f", {"path": "a", "num_parts": 10_001}, "INVALID_PARAMETER_VALUE"),
        ("create", "0/f", {"path": "a", "num_parts": 1 << 80}, "INVALID_PARAMETER_VALUE"),
        ("complete", "0/f", {"path": "a", "upload_id": "../../x", "parts": []}, "RESOURCE_DOES_NOT_EXIST"),
        ("complete", "0/f", {"path": "a", "upload_id": "0" * 32, "parts": []}, "RESOURCE_DOES_NOT_EXIST"),
        ("abort", "0/f", {"path": "a"}, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_what_can_be_no_upload_is_refused(
    client: Client, what: str, folder: str, fields: dict[str, Any], code: str
) -> None:
    found = post(client, what, folder, **fields)
    assert found.fault() == (404 if code.endswith("EXIST") else 400, code)


def test_parts_that_are_not_all_are_refused(client: Client) -> None:
    id, addresses = begun(client, "0/g", "x", 2)
    tags = [sent(client, each, b"1") for each in addresses]
    whole = named(tags)
    for parts in ([], whole[:1], whole[::-1], [*whole, whole[0]], [whole[0], {"part_number": 2}],
                  [whole[0], {"part_number": 2, "etag": "../x"}]):  # fmt: skip
        found = post(client, "complete", "0/g", path="x", upload_id=id, parts=parts)
        assert found.fault() == (400, "INVALID_PARAMETER_VALUE"), parts
    for number in ("0", "3", "x", "-1", "1/2", "", "9" * 40):
        assert client.ask("PUT", f"{PARTS}{NOBODY}/{id}/{number}", b"1").status in {400, 404}
    assert client.ask("PUT", f"{PARTS}ada/{id}/1", b"1").status == 404
    assert (
        client.ask("POST", f"{MPU}/create/0/g", b'{"path": "x"}', **{"content-type": "text/plain"}).status
        == 400
    )
    assert client.store.find("0/g/x") is None


def test_a_part_that_is_cut_off_leaves_nothing(client: Client) -> None:
    import socket

    id, (address,) = begun(client, "0/h", "x", 1)
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(b"PUT %s HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx" % address.encode())
        time.sleep(0.05)
    (folder,) = client.folder.rglob(id)
    assert until(lambda: [each.name for each in folder.iterdir()] == ["upload.json"])


def test_ranges_come_by_an_address_that_was_signed(client: Client) -> None:
    name, data = "0/i/größe 100%25.bin", bytes(range(256))
    assert client.put(name, data).status == 200
    from urllib.parse import quote

    found = client.ask("GET", f"/api/2.0/mlflow-artifacts/presigned/{quote(name)}").json()
    assert (found["file_size"], found["headers"]) == (256, {})
    address = found["url"].partition(f":{client.port}")[2]
    part = client.ask("GET", address, range="bytes=10-19")
    assert (part.status, part.body) == (206, data[10:20])
    for wrong in (
        address.replace("/0/i/", "/0/j/"),
        address.replace("signed/-/1", "signed/-/2"),
        address.replace("signed/-/", "signed/ada/"),
        address[:-1],
        "/api/2.0/mlflow-artifacts/signed/-/9/x/0/i",
        "/api/2.0/mlflow-artifacts/signed/",
        "/api/2.0/mlflow-artifacts/signed/-/x/ü/0",
    ):
        assert client.ask("GET", quote(wrong, safe="/%")).fault() == (403, "PERMISSION_DENIED"), wrong
    missing = client.ask("GET", "/api/2.0/mlflow-artifacts/presigned/0/nowhere")
    assert missing.fault() == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("prefix", ["", "/team/noria"])
def test_a_real_client_sends_and_gets_parts_as_a_user_who_is_known(
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path: Path,
    prefix: str,
) -> None:
    from noria.workspace.users import Role as May
    from noria.workspace.users import user_file

    root = tmp_path / "site"
    root.mkdir()
    (root / "noria.toml").write_text(
        f'[project]\nname = "site"\n[server]\nusers = "users.json"\nprefix = "{prefix}"\n'
    )
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0, prefix=prefix) as plane:
        user_file(project).add("ada", May.WRITE, password="a long password")
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        variables = {
            "MLFLOW_TRACKING_USERNAME": "ada",
            "MLFLOW_TRACKING_PASSWORD": "a long password",
            "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1000000",
            "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "400000",
            "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": "700000",
        }
        if prefix:  # else it asks the server what it can
            variables["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "true"
        run = mlflow_program(program, plane.url, **variables).split()[-1]
        assert {each.actor for each in project.ledger.list_events(subject=f"run/{run}")} == {"person:ada"}
        assert list((project.state / "artifacts" / "parts").iterdir())  # it came in parts
