"""A demo that is killed and started again tells what an undisturbed one tells."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tests.replay.flights_slice import comparable, run_demo, run_demo_with_kills, timed_demo

import noria

Undisturbed = tuple[Path, dict[str, Any], float]

SLICE = "2013-05-13"  # six weeks; every accident has happened by then


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("demo") / "undisturbed"
    figures, took_s = timed_demo(folder, until=SLICE)
    return folder, figures, took_s


@pytest.mark.parametrize(("kills", "seed"), [(3, 11)])
def test_a_killed_demo_ends_like_an_undisturbed_one(
    tmp_path: Path, undisturbed: Undisturbed, kills: int, seed: int
) -> None:
    _, wanted, took_s = undisturbed
    folder = tmp_path / "killed"
    found, instants = run_demo_with_kills(folder, until=SLICE, kills=kills, seed=seed, undisturbed_s=took_s)
    assert len(instants) == kills, f"only {instants} kills came in time; the run took {took_s:.0f} s"
    assert comparable(found) == comparable(wanted)
    with noria.open(folder) as project:
        assert project.ledger.verify().ok
        twice = project.query("""
            select prediction_id, release, environment, count(*) as times from predictions
            group by all having times > 1""")
        assert twice.num_rows == 0
        doubled = project.query("select prediction_id from outcomes group by all having count(*) > 1")
        assert doubled.num_rows == 0
        running = project.query("select id from ledger_runs where state = 'running'")
        assert running.num_rows == 0


def test_a_second_demo_changes_nothing(undisturbed: Undisturbed) -> None:
    folder, wanted, _ = undisturbed
    with noria.open(folder) as project:
        before = project.ledger.verify().events
    again = run_demo(folder, until=SLICE)
    assert comparable(again) == comparable(wanted)
    with noria.open(folder) as project:
        assert project.ledger.verify().events == before


def test_the_slice_closes_the_loop(undisturbed: Undisturbed) -> None:
    _, figures, _ = undisturbed
    assert figures["loop"]["auc"] > 0.70
    assert figures["retrains"] >= 1
    accidents = {each["kind"]: each["as_wanted"] for each in figures["accidents"]}
    assert accidents["bad batch"] is True
    assert accidents["shuffled labels"] is True
    assert figures["parity_differences"] == 0
    assert figures["parity_rows"] > 35_000


def test_the_figures_are_those_of_the_prediction_log(undisturbed: Undisturbed) -> None:
    folder, figures, _ = undisturbed
    with noria.open(folder) as project:
        rows = project.query("""
            select score, outcome, strftime(p."at", '%Y-%m') as month
            from predictions p left join outcomes o using (prediction_id)
            where p.environment = 'production' and answered""")
    score, outcome = rows["score"].to_numpy(), rows["outcome"].to_numpy().astype(float)
    known = ~np.isnan(outcome)
    assert (figures["predictions"], figures["labelled"]) == (len(score), int(known.sum()))
    assert figures["loop"]["auc"] == pytest.approx(roc_auc_score(outcome[known], score[known]), abs=1e-12)
    assert figures["loop"]["log_loss"] == pytest.approx(log_loss(outcome[known], score[known]), abs=1e-9)
    paid = np.where(outcome[known] == 1, 40, -9)[score[known] > 9 / 49].sum()
    assert figures["money"]["gain"] == paid
    months = np.array(rows["month"].to_pylist())
    for line in figures["months"]:
        mine = known & (months == line["month"])
        assert line["loop"]["auc"] == pytest.approx(roc_auc_score(outcome[mine], score[mine]), abs=1e-12)
        assert line["predictions"] == int((months == line["month"]).sum())


def test_any_prediction_is_traced_with_every_digest(undisturbed: Undisturbed) -> None:
    folder, _, _ = undisturbed
    with noria.open(folder) as project:
        ids = project.query("""
            select distinct prediction_id from predictions where environment = 'production'
            order by hash(prediction_id) limit 5""")
        for prediction_id in ids["prediction_id"].to_pylist():
            found = project.trace(prediction_id)
            assert found.ok, [line for line in found.digests if line.ok is False]
            assert found.features_equal


def test_nobody_acts_in_the_loop(undisturbed: Undisturbed) -> None:
    folder, _, _ = undisturbed
    with noria.open(folder) as project:
        verbs = {event.verb for event in project.ledger.list_events()}
    assert "person.asked" not in verbs


@pytest.mark.soak
def test_soak_ten_kills_over_the_whole_year(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted, took_s = timed_demo(tmp_path / "undisturbed", until=None)
    found, instants = run_demo_with_kills(
        tmp_path / "killed", until=None, kills=10, seed=2013, undisturbed_s=took_s
    )
    with capsys.disabled():
        print(f"\nundisturbed {took_s:.0f} s; killed after {', '.join(f'{each:.1f}' for each in instants)} s")
        print(f"loop {wanted['loop']}, frozen {wanted['frozen']}, retrains {wanted['retrains']}")
    assert len(instants) == 10
    assert comparable(found) == comparable(wanted)
