"""Azure and Google Cloud Storage, as far as can be told without them: options, reading, clear refusals."""

import io
import socket
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from obstore.store import LocalStore, MemoryStore

from noria.errors import ConfigError, StoreError
from noria.lake.files import ObjectFiles, open_files
from noria.lake.object_reading import reading_of
from noria.lake.store import Lake
from noria.storage.opening import open_storage

KEY = "bm90IGEgc2VjcmV0"  # base64 of "not a secret"
TABLE = pa.table({"n": list(range(10_000)), "text": [str(each % 7) for each in range(10_000)]})
PATIENCE_S = 25.0  # a try that waits for minutes is what must not be


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's environment counts, and no request leaves it."""
    import os

    for name in [*os.environ]:
        if name.startswith(("AZURE_", "GOOGLE_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def nobody() -> str:
    """Give a place of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_parquet_is_read_through_the_store_itself(tmp_path: Path, kind: str) -> None:
    import obstore

    store: Any = MemoryStore() if kind == "memory" else LocalStore(tmp_path)
    out = io.BytesIO()
    pq.write_table(TABLE, out, row_group_size=1_000)
    obstore.put(store, "sales/a.parquet", out.getvalue())
    system = reading_of(store)
    with pq.ParquetFile("sales/a.parquet", filesystem=system) as opened:
        assert opened.read_row_group(3)["n"].to_pylist() == list(range(3_000, 4_000))
    format = pads.ParquetFileFormat(
        default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
    )
    fragment = format.make_fragment("sales/a.parquet", system)
    found = pads.FileSystemDataset([fragment], TABLE.schema, format, system)
    assert found.to_table(filter=pads.field("n") < 10).num_rows == 10
    assert found.to_table().equals(TABLE)
    with pytest.raises(FileNotFoundError):
        pq.ParquetFile("sales/b.parquet", filesystem=system)
    assert system.get_file_info("sales/b.parquet").type == pa.fs.FileType.NotFound
    assert system == reading_of(store) != reading_of(MemoryStore())


@pytest.mark.parametrize(
    "options",
    [
        {"account_name": "acc", "account_key": KEY},
        {"AZURE_STORAGE_ACCOUNT_NAME": "acc", "AZURE_STORAGE_ACCOUNT_KEY": KEY},
        {"azure_storage_account_name": "acc", "azure_storage_sas_token": "sv=1&sig=x"},
        {"account_name": "acc", "client_id": "i", "client_secret": "s", "tenant_id": "t"},
    ],
)
def test_options_of_azure_are_those_of_object_store(options: dict[str, str]) -> None:
    storage: Any = open_storage("az://box/below", options=options)
    assert storage._store.config["account_name"] == "acc"
    assert (storage._store.config["container_name"], storage._store.prefix) == ("box", "below")


@pytest.mark.parametrize("options", [{"google_skip_signature": "true"}, {"skip_signature": "true"}])
def test_options_of_google_are_those_of_object_store(options: dict[str, str]) -> None:
    storage: Any = open_storage("gs://box/below", options=options)
    assert storage._store.config == {"bucket": "box", "skip_signature": "true"}


def test_the_environment_says_who_may_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"Account must be specified; .* credentials"):
        open_files("az://box/below")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    files = open_files("az://box/below")
    assert isinstance(files, ObjectFiles)
    assert files.arrow("sales/a.parquet")[1] == "sales/a.parquet"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(ConfigError, match=r"service account file from /nowhere/key\.json"):
        open_files("gs://box/below")


@pytest.mark.parametrize("store", ["azure with a key", "azure without", "google"])
def test_a_store_that_lets_nobody_in_is_told_of_within_seconds(
    monkeypatch: pytest.MonkeyPatch, nobody: str, store: str
) -> None:
    url = "gs://box/below" if store == "google" else "az://box/below"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", nobody)
    monkeypatch.setenv("AZURE_IDENTITY_ENDPOINT", nobody)  # which is asked where there is no key
    monkeypatch.setenv("GOOGLE_BASE_URL", nobody)
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    if store == "azure with a key":
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    began = time.monotonic()
    lake = Lake(f"{url}/tables", ledger=None)
    with pytest.raises(StoreError, match="that the environment holds its credentials"):
        lake.exists("sales")
    with pytest.raises(StoreError, match="check the URL, the credentials"):
        open_storage(url).put(b"x")
    assert time.monotonic() - began < PATIENCE_S
