"""Features found by words, whatever alphabet they are written in."""

import unicodedata
from typing import Literal

import pytest

import noria
from noria import agg
from noria.features.searching import search_features

TRIPS = noria.Dataset("trips", key="id", event_at="at")


def view(name: str, described: str) -> noria.FeatureView:
    return noria.FeatureView(
        name, source=TRIPS, entity="courier", description=described, features={"n_7d": agg.count("7d")}
    )


VIEWS = [
    view("fees", "Frais de café, Straße"),
    view("riders", "最近七天的骑手配送"),
    view("parts", "100% of parts"),
]


def found(text: str) -> list[str]:
    return [each.found.name for each in search_features(VIEWS, text).hits]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_word_is_found_however_it_was_typed(form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
    for text in ("café", "CAFÉ", "strasse", "STRASSE", "straße"):
        assert found(unicodedata.normalize(form, text)) == ["fees"], text


def test_a_word_is_found_where_words_are_not_apart() -> None:
    assert found("骑手") == ["riders"]
    assert found("骑手 配送") == ["riders"]
    assert found("餐厅") == []


def test_signs_alone_do_not_find_everything() -> None:
    assert found("%") == found("?!") == found("__") == []
    assert found(" ") == found("") == ["fees", "parts", "riders"]


def test_what_is_meant_by_very_many_words_is_told_at_once() -> None:
    result = search_features(VIEWS, " ".join(f"pards{each}" for each in range(20_000)) + " pards")
    assert (result.hits, result.meant) == ((), ("parts",))
