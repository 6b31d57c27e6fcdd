"""The lake on a real S3 server: the same rows, exactly once, whoever else writes."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pyarrow as pa
import pytest
from tests.servers.s3 import S3, s3_server, s3_url

from noria.errors import DigestMismatch
from noria.lake.store import Lake

__all__ = ["s3_server", "s3_url"]  # fixtures

_WRITER = textwrap.dedent("""
    import sys
    import pyarrow as pa
    from noria.lake.store import Lake

    url, app, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
    lake = Lake(url, ledger=None)
    for batch in range(1, batches + 1):
        lake.append("notes", pa.table({"app": [app], "batch": [batch]}), batch=batch, app_id=app)
""")


@pytest.fixture
def lake(s3_url: str) -> Iterator[Lake]:
    lake = Lake(f"{s3_url}/tables", ledger=None)
    yield lake
    lake.close()


def _rows(batch: int, count: int = 3) -> pa.Table:
    return pa.table({"batch": [batch] * count, "x": list(range(count))})


def test_a_batch_lands_once_in_a_bucket(lake: Lake) -> None:
    assert lake.append("notes", _rows(1), batch=1, app_id="me")
    assert not lake.append("notes", _rows(1), batch=1, app_id="me")
    assert lake.read("notes").to_pylist() == _rows(1).to_pylist()
    assert lake.names() == ["notes"]


def test_another_process_reads_what_was_written_checkpoints_included(lake: Lake, s3_url: str) -> None:
    for batch in range(1, 31):
        lake.append("notes", _rows(batch), batch=batch, app_id="me")
    again = Lake(f"{s3_url}/tables", ledger=None)
    assert again.read("notes").equals(lake.read("notes"))
    assert again.last_batch("notes", "me") == 30
    assert again.version_digest("notes", verify=True) == lake.version_digest("notes")


def test_two_writers_lose_and_double_nothing_in_a_bucket(lake: Lake, s3_url: str, s3_server: S3) -> None:
    lake.append("notes", pa.table({"app": ["-"], "batch": [0]}), batch=1, app_id="-")
    command = [sys.executable, "-c", _WRITER, f"{s3_url}/tables"]
    writers = [subprocess.Popen([*command, app, "25"]) for app in ("a", "b")]
    assert [each.wait(120) for each in writers] == [0, 0]
    rows = lake.read("notes").to_pylist()
    wanted = [("-", 0), *((app, batch) for app in ("a", "b") for batch in range(1, 26))]
    assert sorted((each["app"], each["batch"]) for each in rows) == sorted(wanted)


def test_joining_files_keeps_the_rows_in_a_bucket(lake: Lake) -> None:
    for batch in range(1, 11):
        lake.append("notes", _rows(batch), batch=batch, app_id="me")
    before = lake.read("notes")
    assert lake.compact("notes") == 10
    assert lake.read("notes").equals(before)


def test_a_changed_object_is_found(lake: Lake, s3_url: str) -> None:
    import obstore
    from obstore.store import from_url

    lake.append("notes", _rows(1), batch=1, app_id="me")
    bucket = from_url(f"{s3_url}/tables", client_options={"allow_http": True})
    listed = [each["path"] for page in obstore.list(bucket) for each in page]
    (path,) = [each for each in listed if each.endswith(".parquet")]
    data = bytes(obstore.get(bucket, path).bytes())
    obstore.put(bucket, path, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatch):
        lake.version_digest("notes", verify=True)
