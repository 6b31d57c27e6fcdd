import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import from_micros
from noria.deploy.shipping import PREDICTIONS, prediction_table, ship_predictions
from noria.lake.store import Lake
from noria.serving.logs.log import PredictionFrame, ReleaseScores, decode_frame, encode_frame
from noria.streams.spool import Spool, read_spool

APP = "predictions/production/late"
AT = 1_370_088_000_000_000


def frame(
    name: str, rows: int = 2, *, releases: int = 1, carriers: list[str | None] | None = None
) -> PredictionFrame:
    scores = np.linspace(0.1, 0.9, rows)
    first = np.arange(rows) % releases == 0
    return PredictionFrame(
        at=AT,
        recorded_at=AT + 7,
        environment="production",
        deployment="late",
        route="route-3",
        route_number=3,
        latency_us=900,
        ids=[f"{name}-{row}" for row in range(rows)],
        digests=b"\0" * 16 * rows,
        texts={"carrier": carriers or [None, *["AA"] * (rows - 1)]},
        numbers={"distance": np.array([np.nan, *range(1, rows)], dtype="<f8").tobytes()},
        feature_names=["carrier__n", "carrier__m"],
        features=np.array([[row, np.nan] for row in range(rows)], dtype="<f8").tobytes(),
        releases=[
            ReleaseScores(
                f"late:{version}",
                "late",
                version,
                (scores / version).tobytes(),
                (first if version == 1 else ~first).tobytes(),
            )
            for version in range(1, releases + 1)
        ],
    )


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    yield lake
    lake.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool") as spool:
        yield spool


def ship(lake: Lake, spool: Spool, tmp_path: Path) -> int:
    return ship_predictions(tmp_path / "spool", lake, app_id=APP, rotate=spool.rotate).rows


def shipped_ids(lake: Lake) -> list[str]:
    ids: list[str] = lake.read(PREDICTIONS)["prediction_id"].to_pylist()
    return ids


def test_a_frame_becomes_a_row_per_prediction_and_release() -> None:
    table = prediction_table([frame("a", 3, releases=2)])
    assert table["prediction_id"].to_pylist() == ["a-0", "a-1", "a-2"] * 2
    assert table["version"].to_pylist() == [1, 1, 1, 2, 2, 2]
    assert table["answered"].to_pylist() == [True, False, True, False, True, False]
    np.testing.assert_allclose(table["score"].to_pylist(), [0.1, 0.5, 0.9, 0.05, 0.25, 0.45])
    row = table.to_pylist()[1]
    assert (row["at"], row["recorded_at"]) == (from_micros(AT), from_micros(AT + 7))
    assert (row["route"], row["route_number"], row["release"], row["latency_us"]) == (
        "route-3",
        3,
        "late:1",
        900,
    )
    assert row["inputs"] == {"carrier": "AA", "distance": 1.0}
    assert row["features"] == {"carrier__n": 1.0, "carrier__m": None}
    assert table.to_pylist()[0]["inputs"] == {"carrier": None, "distance": None}


def test_frames_with_other_columns_share_a_table() -> None:
    plain = PredictionFrame(
        **{
            **{name: getattr(frame("b", 1), name) for name in PredictionFrame.__struct_fields__},
            "texts": {"tail": ["N1"]},
            "numbers": {},
            "feature_names": [],
            "features": b"",
        }
    )
    rows = prediction_table([frame("a", 2), plain]).to_pylist()
    assert rows[1]["inputs"] == {"carrier": "AA", "distance": 1.0, "tail": None}
    assert rows[2]["inputs"] == {"carrier": None, "distance": None, "tail": "N1"}
    assert rows[2]["features"] == {"carrier__m": None, "carrier__n": None}


def test_a_text_column_of_nulls_stays_text() -> None:
    table = prediction_table([frame("a", 1, carriers=[None])])
    assert table.schema.field("inputs").type.field("carrier").type == pa.string()


def test_what_is_logged_goes_to_the_lake_once(lake: Lake, spool: Spool, tmp_path: Path) -> None:
    spool.append(encode_frame(frame("a")))
    assert ship(lake, spool, tmp_path) == 2
    assert ship(lake, spool, tmp_path) == 0
    spool.append(encode_frame(frame("b", carriers=[None, None])))
    assert ship(lake, spool, tmp_path) == 2
    assert shipped_ids(lake) == ["a-0", "a-1", "b-0", "b-1"]
    assert not list(read_spool(tmp_path / "spool"))


def test_a_kill_between_commit_and_drop_doubles_nothing(
    lake: Lake, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append(encode_frame(frame("a")))

    def killed(folder: Path, *, through: int) -> None:
        if through:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("noria.deploy.shipping.drop_segments", killed)
        with pytest.raises(KeyboardInterrupt):
            ship(lake, spool, tmp_path)
    assert shipped_ids(lake) == ["a-0", "a-1"]
    assert len(list(read_spool(tmp_path / "spool"))) == 1
    spool.append(encode_frame(frame("b")))
    assert ship(lake, spool, tmp_path) == 2
    assert shipped_ids(lake) == ["a-0", "a-1", "b-0", "b-1"]


def test_a_new_spool_under_an_old_name_loses_nothing(lake: Lake, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Spool(tmp_path / "spool") as spool:
            spool.append(encode_frame(frame(name)))
            ship(lake, spool, tmp_path)
        for each in (tmp_path / "spool").iterdir():
            each.unlink()
    assert shipped_ids(lake) == ["a-0", "a-1", "b-0", "b-1"]


def test_many_segments_go_in_several_batches(
    lake: Lake, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.deploy.shipping._ROWS_PER_BATCH", 3)
    for number in range(5):
        spool.append(encode_frame(frame(f"f{number}")))
        spool.rotate()
    assert ship(lake, spool, tmp_path) == 10
    assert sorted(shipped_ids(lake)) == [f"f{number}-{row}" for number in range(5) for row in range(2)]


def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from noria.deploy.shipping import ship_predictions\n"
        "from noria.lake.store import Lake\n"
        "from noria.streams.spool import Spool\n"
        "base = Path(sys.argv[1])\n"
        "with Spool(base / 'spool', wait_s=5) as spool:\n"
        "    lake = Lake(str(base / 'lake'), ledger=None)\n"
        "    print('ready', flush=True)\n"
        f"    ship_predictions(base / 'spool', lake, app_id={APP!r}, rotate=spool.rotate)\n"
        "    print('done', flush=True)\n"
    )
    wanted: list[str] = []
    for attempt, delay_s in enumerate((0.012, 0.04)):
        with Spool(tmp_path / "spool", wait_s=5) as spool:
            for number in range(3):
                made = frame(f"k{attempt}-{number}")
                spool.append(encode_frame(made))
                wanted += made.ids
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    with Spool(tmp_path / "spool", wait_s=5) as spool:
        ship(lake, spool, tmp_path)
    assert sorted(shipped_ids(lake)) == sorted(wanted)
    lake.close()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 6), releases=st.integers(1, 3), count=st.integers(1, 4))
def test_no_row_is_lost_on_the_way_to_the_table(rows: int, releases: int, count: int) -> None:
    frames = [
        decode_frame(encode_frame(frame(f"f{number}", rows, releases=releases))) for number in range(count)
    ]
    table = prediction_table(frames)
    assert table.num_rows == rows * releases * count
    pairs = set(zip(table["prediction_id"].to_pylist(), table["release"].to_pylist(), strict=True))
    assert len(pairs) == table.num_rows
