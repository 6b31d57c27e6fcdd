"""Requests for features that cannot be answered, which are told so and fail nothing."""

from typing import Any

import pytest
from tests.api.test_control_plane import Asker
from tests.api.test_features_over_http import NOW, asker, project

__all__ = ["asker", "project"]  # fixtures


def get(**more: Any) -> dict[str, Any]:
    return {"views": ["courier"], "entities": {"courier": ["ada"]}, "at": NOW} | more


@pytest.mark.parametrize(
    ("entities", "found"),
    [
        ([2**64 - 1, "ada"], [str(2**64 - 1), "ada"]),
        ([10**30], [str(10**30)]),
        ([1, "ada", None], ["1", "ada", None]),
    ],
)
def test_entities_of_several_kinds_are_texts(asker: Asker, entities: list[Any], found: list[Any]) -> None:
    asker.project.features.materialize()
    status, answer = asker.ask("POST", "/features/get", get(entities={"courier": entities}))
    assert (status, answer["columns"]["courier"]) == (200, found)
    counted = {"ada": 2.0, None: None}
    assert answer["columns"]["courier__n_7d"] == [counted.get(each, 0.0) for each in found]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_an_instant_that_no_calendar_has_is_refused(asker: Asker, at: str) -> None:
    asker.project.features.materialize()
    traced = {"entity": {"courier": "ada"}, "at": at}
    for path, body in (("/features/get", get(at=at)), ("/features/courier/trace", traced)):
        status, answer = asker.ask("POST", path, body)
        assert (status, "years 1 to 9999" in answer["error"]["message"]) == (422, True), answer


@pytest.mark.parametrize("reader", ["\x1b[31mred", "two\nlines", "ab\u202ecd", "  "])
def test_a_reader_whose_name_cannot_be_shown_is_refused(asker: Asker, reader: str) -> None:
    asker.project.features.materialize()
    traced = {"entity": {"courier": "ada"}, "reader": reader}
    for path, body in (("/features/get", get(reader=reader)), ("/features/courier/trace", traced)):
        status, answer = asker.ask("POST", path, body)
        assert (status, "characters that can be shown" in answer["error"]["message"]) == (422, True), answer
    assert asker.project.features.readers("courier").reads == ()


def test_a_view_that_is_named_very_often_is_named_once_in_the_answer(asker: Asker) -> None:
    status, answer = asker.ask("POST", "/features/get", get(views=["courier"] * 100_000))
    assert (status, answer["error"]["message"]) == (
        422, "'courier' is named more than once; name each once",
    )  # fmt: skip


def test_a_column_of_no_view_is_told_if_it_is_none(asker: Asker) -> None:
    asker.project.features.materialize()
    body = get(entities={"courier": ["ada", "ben"], "x": ["1", 2]})
    status, answer = asker.ask("POST", "/features/get", body)
    assert (status, "'x' cannot be read" in answer["error"]["message"]) == (422, True), answer
