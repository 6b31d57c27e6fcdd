"""Models of a project that was lived through: who was where, cards, comparison, explanation, restoring."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.servers.browser import Visiting, chromium, visiting

import noria
from noria.errors import ConfigError, Conflict, DigestMismatch, GateRefused, NotFound
from noria.registry.catalogue import ModelCatalogue
from noria.storage.contract import blob_key
from noria.workspace.project import Project

__all__ = ["chromium", "visiting"]  # fixtures


@pytest.fixture(scope="module")
def lived(tiny_lived: Path) -> Iterator[Project]:
    with noria.open(tiny_lived) as project:
        yield project


@pytest.fixture
def mine(lived_copy: Path) -> Iterator[Project]:
    with noria.open(lived_copy) as project:
        yield project


def test_history_tells_each_stay_and_who_began_it(lived: Project) -> None:
    stays = [each for each in lived.models.history("late_parcel") if each.environment == "production"]
    assert [(each.model, each.share, each.trial, each.action) for each in stays] == [
        ("late_parcel:2", 1.0, False, "deploy"),
        ("late_parcel:2", 0.7, True, "canary"),
        ("late_parcel:5", 0.3, True, "canary"),
        ("late_parcel:5", 1.0, False, "promote"),  # a drill that rolled back and forward took no time
    ]
    assert [each.until is None for each in stays] == [False, False, False, True]
    assert all(one.until == other.since for one, other in ((stays[0], stays[1]), (stays[2], stays[3])))
    gates = [None if each.gate is None else each.gate.subject for each in stays]
    assert gates == ["late_parcel:1", "late_parcel:1", "late_parcel:4", "late_parcel:4"]
    assert {each.asked_by.partition(" (")[0] for each in stays} == {"replay began"}
    assert [link.verb for link in stays[3].chain][:3] == ["pointer.moved", "route.requested", "canary.passed"]
    assert [each.model for each in lived.models.history("late_parcel:5")] == ["late_parcel:5"] * 2
    assert lived.models.history("late_parcel@production")[-1].model == "late_parcel:5"


@pytest.mark.parametrize(
    ("instant", "stable", "shares"),
    [
        ("2024-02-03", "late_parcel:2", [1.0]),
        ("2024-02-14T23:59Z", "late_parcel:2", [1.0]),
        ("2024-02-15", "late_parcel:2", [0.7, 0.3]),
        ("2024-02-17", "late_parcel:5", [1.0]),
        ("2030-01-01", "late_parcel:5", [1.0]),
    ],
)
def test_what_was_in_production_on_a_date(
    lived: Project, instant: str, stable: str, shares: list[float]
) -> None:
    found = lived.models.at("late_parcel@production", instant)
    assert (found.model, [each.share for each in found.stays]) == (stable, shares)


def test_instants_and_places_that_are_none_are_told(lived: Project) -> None:
    with pytest.raises(NotFound, match="since 2024-02-03"):
        lived.models.at("late_parcel@production", "2024-02-02T23:59Z")
    for instant in ("yesterday", datetime(2024, 2, 16)):
        with pytest.raises(ConfigError, match="2013-04-01T06:30Z"):
            lived.models.at("late_parcel@production", instant)
    with pytest.raises(ConfigError, match="NAME@ENVIRONMENT"):
        lived.models.at("late_parcel", datetime(2024, 2, 16, tzinfo=UTC))
    with pytest.raises(NotFound, match="late_parcel@production"):
        lived.models.at("nothing@production", "2024-02-16")


def test_a_training_explains_its_model_on_held_back_rows_and_a_refit_on_its_own(lived: Project) -> None:
    trained, refit = (lived.models.explanation(f"late_parcel:{number}") for number in (1, 2))
    assert trained.model == lived.model("late_parcel:1").sha256
    assert (trained.rows_from, trained.unit, trained.method) == ("held_back", "log_odds", "tree_shap")
    assert all(each.permuted is not None for each in trained.inputs)
    assert (refit.rows_from, refit.repeats) == ("training", 0)
    assert trained.inputs[0].name.startswith("district")  # what decides in that made-up town


def test_rows_are_explained_by_what_adds_up_to_their_score(lived: Project) -> None:
    stored = lived.models.explain("late_parcel:5")
    assert np.abs(1 / (1 + np.exp(-stored.totals)) - stored.scores).max() < 1e-9
    some = lived.models.explain("late_parcel:5", stored.rows.slice(3, 2))
    assert np.array_equal(some.values, stored.values[3:5])
    assert some.table().column_names[:4] == ["score", "total", "base", "contributions.weight"]
    assert lived.models.explain("late_parcel:5", stored.rows.slice(0, 0)).values.shape == (0, 7)
    with pytest.raises(noria.errors.SourceError, match="inputs are missing"):
        lived.models.explain("late_parcel:5", [{"weight": 3}])
    with pytest.raises(ConfigError, match="holds no rows"):
        lived.models.explain("late_parcel:5", 7)


def test_two_versions_are_compared_and_score_the_same_later_requests(lived: Project) -> None:
    found = lived.models.compare("late_parcel:2", "late_parcel:5")
    assert found.window["rows"] == found.window["rows"].__class__(672, 1248)
    assert found.inputs_added == found.inputs_removed == ()
    assert found.data["training_set late_parcel"].other == "5"
    assert found.paired is not None
    assert found.paired.since >= datetime(2024, 2, 15, tzinfo=UTC)  # after both had learned
    assert found.paired.differences["log_loss"].high < 0  # the later one is better
    assert max(found.importance, key=lambda name: found.importance[name].other or 0) == "district__delay_3d"
    assert found.sizes["model"].one != found.sizes["model"].other
    same = lived.models.compare("late_parcel:5", "late_parcel:5")
    assert not (same.params or same.window or same.data or same.sizes or same.inputs_changed)
    assert all(each.distance == 0 for each in same.shifts)


def test_a_card_follows_the_record_and_keeps_what_people_wrote(mine: Project) -> None:
    card = mine.models.card("late_parcel:5")
    assert (card.owner, card.written, card.carried) == ("service", None, None)
    text = card.markdown
    for told in ("send a voucher", "parcels:14", "refit of late_parcel:4", "EUR", "late_parcel@production",
                 "canary passed", "district__delay_3d", mine.model("late_parcel:5").sha256):  # fmt: skip
        assert told in text
    mine.models.put_card("late_parcel:4", {"Owner": "Ann", "Limitations": "winter"})
    carried = mine.models.card("late_parcel:5")
    assert (carried.owner, carried.carried.of) == ("Ann", "late_parcel:4")  # type: ignore[union-attr]
    written = mine.models.put_card("late_parcel:5", carried.markdown)
    assert written.sections == {"Owner": "Ann", "Limitations": "winter"}
    edited = mine.models.card("late_parcel:5").markdown.replace("winter", "winter and fog")
    assert mine.models.put_card("late_parcel:5", edited).number == 2
    with pytest.raises(Conflict, match="since"):
        mine.models.put_card("late_parcel:5", edited.replace("fog", "hail"))
    with pytest.raises(ConfigError, match="is the card of late_parcel:5"):
        mine.models.put_card("late_parcel:4", edited)
    with pytest.raises(ConfigError, match="empty"):
        mine.models.put_card("late_parcel:5", " \n")
    assert mine.ledger.verify().ok


def test_the_page_of_a_card_runs_nothing_and_fetches_nothing(
    mine: Project,
    tmp_path: Path,
    visiting: Visiting,
) -> None:
    hostile = '</div><script>document.title = "taken"</script><img src=x onerror="document.title = 1">'
    mine.models.put_card("late_parcel:5", {"Limitations": hostile, "Owner": hostile})
    mine.models.put_tag("late_parcel:5", "note", hostile)
    page = tmp_path / "card.html"
    page.write_bytes(mine.models.card("late_parcel:5").page())
    with visiting(page, size=(400, 800)) as visit:
        assert visit.page.title() == "late_parcel:5 · model card"
        assert visit.page.locator("script, img").count() == 0
        assert hostile in visit.page.locator(".written .text").last.inner_text()
        assert visit.page.locator("rect").count() > 20
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert (len(visit.requests), visit.complaints) == (1, [])
    assert "<script>" not in mine.models.card("late_parcel:5").markdown.partition("from the record")[2]


def test_an_earlier_version_is_restored_by_the_gate_and_nothing_else(mine: Project) -> None:
    with pytest.raises(GateRefused) as refused:
        mine.models.restore("late_parcel:3")  # of the drill
    assert "refused by production_gate" in refused.value.__notes__[-1]
    with pytest.raises(GateRefused, match="canary") as refused:
        mine.models.restore("late_parcel:2")  # a refit
    assert "--share" in refused.value.__notes__[0]
    moves = len(mine.ledger.list_pointers())
    move = mine.models.restore("late_parcel:1", reason="a test")
    assert (mine.model("late_parcel@production").ref, move.action) == ("late_parcel:1", "deploy")
    stay = mine.models.history("late_parcel:1")[0]
    assert (stay.environment, stay.reason) == ("production", "a test")
    assert stay.asked_by.startswith("person:")
    with pytest.raises(Conflict, match="nothing to restore"):
        mine.models.restore("late_parcel:1")
    mine.models.restore("late_parcel:2", share=0.25)
    assert mine.models.history("late_parcel:2")[-1].share == 0.25
    assert len(mine.ledger.list_pointers()) == moves + 2
    assert len(mine.ledger.list_versions(kind="model")) == 5
    assert mine.ledger.verify().ok


def test_a_version_whose_part_was_changed_is_neither_shown_nor_restored(mine: Project) -> None:
    part = mine.registry.read_manifest(mine.model("late_parcel:1")).parts["model"]
    path = mine.root / ".noria" / "storage" / blob_key(part.sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    events = len(mine.ledger.list_events())
    with pytest.raises(DigestMismatch):
        mine.models.restore("late_parcel:1")
    with pytest.raises(DigestMismatch):
        mine.models.explain("late_parcel:1")
    path.unlink()
    with pytest.raises(NotFound):
        mine.models.restore("late_parcel:1")
    assert len(mine.ledger.list_events()) == events


def test_aliases_are_labels_and_never_environments(mine: Project) -> None:
    assert mine.models.put_alias("late_parcel:2", "champion").aliases == ("champion",)
    with pytest.raises(ConfigError, match="is an environment"):
        mine.models.put_alias("late_parcel:2", "production")
    with pytest.raises(NotFound) as told:
        mine.model("late_parcel@champion")
    assert "late_parcel:2" in told.value.__notes__[0]
    assert mine.model("models:/late_parcel@champion").number == 2
    ModelCatalogue(mine.ledger).put_alias("late_parcel", "staging", 1)  # as a client of MLflow may
    assert mine.model("late_parcel@staging").number == 4
    mine.models.remove_alias("late_parcel", "champion")
    for call in (mine.models.remove_alias, mine.models.remove_tag):
        with pytest.raises(NotFound):
            call("late_parcel", "champion")


def test_names_are_those_of_the_catalogue_and_deleted_ones_stay_on_record(mine: Project) -> None:
    catalogue = ModelCatalogue(mine.ledger)
    catalogue.rename("late_parcel", "late")
    assert mine.model("late:3").ref == "late_parcel:3"
    assert mine.model("late_parcel:3").ref == "late_parcel:3"  # as it is on record
    mine.models.describe("late:3", "a drill")
    assert mine.models.label("late:3").description == "a drill"
    catalogue.delete("late")
    with pytest.raises(NotFound) as told:
        mine.models.put_tag("late_parcel:3", "a", "b")
    assert "undelete" in told.value.__notes__[0]
    assert "deleted by somebody" in mine.models.card("late_parcel:3").markdown
    mine.models.undelete("late")
    assert mine.models.label("late:3").description == "a drill"


def test_what_a_gate_let_in_is_deployed_by_name_and_a_refit_only_tried(mine: Project) -> None:
    with pytest.raises(GateRefused, match="has to be judged by a canary") as caught:
        mine.deploy("late_parcel:2", to="production")
    assert "`noria deploy late_parcel:2@production --canary 0.1`" in caught.value.__notes__[0]
    before = {each.sha256 for each in mine.ledger.list_versions(kind="release")}
    move = mine.deploy("late_parcel:2", to="production", canary=0.1, reason="was it better?")
    assert [each.release for each in move.route.entries] == ["late_parcel:5", "late_parcel:2"]
    assert mine.promote("late_parcel@production").pointer.stable
    assert mine.model("late_parcel@production").ref == "late_parcel:2"
    mine.deploy("late_parcel:1", to="production")  # the gated one itself
    made = {each.sha256 for each in mine.ledger.list_versions(kind="release")}
    assert made == before  # each has the release by which it was there
