"""What a monitor says of a window: pure judgements, and how often they are wrong."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import to_micros
from noria.errors import ConfigError
from noria.evaluation.scores import auc, brier, log_loss
from noria.monitoring.declarations import (
    Monitor,
    MonitorCheck,
    calibration,
    data_quality,
    drift,
    estimated_quality,
    quality,
    volume,
)
from noria.monitoring.judging import judge
from noria.monitoring.quality import measure
from noria.monitoring.records import CheckFinding, MonitorReport
from noria.monitoring.window import DAY_US, Past, WindowData
from noria.profiles.build import build_profile
from noria.profiles.records import Profile
from noria.records import Version, VersionId

NOW = datetime(2013, 6, 1, tzinfo=UTC)
NOW_US = to_micros(NOW)
MODEL = SimpleNamespace(name="late_arrival")
VERSION = Version(
    id=VersionId("project/model/late_arrival:3"),
    scope="project",
    kind="model",
    name="late_arrival",
    number=3,
    sha256="c" * 64,
    uri="x",
    run=None,
    facts={},
    at=NOW,
    recorded_at=NOW,
)
FloatArray = npt.NDArray[np.float64]


def outcomes(*, days: int = 14, per_day: int = 300, shift: float = 0.0, seed: int = 1) -> dict[str, Any]:
    """Calibrated scores with outcomes; `shift` makes outcomes more frequent than the scores say."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.5, 4.0, size=days * per_day)
    y = (rng.random(p.size) < np.clip(p + shift, 0, 1)).astype(np.float64)
    at = NOW_US - np.repeat(np.arange(days), per_day) * DAY_US - 1
    return {"y": y, "y_scores": p, "y_at": at}


def window(**changes: Any) -> WindowData:
    rng = np.random.default_rng(5)
    values: dict[str, Any] = {
        "version": VERSION,
        "environment": "production",
        "deployment": "late_arrival",
        "columns": {"distance": rng.normal(size=900), "carrier": rng.choice(["UA", "B6"], 900).tolist()},
        "scores": rng.beta(1.5, 4.0, size=900),
        **outcomes(),
    }
    return WindowData(**(values | changes))


@pytest.fixture(scope="module")
def profile() -> Profile:
    rng = np.random.default_rng(2)
    columns = {"distance": rng.normal(size=40_000), "carrier": rng.choice(["UA", "B6"], 40_000).tolist()}
    return build_profile(columns, window_rows=900)


def reference(data: Mapping[str, Any]) -> dict[str, float]:
    y, p = data["y"], data["y_scores"]
    return {"log_loss": log_loss(y, p), "auc": auc(y, p), "brier": brier(y, p)}


def report(
    check: MonitorCheck, data: WindowData, profile: Profile | None = None, **more: Any
) -> MonitorReport:
    values: dict[str, Any] = {"reference": reference(outcomes(seed=99)), "at": NOW} | more
    return judge(Monitor(MODEL, checks=[check]), data, profile=profile, **values)


def only(found: MonitorReport) -> CheckFinding:
    (finding,) = found.checks
    return finding


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc"])
def test_quality_that_holds_is_no_decay(metric: str) -> None:
    found = report(quality(metric), window())
    assert only(found).passed
    assert found.decay == ()
    assert found.metrics[f"{metric}_14d"] == pytest.approx(found.metrics[metric])


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc"])
def test_quality_that_fell_is_realized_decay_with_numbers(metric: str) -> None:
    data = outcomes()
    data["y_scores"] = np.random.default_rng(4).permutation(data["y_scores"])
    found = report(quality(metric), window(**data))
    (decay,) = found.decay
    assert (decay.kind, decay.metric, decay.rows, decay.streak) == ("realized", metric, 4_200, 1)
    assert decay.reference is not None
    worse = decay.value < decay.limit < decay.reference if metric == "auc" else decay.value > decay.limit
    assert worse
    assert f"{decay.value:.4g}" in decay.reason


def test_a_drop_within_its_error_is_no_decay_unless_asked() -> None:
    data = outcomes(days=6, per_day=300)
    rng = np.random.default_rng(2)
    lucky = np.repeat(rng.random(6) < 0.34, 300)  # two days are bad, four are good
    data["y"] = np.where(lucky, 1 - data["y"], data["y"])
    usual = {"log_loss": log_loss(data["y"], data["y_scores"]) - 0.05}
    careful = report(quality("log_loss", max_drop=0.01), window(**data), reference=usual)
    hasty = report(quality("log_loss", max_drop=0.01, confidence=0.5), window(**data), reference=usual)
    assert careful.decay == ()
    assert len(hasty.decay) == 1


def test_scores_out_of_calibration_are_realized_decay() -> None:
    assert only(report(calibration(), window())).passed
    (decay,) = report(calibration(), window(**outcomes(shift=0.15))).decay
    assert (decay.metric, decay.limit) == ("calibration", 0.8)
    assert decay.value < 0.8


def test_an_estimate_needs_its_windows_in_a_row() -> None:
    check = estimated_quality("auc", max_drop=0.03, days=3)
    flat = window(y_scores=np.random.default_rng(1).uniform(0.25, 0.35, size=4_200))
    for before, decays in ((0, 0), (1, 0), (2, 1)):
        past = Past(streaks={check.name: before} if before else {})
        found = report(check, flat, past=past)
        assert found.streaks == {check.name: before + 1}
        assert len(found.decay) == decays
    assert found.decay[0].kind == "estimated"
    assert report(check, window(), past=Past(streaks={check.name: 2})).streaks == {}


@pytest.mark.parametrize(
    ("check", "changes", "words"),
    [
        (quality("auc"), {"y": np.full(4_200, np.nan)}, "0 rows have an outcome"),
        (quality("auc"), {"y": np.ones(4_200)}, "the same"),
        (quality("log_loss"), {"y_at": np.full(4_200, NOW_US)}, "of one day"),
        (estimated_quality(), {"y": [], "y_scores": [], "y_at": []}, "0 scores"),
        (drift(), {}, "too few"),
        (data_quality(), {}, "no profile"),
        (volume(), {}, "0 windows are known"),
    ],
)
def test_what_cannot_be_judged_says_why(check: MonitorCheck, changes: dict[str, Any], words: str) -> None:
    found = report(check, window(**changes), past=Past(streaks={check.name: 2}))
    assert only(found).passed is None
    assert words in only(found).detail
    assert found.decay == ()
    assert not found.bad


def test_a_day_with_few_rows_is_bad_data_and_never_decay() -> None:
    data = outcomes(shift=0.3)
    monitor = Monitor(MODEL, checks=[quality("log_loss"), volume(), calibration()])
    past = Past(volumes=(900,) * 10)
    sound = judge(monitor, window(**data), profile=None, reference=reference(outcomes()), at=NOW, past=past)
    few = window(**data, rows=100)
    bad = judge(monitor, few, profile=None, reference=reference(outcomes()), at=NOW, past=past)
    assert len(sound.decay) == 2
    assert bad.bad
    assert bad.decay == ()
    assert "100 rows are outside 450 to 1800" in bad.reason
    assert "not judged: the window's data are bad" in bad.checks[0].detail


def test_a_column_that_went_missing_is_bad_data(profile: Profile) -> None:
    columns = dict(window().columns)
    columns["distance"] = np.where(np.arange(900) % 2 == 0, np.nan, columns["distance"])  # type: ignore[arg-type]
    found = report(data_quality(), window(columns=columns), profile)
    assert found.bad
    assert "distance is missing in 50.0% of rows, in training in 0.0%" in found.reason


def test_categories_never_seen_are_bad_data(profile: Profile) -> None:
    found = report(data_quality(), window(columns={"carrier": ["XX"] * 900}), profile)
    assert found.bad
    assert "100.0% of carrier was never seen in training" in found.reason


def test_rows_of_earlier_bad_days_do_not_count() -> None:
    data = outcomes()
    spoiled = data["y_at"] <= NOW_US - 3 * DAY_US
    spoiled &= data["y_at"] > NOW_US - 5 * DAY_US
    data["y"] = np.where(spoiled, 1 - data["y"], data["y"])
    bad = ((NOW_US - 5 * DAY_US, NOW_US - 3 * DAY_US),)
    check = quality("log_loss", max_drop=0.05, confidence=0.5)
    assert report(check, window(**data)).decay
    found = report(check, window(**data), past=Past(bad=bad))
    assert found.decay == ()
    assert found.labelled == 12 * 300


def test_drift_alone_is_found_but_is_no_decay(profile: Profile) -> None:
    columns = {"distance": np.random.default_rng(3).normal(0.5, size=900)}
    monitor = Monitor(MODEL)
    found = judge(monitor, window(columns=columns), profile=profile, reference=reference(outcomes()), at=NOW)
    assert [each.column for each in found.drift] == ["distance"]
    assert found.drift[0].value > found.drift[0].limit
    assert found.decay == ()
    assert not found.bad


def test_drift_that_has_to_last_waits(profile: Profile) -> None:
    moved = window(columns={"distance": np.random.default_rng(3).normal(0.5, size=900)})
    first = report(drift(days=2), moved, profile)
    assert first.drift == ()
    assert first.streaks == {"drift": 1}
    assert report(drift(days=2), moved, profile, past=Past(streaks={"drift": 1})).drift


def test_unchanged_windows_alarm_no_more_often_than_said() -> None:
    """30 columns, 150 unchanged windows, alpha .05 over all columns: 7.5 alarms expected at most."""
    rng = np.random.default_rng(11)
    names = [f"f{number}" for number in range(30)]
    stored = build_profile({name: rng.normal(size=30_000) for name in names}, window_rows=600)
    alarms = sum(
        bool(
            report(drift(alpha=0.05), window(columns={n: rng.normal(size=600) for n in names}), stored).drift
        )
        for _ in range(150)
    )
    assert alarms <= 13  # 97.5 % of a binomial with 150 trials at .05


def test_unchanged_quality_decays_no_more_often_than_said() -> None:
    """max_drop 0 leaves the confidence alone: 5 % of unchanged windows, days alike or not."""
    found = 0
    for seed in range(200):
        data = outcomes(per_day=100, seed=seed)
        truth = {"log_loss": expected_log_loss(data["y_scores"])}
        found += bool(report(quality("log_loss", max_drop=0.0), window(**data), reference=truth).decay)
    assert 2 <= found <= 22  # about 10, and 14 days make a standard error of their own


def expected_log_loss(p: FloatArray) -> float:
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=40
    ).filter(lambda rows: 0 < sum(row[0] for row in rows) < len(rows))
)
def test_measures_agree_with_evaluation_and_errors_count_clusters(rows: list[tuple[bool, int, int]]) -> None:
    y = np.array([row[0] for row in rows], dtype=np.float64)
    p = np.array([row[1] for row in rows]) / 20
    day = np.array([row[2] for row in rows])
    for metric, plain in (("log_loss", log_loss), ("brier", brier), ("auc", auc)):
        found = measure(metric, y, p, cluster=day)
        assert found.value == pytest.approx(plain(y, p))
        assert found.error >= 0
        doubled = measure(metric, np.tile(y, 2), np.tile(p, 2), cluster=np.tile(day, 2))
        assert doubled.value == pytest.approx(found.value)
        assert doubled.error == pytest.approx(found.error)  # the same days again say nothing new


def test_declarations_refuse_what_cannot_be_judged() -> None:
    for make in (
        lambda: quality("rmse"),
        lambda: quality("auc", window="soon"),
        lambda: calibration(low=1.1),
        lambda: drift(alpha=0),
        lambda: volume(low=2.0),
        lambda: estimated_quality("brier"),
        lambda: data_quality(max_unseen=2.0),
        lambda: Monitor(MODEL, checks=[drift(), drift()]),
        lambda: Monitor(MODEL, checks=[quality("auc", window="30d")]),
        lambda: Monitor(MODEL, checks=["drift"]),  # type: ignore[list-item]
        lambda: Monitor(MODEL, every="daily"),
    ):
        with pytest.raises(ConfigError):
            make()
