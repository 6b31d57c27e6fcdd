import sqlite3
from pathlib import Path

import pytest

import noria
from noria.pipelines.kept import look_at_kept
from noria.workspace.doctor import Finding, Health, examine


def findings(folder: Path) -> dict[str, Finding]:
    """Give the worst finding of each check."""
    worst: dict[str, Finding] = {}
    order = [Health.OK, Health.WARN, Health.FAIL]
    for each in examine(folder):
        if each.check not in worst or order.index(each.health) > order.index(worst[each.check].health):
            worst[each.check] = each
    return worst


def test_a_sound_project_has_nothing_to_do(tiny_lived: Path) -> None:
    found = findings(tiny_lived)
    assert {each.health for each in found.values()} == {Health.OK}
    wanted = {
        "clock",
        "database",
        "disk",
        "freshness",
        "lake",
        "modules",
        "noria.toml",
        "online store",
        "packages",
    }
    assert wanted | {"ports", "python", "results", "runs", "storage", "tracking"} == set(found)
    assert "pipelines 0, steps 0" in found["modules"].found


def test_without_a_project_the_machine_is_looked_at(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert found["project"].health is Health.FAIL
    assert "noria init DIR" in found["project"].todo
    assert found["packages"].health is Health.OK


def test_what_was_damaged_is_named(lived_copy: Path) -> None:
    blobs = sorted(
        (lived_copy / ".noria" / "storage" / "sha256").glob("*/*"), key=lambda path: path.stat().st_size
    )
    for blob in blobs:
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    for part in (lived_copy / ".noria" / "storage" / "tables" / "deliveries").glob("**/*.parquet"):
        part.unlink()
    with (lived_copy / "tiny.py").open("a", encoding="utf-8") as file:
        file.write("\ncourier = noria.FeatureView('courier', source=deliveries, entity='courier',\n")
        file.write("                            features={'parcels_24h': agg.count('12h')})\n")
    found = findings(lived_copy)
    assert found["storage"].health is Health.FAIL
    assert "it was changed or damaged" in found["storage"].found
    assert found["lake"].health is Health.FAIL
    assert found["online store"].health is Health.WARN
    assert "courier as defined before" in found["online store"].found
    assert all(found[name].todo for name in ("storage", "lake", "online store"))


def test_a_changed_ledger_is_told_and_nothing_that_builds_on_it(lived_copy: Path) -> None:
    database = sqlite3.connect(lived_copy / ".noria" / "noria.db")
    database.execute("update versions set sha256 = 'ab' where kind = 'model' and number = 1")
    database.commit()
    database.close()
    found = findings(lived_copy)
    assert found["database"].health is Health.FAIL
    assert "was changed" in found["database"].found
    assert "storage" not in found


def test_modules_that_are_not_there_are_told_once(lived_copy: Path) -> None:
    for each in lived_copy.glob("*.py"):
        each.unlink()
    failed = [each for each in examine(lived_copy) if each.health is Health.FAIL]
    assert [each.check for each in failed] == ["modules"]


def test_a_gate_that_nobody_declares_is_told(tiny: Path) -> None:
    text = (tiny / "noria.toml").read_text(encoding="utf-8").replace("staging_gate", "another_gate")
    (tiny / "noria.toml").write_text(text, encoding="utf-8")
    found = findings(tiny)["modules"]
    assert found.health is Health.FAIL
    assert "names the gate 'another_gate', which no module declares" in found.found


STEPS = """
import noria


@noria.step
def small(n: int) -> int:
    return n


@noria.step
def large(n: int) -> bytes:
    return bytes([n]) * 40_000


@noria.pipeline
def both(n: int = 1) -> bytes:
    return large(small(n))
"""


@pytest.fixture
def stepping(tmp_path: Path) -> Path:
    """Give a project whose pipeline ran twice."""
    (tmp_path / "noria.toml").write_text(
        '[project]\nname = "stepping"\nmodules = ["doctor_steps"]\n[compute]\nexecutor = "inline"\n'
    )
    (tmp_path / "doctor_steps.py").write_text(STEPS)
    with noria.open(tmp_path) as project:
        for n in (1, 2):
            project.run_pipeline("both", {"n": n})
    return tmp_path


def test_pipelines_and_what_they_keep_are_counted(stepping: Path) -> None:
    found = findings(stepping)
    assert "pipelines 1, steps 2" in found["modules"].found
    assert found["results"].health is Health.OK
    assert found["results"].found.startswith("4 kept, 78.")
    assert found["results"].found.endswith("KiB; the bytes of these are there")


def test_kept_results_whose_bytes_are_gone_are_named(stepping: Path) -> None:
    with noria.open(stepping) as project:
        (made,) = project.ledger.list_versions(name="both/large")[:1]
    (stepping / ".noria" / "storage" / "sha256" / made.sha256[:2] / made.sha256).unlink()
    found = findings(stepping)["results"]
    assert found.health is Health.WARN
    assert found.found.endswith("of these the bytes of 1 are gone, such as of both/large")
    assert "makes them again" in found.todo


def test_of_many_kept_results_the_newest_are_looked_for(stepping: Path) -> None:
    with noria.open(stepping) as project:
        kept = look_at_kept(project.engine.store, project.storage, most=3)
    assert (kept.results, kept.looked_at, kept.gone) == (4, 3, ())
