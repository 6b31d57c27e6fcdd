"""Which batches a dataset lacks, by what is on record."""

import tempfile
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.lake import blocked as module
from noria.lake.blocked import find_blocked, list_blocked
from noria.ledger.store import Ledger

STEP = st.one_of(
    st.tuples(
        st.sampled_from(["blocked", "ingested", "overwritten"]),
        st.sampled_from(["ingest", "stream:clicks/0"]),
        st.integers(1, 4),
    ),
    st.tuples(st.sampled_from(["released", "empty", "evolved"]), st.just("ingest"), st.just(0)),
)


def tell(
    ledger: Ledger,
    verb: str,
    app: str = "ingest",
    batch: int = 1,
    *,
    of: str = "sales",
    source: str = "batch",
) -> None:
    payload: dict[str, Any] = {"app": app, "batch": batch, "source": source, "reasons": ["too many"]}
    ledger.append(f"dataset.{verb}", subject=of, payload=payload)


def lacking(ledger: Ledger) -> int | None:
    found = find_blocked(ledger, "sales")
    return None if found is None else found.batch


@given(st.lists(STEP, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_lacking_until_its_sequence_reaches_it_or_it_is_released(
    steps: list[tuple[str, str, int]],
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        Database.open(f"sqlite:///{folder}/noria.db") as database,
    ):
        ledger = Ledger(database, clock=ReplayClock(datetime(2024, 1, 1, tzinfo=UTC)))
        patch.setattr(module, "_PAGE", 3)
        missing: list[tuple[str, int]] = []
        for verb, app, batch in steps:
            tell(ledger, verb, app, batch)
            if verb == "blocked":
                missing.append((app, batch))
            elif verb in ("ingested", "overwritten"):
                missing = [each for each in missing if each[0] != app or each[1] > batch]
            elif verb == "released":
                missing = []
        assert lacking(ledger) == (missing[-1][1] if missing else None)


@pytest.mark.parametrize(
    ("app", "source", "other", "is_there"),
    [
        ("file:1", "a.csv", "a.csv", True),
        ("file:1", "a.csv", "b.csv", False),
        ("content:1", "postgresql://h/d sales", "postgresql://h/d sales", True),
        ("content:1", "frame", "frame", False),
        ("file:1", "push:1", "push:1", False),
        ("repair", "repair", "repair", False),
    ],
)
def test_what_is_known_by_its_content_comes_again_from_the_same_place(
    ledger: Ledger, app: str, source: str, other: str, is_there: bool
) -> None:
    tell(ledger, "blocked", app, source=source)
    tell(ledger, "ingested", app.replace("1", "2") if ":" in app else "else", source=other)
    assert (lacking(ledger) is None) == is_there


def test_all_datasets_that_lack_a_batch_are_listed(ledger: Ledger) -> None:
    for name in ("b", "a", "there"):
        tell(ledger, "blocked", of=name, batch=2)
    tell(ledger, "ingested", of="there", batch=3)
    assert list(list_blocked(ledger)) == ["a", "b"]
    assert list_blocked(ledger)["a"].reasons == ("too many",)
