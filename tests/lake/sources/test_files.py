"""Files as sources: which there are, that they stay the same, how much memory they take."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from tests.lake.sources.conftest import drain
from tests.lake.sources.test_columnar import TABLE, written

from noria.errors import ConfigError, SourceError
from noria.lake.sources.opening import open_source

NOBODY = 65_534


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a\n1\n")
    (source,) = open_source(path)
    assert source.digest == sha256(b"a\n1\n").hexdigest()
    assert (source.size_bytes, source.bytes_read) == (4, 0)
    drain(source)
    assert source.bytes_read == 4


def test_patterns_give_each_file_once_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "deep/c.csv", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    names = [Path(each.name).name for each in open_source("*.csv", folder=tmp_path)]
    assert names == ["a.csv", "b.csv"]
    names = [Path(each.name).name for each in open_source(["b.csv", "**/*.csv"], folder=tmp_path)]
    assert names == ["b.csv", "a.csv", "c.csv"]
    odd = tmp_path / "odd[1].csv"
    odd.write_text("a\n1\n")
    assert [each.name for each in open_source(odd)] == [str(odd)]
    with pytest.raises(SourceError, match=r"no file fits '\*.parquet'"):
        open_source("*.parquet", folder=tmp_path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file or directory; give one that exists"):
        open_source(tmp_path / "nope.csv")
    with pytest.raises(SourceError, match=r"is a folder; name its files, for example by '.*/\*.csv'"):
        open_source(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match="is no regular file"):
        open_source(tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match="a int gives no rows"):
        open_source(5)
    (tmp_path / "rows").write_text("who knows")
    with pytest.raises(
        SourceError, match=r"cannot be told by its name; say its format \(--format\): arrow, csv"
    ):
        open_source(tmp_path / "rows")
    with pytest.raises(ConfigError, match="'xml' is no format that noria reads"):
        open_source(tmp_path / "rows", format="xml")
    assert drain(open_source(tmp_path / "rows", format="csv")[0]).rows == []


def test_a_name_that_tells_nothing_is_told_by_the_content(tmp_path: Path) -> None:
    assert drain(open_source(written(TABLE, tmp_path / "x.parquet").rename(tmp_path / "x"))[0]).rows
    (tmp_path / "y").write_text('{"a": 1}\n')
    assert drain(open_source(tmp_path / "y")[0]).rows == [{"a": 1}]


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:  # whoever runs the tests may not read a file of mode 0 either
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.getuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)
    path = tmp_path / "rows.csv"
    path.write_text("a\n1\n")
    path.chmod(0)
    with (
        as_nobody(),
        pytest.raises(SourceError, match="Permission denied; give this user the right to read it"),
    ):
        open_source(path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet", "rows.arrow"])
def test_a_file_that_changes_while_it_is_read_gives_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(("parquet", "arrow")):
        written(pa.table({"n": range(200_000)}), path)
    else:
        path.write_text('{"n": 1}\n' if name.endswith("jsonl") else "n\n1\n")
    (source,) = open_source(path)
    assert source.digest
    pieces = source.pieces(None)
    next(pieces)
    with path.open("ab") as file:
        file.write(b"2\n")
    with pytest.raises(SourceError, match="changed while it was read, so nothing of it was taken"):
        list(pieces)


def test_a_file_that_was_changed_since_its_digest_was_taken_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("n\n1\n")
    (source,) = open_source(path)
    assert source.digest
    before = path.stat()
    path.write_text("n\n2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # neither size nor time tell
    with pytest.raises(SourceError, match="changed while it was read"):
        drain(source)


READ = """
import resource, sys
from noria.lake.sources.opening import open_source
import pyarrow as pa

(source,) = open_source(sys.argv[1])
rows = sum(piece.num_rows for piece in source.pieces(None) if isinstance(piece, pa.RecordBatch))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak(path: Path) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    rows, peak_kib = map(int, done.stdout.split())
    return rows, peak_kib * 1024


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    small, large = tmp_path / f"small-{name}", tmp_path / f"large-{name}"
    lines = b"".join(
        b"k%d,%d,2024-01-01T00:00:00Z,text to fill the line with\n" % (n, n) for n in range(100_000)
    )
    if name == "rows.csv":
        small.write_bytes(b"id,n,at,text\n" + lines)
        large.write_bytes(b"id,n,at,text\n" + lines * 20)
    else:
        table = pa.table({"n": range(100_000), "text": [f"text {each}" for each in range(100_000)]})
        written(table, small)
        import pyarrow.parquet as pq

        with pq.ParquetWriter(large, table.schema) as writer:
            for _ in range(20):
                writer.write_table(table)
    rows, peak = _peak(small)
    more_rows, more_peak = _peak(large)
    assert more_rows == 20 * rows
    assert more_peak < peak + 40_000_000
