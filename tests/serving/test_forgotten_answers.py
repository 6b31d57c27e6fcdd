"""Answers kept for retries are taken out for good; the others stay."""

from pathlib import Path

import numpy as np
import pytest

from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.log import PredictionFrame, ReleaseScores


def frame(*ids: str) -> PredictionFrame:
    scores = ReleaseScores("late:1", "late", 1, np.full(len(ids), 0.25).tobytes(), bytes([1] * len(ids)))
    return PredictionFrame(
        at=1, recorded_at=1, environment="production", deployment="late", route="r", route_number=1,
        latency_us=5, ids=list(ids), digests=bytes(16 * len(ids)), texts={}, numbers={}, feature_names=[],
        features=b"", releases=[scores],
    )  # fmt: skip


def enter(index: PredictionIndex, answered: PredictionFrame) -> None:
    assert index.enter([answered], named=[False], write=lambda _: None) == []


@pytest.mark.parametrize("many", [3, 20_000])
def test_no_byte_of_an_id_is_left_and_the_others_are_still_known(tmp_path: Path, many: int) -> None:
    ids = [f"call-{number:06d}" for number in range(many)]
    with PredictionIndex(tmp_path) as index:
        for start in range(0, many, 1_000):
            enter(index, frame(*ids[start : start + 1_000]))
    gone = [ids[0], ids[many // 2], ids[-1]]
    with PredictionIndex(tmp_path) as index:
        assert index.forget([*gone, "never answered"]) == 3
        assert index.forget(gone) == 0
        assert index.find(gone) == [None] * 3
        assert list(index.list_ids()) == [each for each in ids if each not in gone]
        enter(index, frame(gone[0], "new"))
        assert [each is not None for each in index.find([gone[0], "new"])] == [True, True]
        index.forget(gone)
    raw = (tmp_path / "data.mdb").read_bytes()
    assert [each for each in gone if each.encode() in raw] == []
