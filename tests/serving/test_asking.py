"""The file that says which releases a worker asks: whatever is in it can be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from noria.serving.asking import Asking
from noria.serving.asking_files import SIZE, asked_at_the_end
from noria.serving.models import LoadedModel, LoadedRoute
from noria.serving.rows import Rows

ROWS = Rows(np.zeros((1, 1)))


class Model:
    """Looks at the file while it is asked, and may ask another one."""

    def __init__(self, release: str, inner: Any = None) -> None:
        self.served = SimpleNamespace(release=release, model="m", version=1)
        self.scorer, self.on_demand, self.inner = self, None, inner
        self.seen: list[list[tuple[int, str]]] = []

    def predict(self, rows: Rows) -> list[Any]:
        if self.inner is not None:
            self.inner()
        self.seen.append(peek())
        return [np.zeros(rows.count)]


def peek() -> list[tuple[int, str]]:
    """Give who is asked right now: each test sets it."""
    raise NotImplementedError


def route(number: int, *releases: str) -> LoadedRoute:
    found = SimpleNamespace(route=SimpleNamespace(number=number), models=dict.fromkeys(releases))
    return cast("LoadedRoute", found)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "asking-0"

    def look() -> list[tuple[int, str]]:
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
        return asked_at_the_end(copy)

    monkeypatch.setitem(globals(), "peek", look)
    return path


def as_model(model: Model) -> LoadedModel:
    return cast("LoadedModel", model)


def test_a_shadow_and_one_that_answers_are_told_apart(path: Path) -> None:
    with Asking(path) as asking:
        asking.hold(route(3, "m:1", "m:2"))
        answers = Model("m:1")
        shadow = Model("m:2", inner=lambda: asking.score(as_model(answers), ROWS))
        asking.score(as_model(shadow), ROWS, shadow=True)
        assert answers.seen == [[(3, "m:1"), (3, "m:2")]]
        assert shadow.seen == [[(3, "m:2")]]
        assert peek() == []


def test_a_route_that_comes_while_one_is_asked_changes_nothing_for_it(path: Path) -> None:
    with Asking(path) as asking:
        asking.hold(route(3, "m:1", "m:2"))
        shadow = Model("m:2", inner=lambda: asking.hold(route(4, "m:3")))
        asking.score(as_model(shadow), ROWS, shadow=True)
        assert shadow.seen == [[(3, "m:2")]]
        for number in range(5, 2_000):  # more than there is room for
            asking.hold(route(number, f"model:{number}", "another:1"))
        last = Model("another:1")
        asking.score(as_model(last), ROWS)
        assert last.seen == [[(1_999, "another:1")]]


def test_who_is_asked_is_told_once(path: Path, tmp_path: Path) -> None:
    with Asking(path) as asking:
        asking.hold(route(3, "m:1"))
        told: list[list[tuple[int, str]]] = []
        asking.score(
            as_model(Model("m:1", inner=lambda: told.extend([asked_at_the_end(path) for _ in range(2)]))),
            ROWS,
        )
    assert told == [[(3, "m:1")], []]
    assert asked_at_the_end(tmp_path / "none") == []
    assert asked_at_the_end(tmp_path) == []  # no file: told in the log


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64))
@example(bytes.fromhex("010000000800") + bytes.fromhex("91920791a4fffefdfc"))
@example(bytes.fromhex("ffffffffffff"))
@example(b"\1" * SIZE)
def test_a_file_of_any_bytes_is_read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert isinstance(asked_at_the_end(path), list)
    assert path.read_bytes()[:4] in (b"", data[:4], bytes(4))
