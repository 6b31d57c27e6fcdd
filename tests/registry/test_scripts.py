"""TorchScript archives from anywhere: what PyTorch is given is what was judged."""

import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import ConfigError
from noria.registry.folders.contents import LocalContents
from noria.registry.folders.loading import load_folder
from noria.registry.folders.scripts import read_script
from noria.registry.folders.trust import PickleTrust

FINE = {
    "m/data.pkl": b"\x80",
    "m/code/__torch__.py": b"return x + 1",
    "m/constants.pkl": b"",
    "m/data/0": b"save",
}
OPENS = b'x = torch.from_file("/etc/passwd", True, 9)'


def archive(members: dict[str, bytes], *, packed: bool = False) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return written.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.parametrize("packed", [False, True])
def test_a_script_is_written_anew_with_all_that_it_holds(packed: bool) -> None:
    script = read_script(archive(FINE, packed=packed))
    assert script is not None and not script.opens_files
    assert members(script.archive) == FINE
    assert list(members(script.archive)) == list(FINE)  # PyTorch takes the folder's name from the first
    assert read_script(script.archive) == script


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02}", archive({"m/data.pkl": b"x"}), archive({"code/x.py": b""})]
)
def test_what_is_no_script_is_none(data: bytes) -> None:
    assert read_script(data) is None


@pytest.mark.parametrize(
    "more",
    [
        {"m/code/a.py": OPENS},
        {"m/CODE/a.py": OPENS},
        {"other/Code/a.py": OPENS},
        {"m/code/a.py": b"torch.save(x, path)"},
        {"m/code/a.py": b"return (ops.aten . load(path))"},
        {"m/model.json": b"{}"},  # an early layout, whose code may lie anywhere
        {"m/Model.JSON": b"{}"},
    ],
)
def test_code_that_may_open_files_is_told(more: dict[str, bytes]) -> None:
    script = read_script(archive(FINE | more))
    assert script is not None and script.opens_files


@pytest.mark.parametrize("name", ["m/code/__TORCH__.py", "m/Constants.pkl"])
def test_names_that_differ_by_case_alone_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="twice: nobody can tell which is meant"):
        read_script(archive(FINE | {name: OPENS}))


def test_another_directory_of_the_same_archive_is_not_handed_on() -> None:
    evil = archive(FINE | {"m/code/__torch__.py": OPENS})
    good = archive(FINE | {"m/code/__torch__.py": b"y".ljust(len(OPENS))})
    both = evil[:-22] + good
    script = read_script(both)
    assert OPENS in both and script is not None
    assert not script.opens_files and OPENS not in script.archive


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(8, 1, "encrypted"), (10, 99, "compression method"), (16, 1, "CRC"), (20, 0, "")],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, offset: int, value: int, message: str) -> None:
    changed = bytearray(archive({"m/code/__torch__.py": b"return x", "m/constants.pkl": b""}))
    changed[changed.index(b"PK\x01\x02") + offset] = value
    if offset < 16:
        changed[changed.index(b"PK\x03\x04") + offset - 2] = value
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pth").write_bytes(changed)
    (tmp_path / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n")
    with pytest.raises(ConfigError, match=f"no TorchScript module that can be read.*{message}"):
        load_folder(LocalContents(tmp_path), trust=PickleTrust())


def test_an_offset_beyond_all_is_refused() -> None:
    data = archive({"m/constants.pkl": b"", "m/code/a.py": b"return x"})
    at = data.rindex(b"PK\x01\x02")
    size = struct.unpack_from("<H", data, at + 28)[0]
    entry = bytearray(data[at : at + 46 + size])
    entry[30:32], entry[42:46] = (12).to_bytes(2, "little"), b"\xff" * 4
    entry += struct.pack("<HHQ", 1, 8, 2**63 + 5)
    end = bytearray(data[at + 46 + size :])
    end[12:16] = (int.from_bytes(end[12:16], "little") + 12).to_bytes(4, "little")
    with pytest.raises(ConfigError, match="OverflowError"):
        read_script(data[:at] + entry + end)


def test_a_script_that_unpacks_to_very_much_is_not_unpacked() -> None:
    data = bytearray(archive(FINE))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(ConfigError, match="unpacks to 2147483"):
        read_script(bytes(data))


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), st.booleans()
)
def test_changed_bytes_are_refused_or_are_what_is_handed_on(
    changes: list[tuple[int, int]], packed: bool
) -> None:
    changed = bytearray(archive(FINE, packed=packed))
    for place, value in changes:
        changed[place % len(changed)] = value
    with suppress(ConfigError):
        script = read_script(bytes(changed))
        assert script is None or read_script(script.archive) == script
