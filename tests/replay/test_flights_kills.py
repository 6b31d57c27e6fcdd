"""A demo that is killed and started again tells what an undisturbed one tells."""

import sys
from pathlib import Path

import pytest

import noria

sys.path.insert(0, str(Path(__file__).parent))
from flights_slice import comparable, run_demo, run_demo_with_kills, timed_demo

SLICE = "2013-05-13"  # six weeks; every accident has happened by then


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, float]:
    folder = tmp_path_factory.mktemp("demo") / "undisturbed"
    figures, took_s = timed_demo(folder, until=SLICE)
    return folder, figures, took_s


@pytest.mark.parametrize(("kills", "seed"), [(3, 11)])
def test_a_killed_demo_ends_like_an_undisturbed_one(tmp_path, undisturbed, kills, seed):
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


def test_a_second_demo_changes_nothing(undisturbed):
    folder, wanted, _ = undisturbed
    with noria.open(folder) as project:
        before = project.ledger.verify().events
    again = run_demo(folder, until=SLICE)
    assert comparable(again) == comparable(wanted)
    with noria.open(folder) as project:
        assert project.ledger.verify().events == before


def test_the_slice_closes_the_loop(undisturbed):
    _, figures, _ = undisturbed
    assert figures["loop"]["auc"] > 0.70
    assert figures["retrains"] >= 1
    accidents = {each["kind"]: each["as_wanted"] for each in figures["accidents"]}
    assert accidents["bad batch"] is True
    assert accidents["shuffled labels"] is True
    assert figures["parity_differences"] == 0
    assert figures["parity_rows"] > 35_000


def test_nobody_acts_in_the_loop(undisturbed):
    folder, _, _ = undisturbed
    with noria.open(folder) as project:
        verbs = {event.verb for event in project.ledger.list_events()}
    assert "person.asked" not in verbs


@pytest.mark.soak
def test_soak_ten_kills_over_the_whole_year(tmp_path, capsys):
    wanted, took_s = timed_demo(tmp_path / "undisturbed", until=None)
    found, instants = run_demo_with_kills(
        tmp_path / "killed", until=None, kills=10, seed=2013, undisturbed_s=took_s
    )
    with capsys.disabled():
        print(f"\nundisturbed {took_s:.0f} s; killed after {', '.join(f'{each:.1f}' for each in instants)} s")
        print(f"loop {wanted['loop']}, frozen {wanted['frozen']}, retrains {wanted['retrains']}")
    assert len(instants) == 10
    assert comparable(found) == comparable(wanted)
