"""The whole loop with everything that it keeps in a bucket."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers.s3 import S3, s3_server, s3_url

import noria

__all__ = ["s3_server", "s3_url"]  # fixtures


def test_a_loop_that_keeps_all_in_a_bucket_makes_the_same_models(
    tiny: Path, tiny_lived: Path, s3_url: str, s3_server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORIA_STORES__STORAGE", f"{s3_url}/storage")
    command = [sys.executable, "-m", "noria", "replay", "--project", str(tiny)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with noria.open(tiny) as project:
        ours = {each.ref: each.sha256 for each in project.ledger.list_versions(kind="model")}
        rows = project.query("select count(*) as n from predictions").to_pylist()
        for name in ("parcels", "deliveries"):
            assert project.lake.version_digest(name) == project.lake.version_digest(name, verify=True)
    assert not list((tiny / ".noria").rglob("*.parquet"))
    monkeypatch.delenv("NORIA_STORES__STORAGE")
    with noria.open(tiny_lived) as project:
        theirs = {each.ref: each.sha256 for each in project.ledger.list_versions(kind="model")}
        assert rows == project.query("select count(*) as n from predictions").to_pylist()
    assert ours == theirs
