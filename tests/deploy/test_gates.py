"""Gates: what they let in, what they say of what they keep out."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.deploy.declarations import (
    Canary,
    Gate,
    at_least,
    at_most,
    beats_production,
    latency,
    no_leakage,
    samples_reproduced,
)
from noria.deploy.gates import GateEvidence, enter, find_admission, judge, require_passed
from noria.errors import ConfigError, Conflict, GateRefused
from noria.features.statistics.records import Suspicion
from noria.ledger.store import Ledger

FloatArray = npt.NDArray[np.float64]
DAY_US = 86_400_000_000
NOW = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(NOW))


def rows(
    *, days: int = 14, per_day: int = 200, seed: int = 1
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Outcomes, their true probabilities, and instants."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(1.5, 4.0, size=days * per_day)
    at = np.repeat(np.arange(days), per_day) * DAY_US + 1
    return (rng.random(truth.size) < truth).astype(np.float64), truth, at


def evidence(**changes: object) -> GateEvidence:
    y, truth, at = rows()
    values = {
        "y": y,
        "at": at,
        "challenger": truth,
        "production": np.full(truth.size, truth.mean()),
        "base_rate": 0.27,
        "data_version": "landings:90",
    }
    return GateEvidence(**(values | changes))  # type: ignore[arg-type]  # a table of fields


BEATS = Gate("production_gate", checks=[beats_production("log_loss")])


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc"])
def test_a_better_version_passes(metric: str) -> None:
    result = judge(Gate("g", checks=[beats_production(metric)]), evidence())
    check = result.checks[0]
    assert result.passed
    assert check.low is not None
    assert check.value is not None
    assert 0 < check.low < check.value


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc"])
def test_a_version_trained_on_shuffled_labels_is_refused_with_numbers(metric: str) -> None:
    _, truth, _ = rows()
    shuffled = np.random.default_rng(9).permutation(truth)
    gate = Gate("production_gate", checks=[beats_production(metric)])
    result = judge(gate, evidence(challenger=shuffled, production=truth, production_version="late_arrival:1"))
    assert not result.passed
    (reason,) = result.reasons
    assert f"beats_production({metric})" in reason
    assert "landings:90" in reason
    assert "worse than production (late_arrival:1)" in reason
    assert result.reason.startswith("refused by production_gate")


def test_the_same_scores_do_not_beat_themselves() -> None:
    _, truth, _ = rows()
    assert not judge(BEATS, evidence(production=truth)).passed


def test_a_tolerance_lets_the_same_scores_in_where_asked() -> None:
    _, truth, _ = rows()
    gate = Gate(checks=[beats_production("log_loss", tolerance=0.001)])
    assert judge(gate, evidence(production=truth)).passed


def test_a_better_version_below_the_minimum_effect_is_refused() -> None:
    gate = Gate(checks=[beats_production("log_loss", min_effect=0.5)])
    result = judge(gate, evidence())
    assert not result.passed
    assert "minimum effect 0.5" in result.reasons[0]


def test_the_first_version_is_compared_with_the_base_rate() -> None:
    result = judge(BEATS, evidence(production=None))
    assert result.passed
    assert "the base rate 0.27" in result.checks[0].detail


def test_only_recent_labelled_rows_are_compared() -> None:
    y, truth, at = rows(days=30)
    y[-200:] = np.nan  # the newest day: nothing has landed yet
    spoiled = truth.copy()
    spoiled[at < at.max() - 14 * DAY_US] = 0.999  # long ago it was bad; nobody asks
    result = judge(BEATS, evidence(y=y, at=at, challenger=spoiled, production=np.full(y.size, 0.27)))
    assert result.passed
    assert result.checks[0].rows == 13 * 200
    assert result.unlabelled == 200


def test_days_count_for_more_than_rows() -> None:
    """A version that was better on some days and worse on others by chance has not proved itself."""
    y, _, at = rows(days=6, per_day=2_000)
    rng = np.random.default_rng(3)
    luck = np.repeat(rng.choice([-1.0, 1.0], size=6) * 0.3, 2_000)
    production = np.full(y.size, y.mean())
    challenger = np.clip(production + luck * (y - production) + 0.01 * (y - 0.5), 0.01, 0.99)
    check = judge(BEATS, evidence(y=y, at=at, challenger=challenger, production=production)).checks[0]
    assert check.low is not None
    assert check.high is not None
    assert check.low < 0 < check.high


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y": np.full(2_800, np.nan)}, "only 0 labelled rows"),
        ({"at": np.ones(2_800, dtype=np.int64)}, "of one day"),
    ],
)
def test_too_little_to_compare_is_refused(changes: dict[str, object], words: str) -> None:
    result = judge(BEATS, evidence(**changes))
    assert not result.passed
    assert words in result.reasons[0]


def test_an_empty_gate_and_a_foreign_check_are_refused() -> None:
    with pytest.raises(ConfigError, match="no checks"):
        Gate("open", checks=[])
    with pytest.raises(ConfigError, match="is no check of a gate"):
        Gate("odd", checks=["log_loss"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="no metric to compare"):
        beats_production("rmse")
    with pytest.raises(ConfigError, match="share"):
        Canary(share=1.0)


def test_plain_checks_name_value_and_limit() -> None:
    gate = Gate(
        "g",
        checks=[
            latency(p99_ms=50),
            samples_reproduced(),
            at_least("auc", 0.7),
            at_most("log_loss", 0.5),
        ],
    )
    good = judge(
        gate,
        evidence(latency_ms=[3.0] * 99, samples_difference=0.0, metrics={"auc": 0.76, "log_loss": 0.46}),
    )
    assert good.passed
    bad = judge(
        gate,
        evidence(latency_ms=[3.0] * 90 + [80.0] * 10, samples_difference=0.2, metrics={"auc": 0.6}),
    )
    assert [check.passed for check in bad.checks] == [False] * 4
    assert [check.limit for check in bad.checks] == [50, 1e-6, 0.7, 0.5]
    assert "there is no metric log_loss" in bad.reasons[3]


def test_what_was_not_measured_is_no_pass() -> None:
    gate = Gate(checks=[latency(p99_ms=50), samples_reproduced(), at_least("auc", 0.7)])
    assert not any(check.passed for check in judge(gate, evidence()).checks)


def test_entering_is_on_record_once_and_admits_that_digest(ledger: Ledger) -> None:
    version = ledger.record_version("model", "late_arrival", sha256="a" * 64, uri="x")
    other = ledger.record_version("model", "late_arrival", sha256="b" * 64, uri="x")
    result = judge(BEATS, evidence())
    event = enter(ledger, BEATS, result, version=version, environment="production", key="gate:1", at=NOW)
    again = enter(ledger, BEATS, result, version=version, environment="production", key="gate:1", at=NOW)
    assert (event.verb, again.id) == ("gate.passed", event.id)
    assert event.payload["data_version"] == "landings:90"
    assert event.payload["checks"][0]["name"] == "beats_production(log_loss)"
    assert find_admission(ledger, version, environment="production") == event
    assert find_admission(ledger, version, environment="staging") is None
    assert find_admission(ledger, other, environment="production") is None
    assert require_passed(event) == event


def test_a_refusal_is_recorded_and_raised_with_its_reasons(ledger: Ledger) -> None:
    version = ledger.record_version("model", "late_arrival", sha256="a" * 64, uri="x")
    passed = enter(
        ledger, BEATS, judge(BEATS, evidence()), version=version, environment="production", key="1"
    )
    worse = judge(BEATS, evidence(challenger=np.full(2_800, 0.9)))
    event = enter(ledger, BEATS, worse, version=version, environment="production", key="2", cause=passed.id)
    assert event.verb == "gate.refused"
    assert find_admission(ledger, version, environment="production") is None  # the newest judgement counts
    with pytest.raises(
        GateRefused, match=r"late_arrival:1 may not enter production: beats_production.*landings:90"
    ):
        require_passed(event)
    with pytest.raises(Conflict):
        enter(ledger, BEATS, worse, version=version, environment="production", key="1")


LEAK = Suspicion(
    feature="trips__last", rule="predicts_too_well", value=0.993, limit=0.95, detail="alone it ranks too well"
)


def test_a_suspicious_feature_is_refused_with_its_name_value_and_limit() -> None:
    gate = Gate("production_gate", checks=[no_leakage()])
    result = judge(gate, evidence(suspicions=[LEAK]))
    assert not result.passed
    assert (result.checks[0].value, result.checks[0].limit) == (0.993, 0.95)
    assert result.reason == (
        "refused by production_gate: no_leakage on landings:90: "
        "trips__last (predicts_too_well): alone it ranks too well"
    )


def test_a_suspicion_can_be_allowed_by_name_and_no_other() -> None:
    allowed = Gate("g", checks=[no_leakage(allow=["trips__last"])])
    assert judge(allowed, evidence(suspicions=[LEAK])).passed
    assert not judge(Gate("g", checks=[no_leakage(allow=["other"])]), evidence(suspicions=[LEAK])).passed
    with pytest.raises(ConfigError, match="give a list of features"):
        no_leakage(allow="trips__last")


def test_features_that_were_not_looked_at_do_not_pass() -> None:
    result = judge(Gate("g", checks=[no_leakage()]), evidence())
    assert not result.passed
    assert "were not looked at" in result.reason
    assert judge(Gate("g", checks=[no_leakage()]), evidence(suspicions=())).passed
