"""Texts are found in another one where they stand as words."""

import re

from hypothesis import given
from hypothesis import strategies as st

from noria.pipelines.words import Words

LETTERS = st.text("abé_+.' \n", max_size=4)


@given(st.lists(LETTERS.filter(bool), max_size=4), st.text("abé_+.' \n", max_size=14))
def test_they_are_found_as_one_pattern_each_finds_them(wanted: list[str], text: str) -> None:
    def pattern(one: str) -> str:
        return rf"(?<!\w){re.escape(one)}" if re.match(r"\w", one) else re.escape(one)

    def ended(one: str) -> str:
        return r"(?!\w)" if re.match(r"\w", one[-1]) else ""

    found = any(re.search(pattern(one) + ended(one), text) for one in wanted)
    assert Words(wanted).are_in(text) == found
    assert (Words(wanted).replaced(text, "") != text) == found


def test_the_longer_one_goes_where_one_begins_with_another() -> None:
    words = Words(["ann", "ann@x.org", "bo"])
    assert words.replaced("ann@x.org, ann; anna, bo_, bo", "-") == "-, -; anna, bo_, -"


def test_thousands_are_looked_for_in_one_pass() -> None:
    words = Words(f"customer-{each}" for each in range(20_000))
    text = " ".join(f"customer-{each}" for each in range(19_999, 20_200))
    assert words.replaced(text, "?").split()[:2] == ["?", "customer-20000"]
