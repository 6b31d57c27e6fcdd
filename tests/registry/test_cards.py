"""What people write of versions: kept, never lost, never run together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.registry.conftest import Shelf

from noria.errors import ConfigError, Conflict, DigestMismatch, NotFound
from noria.ledger.store import Ledger
from noria.records import Version
from noria.registry.card_text import (
    MAX_CARD_CHARS,
    checked_section_name,
    checked_sections,
    read_sections,
    section_lines,
)
from noria.registry.cards import CardBook
from noria.storage.contract import blob_key
from noria.storage.opening import open_storage

_TEXTS = st.text(st.sampled_from("ab#<>!-\\ \n`|*é&"), max_size=60)
_NAMES = st.sampled_from(["Owner", "Limitations", "Notes", "Risk # 1", "Räder"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_NAMES, _TEXTS, max_size=4))
def test_what_was_written_is_read_back_from_markdown(sections: dict[str, str]) -> None:
    kept = checked_sections(sections)
    lines = ["# Model card: x:1", "", "<!-- noria model card x:1, written 3. -->", ""]
    for name, text in kept.items():
        lines += section_lines(name, text, remark="carried over from x:0: look it over")
    lines += ["<!-- from the record: not read back -->", "## Limitations", "never read"]
    assert read_sections("\n".join(lines)) == kept


def test_text_before_the_first_section_is_notes() -> None:
    assert read_sections("\ufeff# Title\nhello\n##  intended  USE ##\nfor depots\n") == {
        "Intended use": "for depots",
        "Notes": "hello",
    }


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"Notes": "a\0b"}, "NUL"),
        ({"Notes": "\ud800"}, "no text"),
        ({"notes": "a", "Notes ": "b"}, "twice"),
        ({"": "a"}, "cannot name"),
        ({"x" * 101: "a"}, "cannot name"),
        ({"Notes": "x" * (MAX_CARD_CHARS + 1)}, "at most"),
        ({f"n{number}": "a" for number in range(41)}, "41 sections"),
    ],
)
def test_what_cannot_be_kept_is_refused(sections: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        checked_sections(sections)


def test_limits_hold_at_their_edge() -> None:
    assert checked_sections({"Notes": "x" * MAX_CARD_CHARS})
    assert len(checked_sections({f"n{number}": "a" for number in range(40)})) == 40
    assert checked_section_name("x" * 100) == "x" * 100


@pytest.fixture
def book(shelf: Shelf) -> CardBook:
    return CardBook(shelf.ledger, open_storage(str(shelf.folder / "storage")))


@pytest.fixture
def version(shelf: Shelf) -> Callable[[int], Version]:
    """Give a function that gives a version of a model of three."""
    shelf.models.create("late")
    shelf.made("late", 3)
    return lambda number: shelf.ledger.get_version("model", "late", number)


def test_the_newest_counts_and_all_stay(
    book: CardBook, version: Callable[[int], Version], shelf: Shelf
) -> None:
    book.put(version(1), {"owner": "desk", "Limitations": "snow"}, actor="ada")
    book.put(version(1), {"Limitations": "snow, hail"}, actor="ben")
    book.put(version(1), {"Limitations": None}, actor="ben")
    found = book.history(version(1))
    assert [each.sections for each in found] == [
        {"Owner": "desk", "Limitations": "snow"},
        {"Owner": "desk", "Limitations": "snow, hail"},
        {"Owner": "desk"},
    ]
    assert [*found[1].sections] == ["Owner", "Limitations"]  # the usual order, not that of the alphabet
    assert [(each.number, each.follows, each.by) for each in found] == [
        (1, 0, "ada"),
        (2, 1, "ben"),
        (3, 2, "ben"),
    ]
    assert book.put(version(1), {"Owner": "desk"}, actor="cleo") == found[-1]  # nothing new
    assert book.put(version(1), {"Owner": "desk", "Limitations": "snow"}).number == 4  # as it was once
    assert book.find(version(2)) is None
    assert shelf.ledger.verify().ok
    events = shelf.ledger.list_events(verb="model_card.written", subject="late:1")
    assert [each.actor for each in events][:3] == ["ada", "ben", "ben"]


def test_cards_are_carried_over_from_the_nearest_earlier_version(
    book: CardBook, version: Callable[[int], Version]
) -> None:
    assert book.carried_over(version(3)) is None
    book.put(version(3), {"Owner": "later"})
    assert book.carried_over(version(2)) is None
    book.put(version(1), {"Owner": "desk"})
    carried = book.carried_over(version(2))
    assert carried is not None
    assert (carried.of, carried.card.sections) == ("late:1", {"Owner": "desk"})
    book.put(version(2), {"Owner": "desk 2"})
    assert book.carried_over(version(3)).of == "late:2"  # type: ignore[union-attr]


def test_of_many_who_edit_the_same_one_wins(book: CardBook, version: Callable[[int], Version]) -> None:
    first, model = book.put(version(1), {"Notes": "begin"}), version(1)

    def edit(number: int) -> str:
        try:
            book.put(model, {"Notes": f"edit {number}"}, based_on=first.number, replace=True)
        except Conflict:
            return "refused"
        return "kept"

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(edit, range(6)))
    assert sorted(told) == ["kept", *["refused"] * 5]
    assert len(book.history(model)) == 2
    with pytest.raises(Conflict, match="print it again"):
        book.put(model, {"Notes": "x"}, based_on=7)


def test_a_card_that_was_changed_is_told(
    book: CardBook, version: Callable[[int], Version], shelf: Shelf
) -> None:
    book.put(version(1), {"Notes": "as it was"})
    kept = shelf.ledger.get_version("model_card", "late.1")
    path = shelf.folder / "storage" / blob_key(kept.sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"as it was", b"as it is!"))
    with pytest.raises(DigestMismatch):
        CardBook(shelf.ledger, open_storage(str(shelf.folder / "storage"))).find(version(1))


def test_a_deleted_version_and_model_are_taken_back(shelf: Shelf, either_ledger: Ledger) -> None:
    shelf.models.create("late")
    shelf.made("late", 3)
    shelf.models.put_alias("late", "champion", 2)
    shelf.versions.delete("late", 1)
    shelf.versions.delete("late", 2)
    assert shelf.versions.undelete("late", 2).number == 2
    for number in (2, 9):
        with pytest.raises(NotFound, match=f"late:{number}"):
            shelf.versions.undelete("late", number)
    shelf.models.delete("late")
    with pytest.raises(NotFound):
        shelf.models.get("late")
    found = shelf.models.undelete("late")
    assert found.aliases == {}
    assert shelf.versions.get("late", 3).number == shelf.versions.get("late", 2).number + 1
    with pytest.raises(NotFound):
        shelf.versions.get("late", 1)  # deleted before the model was
    with pytest.raises(NotFound, match="deleted model"):
        shelf.models.undelete("late")
    shelf.models.delete("late")
    shelf.models.create("late")
    with pytest.raises(Conflict, match="already exists"):
        shelf.models.undelete("late")
    verbs = [each.verb for each in shelf.ledger.list_events(verb="model*")] or [
        each.verb for each in shelf.ledger.list_events()
    ]
    assert {"model.restored", "model_version.restored"} <= set(verbs)
    assert shelf.ledger.verify().ok
