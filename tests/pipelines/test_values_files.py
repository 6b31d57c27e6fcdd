"""Files and folders that steps give: their content counts, nothing of the disk they lie on."""

import io
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from noria.errors import StoreError
from noria.pipelines.values.codec import Format, Unreadable, Unstorable, digest, dump, load
from noria.records import sha256_hex


def test_a_path_to_a_file_is_its_content(tmp_path: Path) -> None:
    path = tmp_path / "rides.csv"
    path.write_bytes(b"a,b\n" * 100_000)
    payload = dump(path, scratch=tmp_path / "scratch", where="w")
    assert (payload.format, payload.path, payload.data) == (Format.FILE, path, None)
    assert payload.sha256 == sha256_hex(path.read_bytes()) == digest(path, scratch=tmp_path, where="w")
    assert payload.size_bytes == 400_000
    assert load(Format.FILE, path) == path
    assert not (tmp_path / "scratch").exists()


def test_the_name_and_the_instant_of_a_file_do_not_count(tmp_path: Path) -> None:
    one, other, link = tmp_path / "one", tmp_path / "other.txt", tmp_path / "link"
    one.write_text("same")
    other.write_text("same")
    os.utime(one, (0, 0))
    link.symlink_to(one)
    assert len({digest(each, scratch=tmp_path, where="w") for each in (one, other, link)}) == 1


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unstorable, match="neither a file nor a folder"):
        digest(tmp_path / "pipe", scratch=tmp_path, where="w")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(Unstorable, match="cannot be read \\(No such file"):
        digest(tmp_path / "dangling", scratch=tmp_path, where="w")


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name) * 1_000)
    (folder / "empty").mkdir(parents=True)
    (folder / "run.sh").touch(mode=0o700)
    return folder


NAMES = ["b.txt", "a/deep/er.txt", "a.txt", "é ü/\udcff.bin", "a/" + "long" * 60]


def test_a_folder_is_its_files_and_comes_back(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", NAMES)
    payload = dump(folder, scratch=tmp_path / "scratch", where="w")
    assert payload.format is Format.FOLDER
    assert payload.path is not None
    assert payload.path.parent == tmp_path / "scratch"
    assert (
        payload.sha256 == sha256_hex(payload.path.read_bytes()) == digest(folder, scratch=tmp_path, where="w")
    )
    assert payload.size_bytes == payload.path.stat().st_size
    found = load(Format.FOLDER, payload.path, scratch=tmp_path / "unpacked")
    names = sorted(each.relative_to(folder) for each in folder.rglob("*"))
    assert sorted(each.relative_to(found) for each in found.rglob("*")) == names
    assert all((found / each).read_bytes() == os.fsencode(each) * 1_000 for each in NAMES)
    assert os.access(found / "run.sh", os.X_OK)
    assert (found / "a.txt").stat().st_mode & 0o333 == 0
    assert digest(found, scratch=tmp_path, where="w") == payload.sha256


def test_equal_folders_have_equal_bytes(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", NAMES)
    other = fill(tmp_path / "other", NAMES[::-1])
    (other / "a.txt").chmod(0o600)
    os.utime(other / "b.txt", (1, 1))
    os.utime(other / "empty", (1, 1))
    assert digest(one, scratch=tmp_path, where="w") == digest(other, scratch=tmp_path, where="w")
    (other / "empty").rmdir()
    assert digest(one, scratch=tmp_path, where="w") != digest(other, scratch=tmp_path, where="w")


def test_a_folder_with_a_link_or_a_pipe_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", NAMES)
    (folder / "a" / "link").symlink_to("er.txt")
    with pytest.raises(Unstorable, match="in which 'a/link' is a link; put the file itself there"):
        dump(folder, scratch=tmp_path / "scratch", where="w")
    (folder / "a" / "link").unlink()
    os.mkfifo(folder / "z")
    with pytest.raises(Unstorable, match="in which 'z' is neither"):
        dump(folder, scratch=tmp_path / "scratch", where="w")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_folder_needs_a_place_to_be_unpacked(tmp_path: Path) -> None:
    payload = dump(fill(tmp_path / "out", []), scratch=tmp_path, where="w")
    assert payload.path is not None
    with pytest.raises(TypeError, match="name the place with `scratch`"):
        load(Format.FOLDER, payload.path)
    with pytest.raises(TypeError, match="loaded from a file, not from bytes"):
        load(Format.FOLDER, b"", scratch=tmp_path)


def entry(name: str, kind: bytes = tarfile.REGTYPE) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        made = tarfile.TarInfo(name)
        made.type, made.linkname = kind, "/etc/passwd"
        tar.addfile(made, io.BytesIO())

    return add


@pytest.mark.parametrize(
    "bad",
    [
        entry("/etc/evil"),
        entry("../evil"),
        entry("a/../../evil"),
        entry("link", tarfile.SYMTYPE),
        entry("hard", tarfile.LNKTYPE),
        entry("device", tarfile.CHRTYPE),
        entry("good"),  # for the second time
    ],
)
def test_a_folder_never_leaves_its_place(bad: Callable[[tarfile.TarFile], None], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        entry("good")(tar)
        bad(tar)
    place = tmp_path / "inner" / "scratch"
    with pytest.raises(Unreadable, match="a folder cannot be read"):
        load(Format.FOLDER, tmp_path / "bad.tar", scratch=place)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "bad.tar", place.parent, place]


@pytest.mark.parametrize("size", [0, 100, 512, 5_000, 10_240, 20_000])
def test_a_folder_that_is_cut_off_is_unreadable(size: int, tmp_path: Path) -> None:
    payload = dump(fill(tmp_path / "out", NAMES), scratch=tmp_path / "scratch", where="w")
    assert payload.path is not None
    assert payload.size_bytes > size
    (tmp_path / "cut").write_bytes(payload.path.read_bytes()[:size])
    with pytest.raises(Unreadable):
        load(Format.FOLDER, tmp_path / "cut", scratch=tmp_path / "unpacked")
    assert list((tmp_path / "unpacked").iterdir()) == []


@pytest.mark.parametrize("what", ["pyarrow.table({'a': range(100_000)})", "Path('big')"])
def test_a_full_disk_is_said_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_bytes(bytes(500_000))
    code = f"""
import resource
from pathlib import Path
import pyarrow
from noria.errors import DiskFull
from noria.pipelines.values.codec import dump
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
try:
    dump({what}, scratch=Path("scratch"), where="w")
except DiskFull as err:
    print(err.path, list(Path("scratch").iterdir()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "scratch []\n", done.stderr


def test_a_scratch_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "scratch").touch()
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="name a folder that can"):
        dump(tmp_path / "out", scratch=tmp_path / "scratch", where="w")
