"""A subject is forgotten in a project that has lived: five models, weeks of predictions, two servers."""

from datetime import timedelta
from pathlib import Path

from tests.workspace.test_forgetting import holding

import noria
from noria.audit.trace import verify_trace
from noria.ledger.redacted import expected_digest

PARCEL, OTHER = "p00900", "p01000"  # both were predicted, and both are of the training set of later models


def test_a_row_is_forgotten_and_everything_else_still_proves(lived_copy: Path) -> None:
    assert holding(lived_copy, PARCEL)
    with noria.open(lived_copy) as project:
        first = project.forget("parcels", "parcel_id", [PARCEL], reason="article 17")
        assert first.rows == 1
        assert [each.name for each in first.left] == ["deliveries"]
        assert first.of("samples")
        second = project.forget("deliveries", "parcel_id", [PARCEL], reason="article 17")
        assert second.left == ()
        assert {each.name for each in second.of("online")} == {"courier", "district"}
        for name in project.lake.names():
            project.lake.vacuum(name, retention=timedelta(0))
        newest = project.registry.list_models()[-1]
        assert newest.ref in first.models
        lines = verify_trace(project.trace(OTHER), ledger=project.ledger, lake=project.lake,
                             trainings=project.declarations.trainings)  # fmt: skip
        assert [line.what for line in lines if not line.ok] == []
        sets = project.ledger.list_versions(kind="training_set")
        changed = [each for each in sets if expected_digest(project.ledger, each) != each.sha256]
        assert 0 < len(changed) < len(sets)
        assert project.ledger.verify().ok
    assert holding(lived_copy, PARCEL) == {}


def test_a_vocabulary_that_names_the_subject_is_told_of_each_model(lived_copy: Path) -> None:
    with noria.open(lived_copy) as project:
        told = project.forget("deliveries", "district", ["meadow"], dry_run=True)
        models = {each.ref for each in project.registry.list_models()}
    assert {each.name for each in told.of("model") if each.state == "left"} == models
    assert set(told.models) == models


def test_a_broker_keeps_what_it_has_and_that_is_told(lived_copy: Path) -> None:
    (lived_copy / "noria.toml").write_text(
        (lived_copy / "noria.toml").read_text() + '\n[stores]\nstream = "nats://127.0.0.1:9"\n'
    )
    code = lived_copy / "tiny.py"
    code.write_text(code.read_text() + '\nscans = noria.Stream("scans", into=deliveries)\n')
    with noria.open(lived_copy) as project:
        told = project.forget("deliveries", "parcel_id", [PARCEL], dry_run=True)
    (stream,) = told.of("stream")
    assert (stream.name, stream.state) == ("scans", "left")
    assert "keeps its log" in stream.told
