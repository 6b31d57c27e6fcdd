import sqlite3
from pathlib import Path

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
    wanted = {"clock", "database", "disk", "lake", "modules", "noria.toml", "online store", "packages"}
    assert wanted | {"ports", "python", "runs", "storage"} == set(found)


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
    assert found["online store"].health is Health.FAIL
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


def test_a_gate_that_nobody_declares_is_told(tiny: Path) -> None:
    text = (tiny / "noria.toml").read_text(encoding="utf-8").replace("staging_gate", "another_gate")
    (tiny / "noria.toml").write_text(text, encoding="utf-8")
    found = findings(tiny)["modules"]
    assert found.health is Health.FAIL
    assert "names the gate 'another_gate', which no module declares" in found.found
