"""Models by the names that people give them: listed, and as tables to ask; on both kinds of database."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.workspace.mlflow_stores import make_project

import noria
from noria.errors import NotFound
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_records import Stage
from noria.registry.importing import ForeignRegistered, ForeignVersion, KeptFiles, RegistryImporter
from noria.workspace.models.listing import list_by_name

AT = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[noria.Project]:
    """Give a project whose model `late` was deleted, made anew, and renamed to `delayed`."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with noria.open(make_project(tmp_path / "shop", url)) as opened:
        importer = RegistryImporter(opened.ledger, opened.storage)
        for day, numbers in ((0, (1, 3)), (1, (2,))):
            at = AT + timedelta(days=day)
            versions = tuple(
                ForeignVersion(
                    number=each,
                    source="s3://b/c",
                    location="s3://b/c",
                    created_at=at,
                    updated_at=at,
                    stage=Stage.STAGING,
                    tags={"checked": "yes"},
                )
                for each in numbers
            )
            model = ForeignRegistered(
                name="late",
                created_at=at,
                updated_at=at,
                aliases={"champion": numbers[-1]},
                versions=versions,
                tags={"team": "ops"},
            )
            importer.take(model, {each: KeptFiles("s3://b/c", {}) for each in numbers})
            if day == 0:
                ModelCatalogue(opened.ledger).delete("late")
        ModelCatalogue(opened.ledger).rename("late", "delayed")
        yield opened


def test_models_are_listed_by_the_names_that_they_have_now(project: noria.Project) -> None:
    told = [
        (each.ref, each.model.ref, each.aliases, each.stage, each.is_listed) for each in list_by_name(project)
    ]
    assert told == [
        ("delayed:2", "late~2:2", ("champion",), "Staging", True),
        ("late:1", "late:1", (), "Staging", False),
        ("late:3", "late:3", (), "Staging", False),
    ]
    assert project.model("delayed:2").name == "late~2"
    (listed,) = list_by_name(project, "late~2")
    assert (listed.ref, listed.at) == ("delayed:2", AT + timedelta(days=1))
    with pytest.raises(NotFound, match="delayed"):
        list_by_name(project, "delaid")


def test_a_version_without_figures_is_listed_with_those_of_its_run(tmp_path: Path) -> None:
    rows = np.arange(20.0).reshape(-1, 1)
    with noria.open(make_project(tmp_path / "shop", None)) as project:
        with project.start_run(system_metrics=False) as run:
            run.log_metric("auc", 0.93)
            run.log_model(LinearRegression().fit(rows, rows[:, 0]), "late", registered="late")
        (listed,) = list_by_name(project)
        assert (listed.ref, listed.metrics) == ("late:1", {"auc": 0.93})


def test_a_name_that_another_model_has_now_never_gives_versions_of_the_former(
    project: noria.Project,
) -> None:
    ModelCatalogue(project.ledger).rename("delayed", "late")  # whose versions 1 and 3 were another model's
    assert project.models.get("late:2").ref == "late~2:2"
    for reference in ("late:1", "late:3"):
        with pytest.raises(NotFound, match=f"{reference}.*late:2"):
            project.models.get(reference)
    card = project.models.card("late~2:2")
    assert (card.model, card.called) == ("late~2:2", "late:2")
    assert "# Model card: late:2" in card.markdown
    assert 'load_model("late:2")' in card.markdown
    project.models.put_card("late:2", card.markdown)  # it is the card of that one, by both names


def test_the_catalogue_is_asked_in_sql(project: noria.Project) -> None:
    def rows(sql: str) -> list[tuple[object, ...]]:
        return [tuple(each.values()) for each in project.query(sql).to_pylist()]

    assert rows("SELECT name, ledger_name, deleted_at IS NULL FROM registry_models") == [
        ("delayed", "late~2", True), ("late", "late", False)
    ]  # fmt: skip
    assert rows("SELECT model, number, stage, status, deleted_at IS NULL FROM registry_versions") == [
        ("delayed", 2, "Staging", "READY", True),
        ("late", 1, "Staging", "READY", False),
        ("late", 3, "Staging", "READY", False),
    ]
    joined = "SELECT model, alias, v.sha256 IS NOT NULL FROM registry_aliases a JOIN ledger_versions v "
    assert rows(joined + "ON v.id = a.version") == [("delayed", "champion", True)]
    assert rows("SELECT * FROM registry_model_tags ORDER BY model") == [
        ("delayed", "team", "ops"), ("late", "team", "ops")
    ]  # fmt: skip
    assert rows("SELECT * FROM registry_version_tags WHERE model = 'delayed'") == [
        ("delayed", 2, "checked", "yes")
    ]
    assert rows("SELECT id, name, deleted_at FROM tracking_experiments") == [("0", "Default", None)]
    assert rows("SELECT * FROM tracking_runs") == rows("SELECT * FROM tracking_experiment_tags") == []


def test_the_list_shows_labels_and_counts_what_was_deleted(
    project: noria.Project, noria: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    shown = noria("model", "list", cwd=project.root).stdout
    assert "delayed:2" in shown and "@champion, Staging" in shown and "late:1" not in shown
    assert "2 versions whose labels were deleted" in shown
    found = json.loads(noria("model", "list", "late", "--json", cwd=project.root).stdout)
    assert [each["ref"] for each in found] == ["late:1", "late:3"]
    assert noria("model", "list", "nobody", cwd=project.root).returncode == 3
