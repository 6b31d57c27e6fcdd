"""What is changed behind the back of the record shows as a digest that does not hold."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.audit.conftest import World

from noria.audit.records import Trace
from noria.errors import LedgerCorrupt
from noria.storage.contract import blob_key


def failed(found: Trace) -> set[str]:
    return {line.what for line in found.digests if line.ok is False}


def flip(path: Path, *, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def change(world: World, statement: str, **values: Any) -> None:
    with world.ledger.database.write() as connection:
        assert connection.execute(text(statement), values).rowcount == 1


@pytest.fixture
def id(world: World) -> str:
    name: str = world.prediction(day=36)["prediction_id"]
    return name


def blob(world: World, sha256: str) -> Path:
    path: Path = world.root / "storage" / blob_key(sha256)
    return path


def test_a_changed_model_file_shows(world: World, id: str) -> None:
    before = world.trace(id)
    flip(blob(world, before.parts["model"]), at=100)
    found = world.trace(id)
    assert failed(found) == {"model late_parcel:4, its model", "the file that the release loads"}
    line = next(each for each in found.digests if each.ok is False)
    assert line.recomputed not in (None, line.sha256)
    assert "do not hold" in found.sentences[-1]


def test_a_changed_manifest_shows(world: World, id: str) -> None:
    flip(blob(world, world.trace(id).model.sha256), at=20)
    assert "model late_parcel:4, its manifest" in failed(world.trace(id))


def test_a_missing_blob_shows(world: World, id: str) -> None:
    blob(world, world.trace(id).parts["profile"]).unlink()
    found = world.trace(id)
    (line,) = (each for each in found.digests if each.ok is False)
    assert (line.what, line.recomputed) == ("model late_parcel:4, its profile", None)
    assert line.problem is not None


def test_a_changed_byte_of_raw_rows_shows(world: World, id: str) -> None:
    before = world.trace(id)
    file = before.raw[0].files[0]
    path = world.root / "tables" / file.table / file.path
    flip(path, at=path.stat().st_size // 3)
    found = world.trace(id)
    assert f"file deliveries/{file.path[:24]}…" in failed(found)
    assert found.raw[0].problem is not None
    assert "was changed or damaged" in found.raw[0].problem
    assert {each.equal for each in found.features} == {None}


def test_a_changed_byte_of_the_prediction_log_shows(world: World, id: str) -> None:
    file = world.trace(id).prediction.file
    assert file is not None
    path = world.root / "tables" / file.table / file.path
    flip(path, at=path.stat().st_size - 5_000)  # statistics and names lie at the end
    assert f"file predictions/{file.path[:24]}…" in failed(world.trace(id))


def test_a_file_that_cannot_be_read_any_more_leaves_the_rest_of_the_trace(world: World, id: str) -> None:
    file = world.trace(id).raw[0].files[0]
    path = world.root / "tables" / file.table / file.path
    path.write_bytes(path.read_bytes()[:-200])
    found = world.trace(id)
    assert f"file deliveries/{file.path[:24]}…" in failed(found)
    assert found.raw[0].problem is not None
    assert found.features[0].equal is None
    assert found.verdicts


def test_a_changed_release_shows(world: World, id: str) -> None:
    version = world.trace(id).release.version.id
    change(
        world,
        "update versions set facts = replace(facts, :old, :new) where id = :id",
        id=version,
        old='"threshold":0.16',
        new='"threshold":0.86',
    )
    found = world.trace(id)
    assert {"release late_parcel:4", f"ledger row versions/{version}"} <= failed(found)


def test_a_release_that_says_nothing_sensible_any_more_is_named(world: World, id: str) -> None:
    version = world.trace(id).release.version.id
    change(world, "update versions set facts = '{}' where id = :id", id=version)
    with pytest.raises(LedgerCorrupt, match="release late_parcel:4 does not hold what it should"):
        world.trace(id)


def test_a_changed_parameter_of_the_run_shows(world: World, id: str) -> None:
    run = world.trace(id).runs[0].id
    change(
        world,
        "update runs set params = replace(params, :old, :new) where id = :id",
        id=run,
        old='"threads":1',
        new='"threads":2',
    )
    assert failed(world.trace(id)) == {f"ledger row runs/{run}"}


def test_a_changed_verdict_shows(world: World, id: str) -> None:
    verdict = world.trace(id).verdicts[1]
    change(
        world,
        "update events set payload = replace(payload, 'worse than', 'better than') where seq = :seq",
        seq=int(verdict.event.rpartition(":")[2]),
    )
    assert failed(world.trace(id)) == {f"event {verdict.event} (gate.passed)"}


def test_a_changed_move_shows(world: World, id: str) -> None:
    number = world.trace(id).route.number
    change(
        world,
        "update pointers set reason = 'because' where environment = 'production' and number = :n",
        n=number,
    )
    assert failed(world.trace(id)) == {f"ledger row pointers/production/late_parcel:{number}"}
