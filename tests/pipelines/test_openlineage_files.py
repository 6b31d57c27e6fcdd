import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pipelines.openlineage.made import NAMESPACE, a_run
from tests.pipelines.openlineage.published import faults

from noria.errors import ConfigError, DiskFull, StoreError
from noria.pipelines.openlineage.emitter import Lineage, LineageEmitter
from noria.pipelines.openlineage.files import FileSink, append_line
from noria.records import RunState

_WRITER = """
import itertools, os, sys
from pathlib import Path
from noria.pipelines.openlineage.emitter import LineageEmitter
name, count = sys.argv[2], int(sys.argv[3])
with LineageEmitter.open(sys.argv[1], root=Path(), namespace="noria://x") as out:
    for number in range(count) if count else itertools.count():
        out.emit({"eventType": "OTHER", "by": name, "number": number, "filler": "ü" * (number * 37 % 9_000)})
        os.write(1, b"%d\\n" % number)
"""


def emitter(url: str, root: Path) -> LineageEmitter:
    return LineageEmitter.open(url, root=root, namespace=NAMESPACE)


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(each) for each in text.splitlines()]


def writer(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _WRITER, f"file:{path}", name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_each_event_is_a_valid_line(tmp_path: Path) -> None:
    run = a_run(state=RunState.FINISHED)
    with emitter("file:out/lineage.jsonl", tmp_path) as out:
        out.started(Lineage(run))
        out.ended(Lineage(run))
        assert out.pending() == 0
    events = lines(tmp_path / "out" / "lineage.jsonl")
    assert [each["eventType"] for each in events] == ["START", "COMPLETE"]
    assert [faults(each) for each in events] == [[], []]


@pytest.mark.parametrize("form", ["{name}", "file:{name}", "file:{root}/{name}", "file://{root}/{name}"])
@pytest.mark.parametrize("name", ["lineage.jsonl", "größe 1.jsonl"])
def test_a_file_is_named_by_path_or_url(tmp_path: Path, form: str, name: str) -> None:
    with emitter(form.format(name=name, root=tmp_path), tmp_path) as out:
        out.emit({"eventType": "OTHER"})
    assert lines(tmp_path / name) == [{"eventType": "OTHER"}]


def test_urls_of_absolute_files_may_be_escaped(tmp_path: Path) -> None:
    emitter(f"file://localhost{tmp_path}/a%20b.jsonl", tmp_path).close()
    assert (tmp_path / "a b.jsonl").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "names no file"),
        ("file:", "names no file"),
        ("file://out/lineage.jsonl", "on the host 'out'"),
        ("kafka://me:secret@host/topic", "lineage kafka://… is of no known kind"),
    ],
)
def test_what_names_no_file_is_refused(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"(give|write) file:PATH") as caught:
        emitter(url, tmp_path)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for url in ("file:.", "file:file/lineage.jsonl"):
        with pytest.raises(StoreError, match="cannot be used"):
            emitter(url, tmp_path)


def test_a_closed_emitter_takes_no_more(tmp_path: Path) -> None:
    out = emitter("lineage.jsonl", tmp_path)
    out.close()
    out.close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        out.emit({})


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    append_line(path, b'{"eventType":"OTHER"}\n')
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from noria.errors import DiskFull\n"
        "from noria.pipelines.openlineage.files import append_line\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: append_line(Path(sys.argv[1]), b'{\"eventType\":\"' + b'x' * 200 + b'\"}\\n')\n"
        "except DiskFull: sys.exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == 9
    assert lines(path) == [{"eventType": "OTHER"}]
    with pytest.raises(DiskFull):
        append_line(Path("/dev/full"), b"{}\n")


def test_a_pipe_may_be_written_to(tmp_path: Path) -> None:
    reader, end = os.pipe()
    FileSink(Path(f"/proc/self/fd/{end}")).write(b"{}\n")
    os.close(end)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"{}\n"


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    writers = [writer(path, f"w{number}", 150) for number in range(4)]
    for each in writers:
        each.communicate(timeout=120)
        assert each.returncode == 0
    found = [(each["by"], each["number"]) for each in lines(path)]
    assert sorted(found) == sorted((f"w{name}", number) for name in range(4) for number in range(150))
    assert [number for name, number in found if name == "w0"] == list(range(150))


def test_processes_that_are_killed_lose_nothing_that_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    acknowledged = set()
    for attempt in range(3):
        writers = [writer(path, f"{attempt}.{number}", 0) for number in range(2)]
        heads = []
        for each in writers:
            assert each.stdout is not None
            heads.append(b"".join(each.stdout.readline() for _ in range(40 + attempt)))
            each.kill()
        for number, (each, head) in enumerate(zip(writers, heads, strict=True)):
            said = head + each.communicate(timeout=60)[0]
            acknowledged |= {(f"{attempt}.{number}", int(line)) for line in said.splitlines()}
    append_line(path, b'{"eventType":"OTHER","by":"last","number":0}\n')
    found = [(each["by"], each["number"]) for each in lines(path)]
    assert len(set(found)) == len(found)
    assert acknowledged <= set(found)


_EVENT = b'{"eventType":"START","x":"' + "ß".encode() * 40_000 + b'"}'


@given(st.lists(st.sampled_from([b'{"eventType":"END"}\n', b"\n", b"old\n"]), max_size=3), st.data())
@settings(max_examples=60, deadline=None)
def test_what_a_kill_cut_off_is_cut_away(before: list[bytes], data: st.DataObject) -> None:
    import tempfile

    cut = data.draw(st.integers(0, len(_EVENT)) | st.integers(0, 30))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lineage.jsonl"
        path.write_bytes(b"".join(before) + _EVENT[:cut])
        append_line(path, b'{"eventType":"NEXT"}\n')
        whole = _EVENT + b"\n" if cut == len(_EVENT) else b""  # only its end was missing: it is kept
        assert path.read_bytes() == b"".join(before) + whole + b'{"eventType":"NEXT"}\n'


def test_a_last_line_of_somebody_else_is_ended_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine\nstill mine")
    append_line(path, b"{}\n")
    assert path.read_text() == "mine\nstill mine\n{}\n"


def test_a_file_may_be_moved_away_while_it_is_written(tmp_path: Path) -> None:
    with emitter("lineage.jsonl", tmp_path) as out:
        out.emit({"eventType": "START"})
        (tmp_path / "lineage.jsonl").rename(tmp_path / "old.jsonl")
        out.emit({"eventType": "COMPLETE"})
    assert lines(tmp_path / "old.jsonl") == [{"eventType": "START"}]
    assert lines(tmp_path / "lineage.jsonl") == [{"eventType": "COMPLETE"}]
