"""What may hang is waited for up to a deadline, and left alone once it failed several times."""

import threading
import time
from collections.abc import Iterator

import pytest

from noria.errors import NotFound, StoreDamaged, StoreError
from noria.serving.features import patience
from noria.serving.features.patience import Patience


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def away() -> int:
    raise StoreError("away")


def test_what_answers_in_time_is_given_and_what_it_raises_is_raised() -> None:
    asked = Patience(5.0)
    assert asked.ask(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        asked.ask(lambda: 1 // 0)
    assert asked.ask(lambda: 8) == 8


def test_what_hangs_costs_the_deadline_and_then_nothing_until_it_is_back(gate: threading.Event) -> None:
    asked = Patience(0.1)
    began = time.perf_counter()
    with pytest.raises(StoreError, match=r"did not answer within 0.1 s.*features_timeout_s"):
        asked.ask(gate.wait)
    assert 0.09 < time.perf_counter() - began < 1.0
    began = time.perf_counter()
    with pytest.raises(StoreError, match="has not answered what it was asked before"):
        asked.ask(lambda: 7)
    assert time.perf_counter() - began < 0.05
    gate.set()
    while True:
        try:
            assert asked.ask(lambda: 7) == 7
        except StoreError:
            time.sleep(0.005)
        else:
            break


def test_after_failures_in_a_row_it_is_left_alone_and_then_one_tries(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_PAUSE_S", 0.2)
    asked, tried = Patience(5.0), []
    for _ in range(3):
        with pytest.raises(StoreError, match="away"):
            asked.ask(away)
    with pytest.raises(StoreError, match="3 times; it is asked again in"):
        asked.ask(lambda: tried.append(1))
    assert tried == []
    time.sleep(0.25)
    waiting = threading.Thread(target=lambda: asked.ask(gate.wait))
    waiting.start()
    time.sleep(0.05)
    with pytest.raises(StoreError, match="asked again in"):  # while that one tries
        asked.ask(lambda: tried.append(1))
    gate.set()
    waiting.join()
    assert asked.ask(lambda: 7) == 7


@pytest.mark.parametrize("error", [NotFound("view", "shop", []), StoreDamaged("a value")])
def test_a_store_that_answers_something_is_not_away(error: Exception) -> None:
    asked = Patience(5.0)

    def refuse() -> int:
        raise error

    for _ in range(6):
        with pytest.raises(type(error)):
            asked.ask(refuse)
    assert asked.ask(lambda: 7) == 7


def test_several_threads_ask_and_each_gets_its_own() -> None:
    asked, found = Patience(5.0), []
    threads = [
        threading.Thread(target=lambda number=number: found.append((number, asked.ask(lambda: number))))
        for number in range(20)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(found) == [(number, number) for number in range(20)]
