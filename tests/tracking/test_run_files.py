"""What a run leaves as files."""

import json
import os
import struct
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from noria.clock import WallClock
from noria.database.store import Database
from noria.errors import BadPath, ConfigError, Conflict, SourceError
from noria.ledger.store import Ledger
from noria.storage.local import LocalStorage
from noria.tracking.active_run import ActiveRun
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.beginning import RunStores, WantedRun
from noria.tracking.experiments import ExperimentBook
from noria.tracking.pictures import png_bytes


@pytest.fixture
def stores(tmp_path: Path) -> Any:
    with Database.open(f"sqlite:///{tmp_path / 'noria.db'}") as database:
        storage = LocalStorage(tmp_path / "storage")
        ledger = Ledger(database, storage=storage, clock=WallClock())
        yield RunStores(ledger, ArtifactStore(database, storage, tmp_path / "staging"), tmp_path / "tracking")


def start(stores: RunStores, **wanted: Any) -> ActiveRun:
    return ActiveRun(nullcontext(stores), WantedRun(**wanted), system_metrics=False)


def files(stores: RunStores, run: ActiveRun) -> dict[str, bytes]:
    below = f"0/{run.id}/artifacts/"
    return {
        each.path.removeprefix(below): stores.artifacts.open(each.path).read_bytes()
        for each in stores.artifacts.tree(below)
    }


def test_files_and_folders(stores: RunStores, tmp_path: Path) -> None:
    base = tmp_path / "made"
    (base / "deep" / "deeper").mkdir(parents=True)
    (base / "a.txt").write_text("a")
    (base / "deep" / "deeper" / "größe.txt").write_text("b")
    with start(stores) as run:
        run.log_artifact(base / "a.txt")
        run.log_artifact(base / "a.txt", "some/folder")
        assert run.log_artifacts(base, "all") == 2
        (base / "a.txt").write_text("newer")
        run.log_artifact(base / "a.txt")
        with pytest.raises(SourceError, match="log it with log_artifacts"):
            run.log_artifact(base)
        with pytest.raises(SourceError, match="log a file with log_artifact"):
            run.log_artifacts(base / "a.txt")
        with pytest.raises(SourceError, match="cannot be read"):
            run.log_artifact(base / "nothing")
    assert files(stores, run) == {
        "a.txt": b"newer",
        "some/folder/a.txt": b"a",
        "all/a.txt": b"a",
        "all/deep/deeper/größe.txt": b"b",
    }


def test_a_link_in_a_folder_is_refused(stores: RunStores, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "link").symlink_to("/etc/hostname")
    with start(stores) as run, pytest.raises(SourceError, match="symbolic link"):
        run.log_artifacts(tmp_path / "made")


def test_texts_and_pages_and_values(stores: RunStores) -> None:
    with start(stores) as run:
        run.log_text("grün", "notes/a.txt")
        run.log_text("long", "x" * 300 + ".txt")
        run.log_html("<p>ü</p>", "page.html")
        run.log_dict({"a": [1, 2.5], "b": None}, "d.json")
        with pytest.raises(SourceError, match="nothing that JSON can hold"):
            run.log_dict({"a": object()}, "e.json")
    found = files(stores, run)
    assert (found["notes/a.txt"], found["page.html"]) == ("grün".encode(), "<p>ü</p>".encode())
    assert found["x" * 300 + ".txt"] == b"long"
    assert json.loads(found["d.json"]) == {"a": [1, 2.5], "b": None}
    assert "e.json" not in found


def test_tables_of_all_kinds(stores: RunStores, tmp_path: Path) -> None:
    rows = {"a": [1, 2], "b": ["x", "ü"]}
    with start(stores) as run:
        for name, frame in (("pa", pa.table(rows)), ("pd", pd.DataFrame(rows)), ("pl", pl.DataFrame(rows))):
            run.log_table(frame, f"{name}.parquet")
        with pytest.raises(SourceError, match="which is no frame"):
            run.log_table(rows, "dict.parquet")
    for name in ("pa", "pd", "pl"):
        path = stores.artifacts.open(f"0/{run.id}/artifacts/{name}.parquet")
        assert pq.read_table(path).to_pydict() == rows


class Plot:
    """As matplotlib's."""

    def savefig(self, path: Path) -> None:
        if path.suffix == ".odd":
            raise ValueError("Format 'odd' is not supported")
        path.write_bytes(b"drawn")


class Chart:
    """As plotly's."""

    def write_html(self, path: str) -> None:
        Path(path).write_text("<p>chart</p>")


class Page:
    """As Altair's."""

    def to_html(self) -> str:
        return "<p>page</p>"


def test_figures(stores: RunStores) -> None:
    with start(stores) as run:
        run.log_figure(Plot(), "plots/a.png")
        run.log_figure(Chart(), "b.html")
        run.log_figure(Page(), "c.html")
        for figure, path, told in (
            (Plot(), "d.html", "end it in .png"),
            (Chart(), "d.png", "end it in .html"),
            (Plot(), "d.odd", "not supported"),
            (Plot(), "d", "no ending"),
            ("text", "d.png", "found a str, wanted a figure"),
        ):
            with pytest.raises(ConfigError, match=told):
                run.log_figure(figure, path)
    assert files(stores, run) == {
        "plots/a.png": b"drawn",
        "b.html": b"<p>chart</p>",
        "c.html": b"<p>page</p>",
    }


def read_png(data: bytes) -> np.ndarray[Any, Any]:
    """Read back what `png_bytes` writes, by the standard."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind], at = body, at + 12 + size
    width, height, depth, colours, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colours]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


@given(
    st.integers(1, 4).flatmap(
        lambda channels: arrays.arrays(
            np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(channels))
        )
    )
)
def test_an_array_comes_back_from_its_picture(image: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(read_png(png_bytes(image)), image)
    assert np.array_equal(read_png(png_bytes(image / 255.0)), image)
    assert np.array_equal(read_png(png_bytes(image[:, :, 0] > 9))[:, :, 0], (image[:, :, 0] > 9) * 255)


class Picture:
    """As Pillow's."""

    def save(self, path: Path) -> None:
        if path.suffix != ".jpg":
            raise ValueError(f"unknown file extension: {path.suffix}")
        path.write_bytes(b"jpeg")

    def tobytes(self) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("image", "path", "told"),
    [
        (np.zeros((2, 3, 5)), "a.png", r"shape \(2, 3, 5\) is no image"),
        (np.zeros(3), "a.png", "is no image"),
        (np.zeros((0, 3)), "a.png", "is no image"),
        (np.full((2, 2), 300), "a.png", "from 300 to 300"),
        (np.full((2, 2), -0.1), "a.png", "from -0.1 to -0.1"),
        (np.full((2, 2), np.nan), "a.png", "from nan to nan"),
        (np.full((2, 2), "a"), "a.png", "is no image"),
        (np.zeros((2, 2)), "a.jpg", "name it .png"),
        (Picture(), "a.odd", "unknown file extension"),
    ],
)
def test_what_is_no_image_is_refused(stores: RunStores, image: Any, path: str, told: str) -> None:
    with start(stores) as run:
        run.log_image(Picture(), "good.jpg")
        with pytest.raises(ConfigError, match=told):
            run.log_image(image, path)
    assert files(stores, run) == {"good.jpg": b"jpeg"}


@pytest.mark.parametrize(
    "path", ["", "/a.txt", "../a.txt", "a/../b.txt", "a\\b.txt", "%2e%2e/a.txt", "a//b.txt"]
)
def test_paths_that_lead_elsewhere_are_refused(stores: RunStores, path: str) -> None:
    with start(stores) as run, pytest.raises(BadPath):
        run.log_text("text", path)


def test_what_is_no_text_or_no_path_is_refused(stores: RunStores, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    with start(stores) as run:
        for wrong, told in ((5, "found 5, a int, for 'a.txt'"), ("\ud800", "is no Unicode")):
            with pytest.raises(ConfigError, match=told):
                run.log_text(wrong, "a.txt")  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match=told):
                run.log_html(wrong, "a.txt")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="found 5, a int, wanted a path"):
            run.log_text("a", 5)  # type: ignore[arg-type]
        run.log_text("a", Path("notes/a.txt"))
        run.log_artifact(tmp_path / "b.txt", to=Path("notes"))
    assert files(stores, run) == {"notes/a.txt": b"a", "notes/b.txt": b"b"}


def test_a_path_is_a_file_or_a_folder(stores: RunStores) -> None:
    with start(stores) as run:
        run.log_text("a", "a/b.txt")
        with pytest.raises(Conflict, match="'a' is a folder"):
            run.log_text("b", "a")
        with pytest.raises(Conflict, match=r"'a/b\.txt' is a file"):
            run.log_text("c", "a/b.txt/c")
    with start(stores, run=run.id) as again, pytest.raises(Conflict, match="'a' is a folder"):
        again.log_text("b", "a")
    assert files(stores, run) == {"a/b.txt": b"a"}


def test_an_experiment_that_keeps_its_files_elsewhere(stores: RunStores) -> None:
    book = ExperimentBook(stores.ledger)
    book.create("here", artifact_uri="mlflow-artifacts:/shared/7")
    book.create("there", artifact_uri="s3://bucket/7")
    with start(stores, experiment="here") as run:
        run.log_text("a", "a.txt")
    assert [each.path for each in stores.artifacts.tree()] == [f"shared/7/{run.id}/artifacts/a.txt"]
    with start(stores, experiment="there") as run, pytest.raises(ConfigError, match="s3://bucket/7"):
        run.log_text("a", "a.txt")


def test_a_file_is_kept_though_its_process_dies_at_once(stores: RunStores) -> None:
    run = start(stores)
    run.__enter__()
    pid = os.fork()
    if pid == 0:
        run.log_text("a", "a.txt")
        os._exit(0)
    os.waitpid(pid, 0)
    run.__exit__(None, None, None)
    assert files(stores, run) == {"a.txt": b"a"}
