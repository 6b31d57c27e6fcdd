"""Which models, deployments and requests used a feature."""

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.audit.conftest import World

import noria


@pytest.fixture
def project(world: World) -> Iterator[noria.Project]:
    """Give the world as a project whose modules are gone."""
    (world.root / "noria.toml").write_text(
        '[project]\nname = "parcels"\n[stores]\ndatabase = "sqlite:///noria.db"\nstorage = "storage"\n'
    )
    (world.root / "storage" / "tables").symlink_to(world.root / "tables")
    with noria.open(world.root) as opened:
        yield opened


def test_readers_of_a_view_are_its_models_deployments_and_requests(
    project: noria.Project, world: World
) -> None:
    told = project.features.readers("depot")
    assert (told.definitions, told.trainings, told.training_sets[0].definition) == (
        ("depot:1",),
        (),
        "depot:1",
    )
    models = [each.ref for each in world.ledger.list_versions(kind="model", name="late_parcel")]
    assert sorted(each.model for each in told.models) == sorted(models)
    production = [each for each in told.deployments if each.environment == "production"]
    moves = world.ledger.list_pointers(environment="production", name="late_parcel")
    assert {each.since for each in production} == {each.at for each in moves}
    assert [each.until for each in production if each.since == moves[-1].at] == [None]
    assert all(each.until is not None for each in production if each.since != moves[-1].at)
    assert {each.definition for each in production} == {"depot:1"}
    assert {each.weight for each in production} == {0.5, 1.0}  # a canary had half of the requests
    logged = Counter((each["release"], each["at"].strftime("%Y-%m-%d")) for each in world.rows("predictions"))
    assert {(each.release, each.day): each.rows for each in told.requests} == dict(logged)
    assert told.reads == ()


def test_a_feature_that_a_definition_lacks_has_no_readers_there(project: noria.Project) -> None:
    assert project.features.readers("depot__late_7d").models == project.features.readers("depot").models
    with pytest.raises(noria.errors.NotFound):
        project.features.readers("depot__late")
