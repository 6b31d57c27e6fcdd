"""Rows that are corrected later: training sets see what was known then, or the later truth if asked for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import noria
from noria.clock import ReplayClock
from noria.deploy.gates import GateResult, enter, require_passed
from noria.errors import GateRefused

INSTANT = pa.timestamp("us", "UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
DECLARED = """
import noria
from noria import agg

orders = noria.Dataset("orders", key="id", event_at="ordered_at", known_at="told_at", write="merge")
customer = noria.FeatureView("customer", source=orders, entity="customer", features={
    "spent": agg.sum("cents", "7d"), "n": agg.count("7d"), "last": agg.last("cents"),
    "most": agg.max("cents", "7d"), "faded": agg.decayed_sum("cents", "1d")})
"""


def orders(*rows: tuple[str, float, float, str, int]) -> pa.Table:
    """Give orders: id, day of the order, day it was told, customer, cents."""
    return pa.table(
        {
            "id": [each[0] for each in rows],
            "ordered_at": pa.array([START + timedelta(days=each[1]) for each in rows], INSTANT),
            "told_at": pa.array([START + timedelta(days=each[2]) for each in rows], INSTANT),
            "customer": [each[3] for each in rows],
            "cents": [each[4] for each in rows],
        }
    )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"corrected_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "shop"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(START + timedelta(days=9)))
        opened.ingest(
            "orders", orders(("a", 1, 1, "ada", 100), ("b", 1, 2, "ben", 7), ("c", 2, 2, "ada", 30))
        )
        opened.ingest("orders", orders(("a", 1, 5, "ada", 900)))  # it was 900 all the time
        opened.ingest("orders", orders(("c", 2, 6, "ben", 30)))  # it was another customer's
        yield opened


def spine(*days: float, customer: str = "ada") -> pa.Table:
    at = pa.array([START + timedelta(days=each) for each in days], INSTANT)
    return pa.table({"customer": [customer] * len(days), "at": at})


def test_a_training_set_sees_what_was_known_then(project: noria.Project) -> None:
    made = project.features.training_set(spine(0.5, 1.5, 3, 5, 6), ["customer"])
    assert made["customer__spent"].to_pylist() == [0, 100, 130, 930, 900]
    assert made["customer__n"].to_pylist() == [0, 1, 2, 2, 1]
    assert made["customer__last"].to_pylist()[1:] == [100, 30, 30, 900]
    assert made["customer__most"].to_pylist()[1:] == [100, 100, 900, 900]
    made = project.features.training_set(spine(3, 6, customer="ben"), ["customer"])
    assert made["customer__spent"].to_pylist() == [7, 37]
    assert b"noria.corrected" not in made.schema.metadata


def test_what_was_known_of_a_table_is_what_is_served(project: noria.Project) -> None:
    project.features.materialize()
    online = project.features.get(["customer"], {"customer": ["ada", "ben"]})
    assert online["customer__spent"].to_pylist() == [0, 30]  # of the last week
    assert not project.features.compare("customer").different
    traced = project.features.trace("customer", {"customer": "ada"}, at=START + timedelta(days=3))
    assert sorted(zip(traced.rows["id"].to_pylist(), traced.rows["cents"].to_pylist(), strict=True)) == [
        ("a", 100), ("c", 30),
    ]  # fmt: skip
    assert traced.values["customer__spent"] == 130


def test_the_later_truth_is_given_and_called_so(project: noria.Project) -> None:
    made = project.features.training_set(spine(0.5, 1.5, 3), ["customer"], corrected=True, name="truth")
    assert made["customer__spent"].to_pylist() == [0, 900, 900]
    assert made.schema.metadata == {b"noria.version": b"truth:1", b"noria.corrected": b"true"}
    assert project.features.read_training_set("truth").schema.metadata == made.schema.metadata
    (version,) = project.ledger.list_versions(kind="training_set")
    assert version.facts["corrected"] is True
    assert project.ledger.get_run(str(version.run)).params["corrected"] is True
    ben = project.features.training_set(spine(1.5, 2.5, customer="ben"), ["customer"], corrected=True)
    assert ben["customer__spent"].to_pylist() == [7, 37]  # from when it happened, though told later


def test_no_gate_lets_a_model_pass_that_was_made_from_it(project: noria.Project) -> None:
    ledger = project.ledger
    for corrected in (False, True):
        name = "truth" if corrected else "honest"
        project.features.training_set(spine(1.5, 3), ["customer"], corrected=corrected, name=name)
        (read,) = ledger.list_versions(kind="training_set", name=name)
        with ledger.running("pipeline", f"train {name}") as around:
            around.add_input(read)
        with ledger.running("step", "fit", parent=around.id) as step:
            step.record_version("output", f"matrix of {name}", sha256="ab" * 32, uri="storage:x")
        with ledger.running("train", name) as fitting:
            fitting.add_input(ledger.list_versions(kind="output", name=f"matrix of {name}")[-1])
            model = fitting.record_version("model", name, sha256=("cd" if corrected else "ef") * 32, uri="x")
        passed = GateResult(gate="any", passed=True, checks=(), data_version="orders:3", rows=1, unlabelled=0)
        event = enter(ledger, noria.Gate(checks=[noria.check.latency(p99_ms=1)]), passed, version=model,
                      environment="production")  # fmt: skip
        if corrected:
            assert event.verb == "gate.refused"
            with pytest.raises(GateRefused, match="made from truth:1, whose features are corrected"):
                require_passed(event)
        else:
            assert require_passed(event).verb == "gate.passed"


def test_replaced_rows_are_known_to_the_verbs_about_data(project: noria.Project) -> None:
    assert project.query("select count(*) as n from orders__replaced").to_pylist() == [{"n": 2}]
    project.vacuum("orders__replaced", retention=timedelta(0))
    done = project.forget("orders", "customer", ["ada"])
    assert "orders__replaced" in {each.name for each in done.of("dataset")}
    made = project.features.training_set(spine(1.5, 3, 5), ["customer"])
    assert made["customer__spent"].to_pylist() == [0, 0, 0]
