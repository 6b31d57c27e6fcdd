"""Outcomes as they are recorded: known again, in order of their instants, across processes and kills."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import Conflict, LeaseHeld, StoreError
from noria.serving.logs.outcomes import (
    OUTCOME_INDEX,
    Outcome,
    OutcomeBook,
    OutcomeIndex,
    decode_outcomes,
    outcome_spool,
)
from noria.streams.spool import read_spool

NOW = 1_750_000_000_000_000


def book(folder: Path, worker: int | None = 0) -> OutcomeBook:
    return OutcomeBook(folder, spool=outcome_spool(worker))


def kept(folder: Path) -> list[tuple[str, float | str | None, int]]:
    """Give all that is in spools."""
    return [
        row
        for path in sorted(folder.glob("outcomes*"))
        for _, payload in read_spool(path)
        for frame in [decode_outcomes(payload)]
        for row in zip(frame.ids, frame.values(), frame.known_at, strict=True)
    ]


def test_what_is_told_again_is_kept_once_whoever_is_told(tmp_path: Path) -> None:
    told = [
        Outcome(prediction_id="a", value=1.0, known_at=5),
        Outcome(prediction_id="b", value="red"),
        Outcome(prediction_id="c", value=None),
    ]
    with book(tmp_path) as one:
        assert one.record(told, now=NOW) == 0
        assert one.record(told, now=NOW + 1) == 3
    with book(tmp_path, 1) as other:
        assert other.record(told, now=NOW + 2) == 3
    assert kept(tmp_path) == [("a", 1.0, 5), ("b", "red", NOW), ("c", None, NOW)]


def test_a_correction_without_an_instant_counts_also_where_the_clock_was_put_back(tmp_path: Path) -> None:
    with book(tmp_path) as one:
        one.record([Outcome(prediction_id="a", value=0.0)], now=NOW)
        one.record([Outcome(prediction_id="a", value=1.0)], now=NOW - 1_000_000)
    assert kept(tmp_path) == [("a", 0.0, NOW), ("a", 1.0, NOW + 1)]


def test_another_outcome_of_the_same_instant_is_refused_with_all_that_came_with_it(tmp_path: Path) -> None:
    with book(tmp_path) as one:
        one.record([Outcome(prediction_id="a", value=0.0, known_at=7)], now=NOW)
        with pytest.raises(Conflict, match="a correction has a later"):
            one.record(
                [
                    Outcome(prediction_id="b", value=1.0, known_at=7),
                    Outcome(prediction_id="a", value=1.0, known_at=7),
                ],
                now=NOW,
            )
        assert one.record([Outcome(prediction_id="b", value=1.0, known_at=7)], now=NOW) == 0
    assert kept(tmp_path) == [("a", 0.0, 7), ("b", 1.0, 7)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "a\0", "ab", "\x7fé", "a" * 256]),
            st.sampled_from([0.0, 1.0, -2.5, "x", "", None]),
            st.none() | st.integers(-(2**40), 2**52),
        ),
        max_size=24,
    )
)
def test_the_spool_holds_each_id_and_instant_once_and_the_last_told_last(
    tmp_path_factory: pytest.TempPathFactory,
    told: list[tuple[str, float | str | None, int | None]],
) -> None:
    folder = tmp_path_factory.mktemp("outcomes")
    known: dict[tuple[str, int], float | str | None] = {}
    with book(folder) as one:
        for number, (prediction_id, value, known_at) in enumerate(told):
            outcome = Outcome(prediction_id=prediction_id, value=value, known_at=known_at)
            if known_at is not None and known.get((prediction_id, known_at), value) != value:
                with pytest.raises(Conflict):
                    one.record([outcome], now=number)
                continue
            repeated = one.record([outcome], now=number)
            instants = [at for each, at in known if each == prediction_id]
            if known_at is not None:
                assert repeated == ((prediction_id, known_at) in known)
                known[prediction_id, known_at] = value
            elif repeated:
                assert known[prediction_id, max(instants)] == value
            else:
                known[prediction_id, max([number, *(at + 1 for at in instants)])] = value
    rows = kept(folder)
    assert {(each, at): value for each, value, at in rows} == known
    assert len(rows) == len(known)


def test_a_process_that_is_killed_has_kept_what_it_said(tmp_path: Path) -> None:
    code = (
        "import sys, itertools\n"
        "from pathlib import Path\n"
        "from noria.serving.logs.outcomes import Outcome, OutcomeBook\n"
        "book = OutcomeBook(Path(sys.argv[1]), spool='outcomes')\n"
        "for number in itertools.count():\n"
        "    book.record([Outcome(prediction_id=f'p{number}', value=1.0)], now=number)\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(50)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    last = int(said[-1] if said[-1].endswith(b"\n") else said[-2])
    rows = kept(tmp_path)
    assert [each for each, _, _ in rows][: last + 1] == [f"p{number}" for number in range(last + 1)]
    with book(tmp_path) as one:  # it knows again what was not entered
        outcomes = [Outcome(prediction_id=each, value=1.0) for each, _, _ in rows]
        assert one.record(outcomes, now=NOW) == len(rows)


def test_what_another_has_recorded_first_is_told_by_its_stamp(tmp_path: Path) -> None:
    with book(tmp_path) as one:
        one.record([Outcome(prediction_id="a", value=1.0, known_at=3)], now=NOW)
    (frame,) = (decode_outcomes(payload) for _, payload in read_spool(tmp_path / "outcomes"))
    with OutcomeIndex(tmp_path / OUTCOME_INDEX) as index:
        assert index.stamps(["a", "a", "b"], [3, 4, 3]) == [frame.stamp, 0, 0]


def test_forgotten_outcomes_leave_no_byte_of_their_ids(tmp_path: Path) -> None:
    with book(tmp_path) as one:
        rows = [Outcome(prediction_id=f"subject-{number}", value=1.0) for number in range(500)]
        one.record([*rows, Outcome(prediction_id="other", value=0.0)], now=NOW)
        with OutcomeIndex(tmp_path / OUTCOME_INDEX) as index:
            assert index.forget([each.prediction_id for each in rows]) == 500
            assert list(index.list_ids()) == ["other"]
        assert one.record([Outcome(prediction_id="other", value=0.0)], now=NOW) == 1
    assert b"subject-" not in (tmp_path / OUTCOME_INDEX / "data.mdb").read_bytes()


def test_a_spool_has_one_writer_and_a_frame_of_another_program_is_told(tmp_path: Path) -> None:
    with book(tmp_path), pytest.raises(LeaseHeld):
        book(tmp_path)
    with pytest.raises(StoreError, match="of another program"):
        decode_outcomes(b"\x93\x01")
