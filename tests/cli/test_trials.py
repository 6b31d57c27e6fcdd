"""`noria deploy --ab`, `noria trial`, and what `noria status` says of a trial."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import noria
from noria.deploy.trials import find_trial
from noria.serving.counts import RouteCounts
from noria.workspace.trials.judging import judge_trial

Say = Callable[..., Any]
SETTINGS = """\
[project]
name = "tried"
modules = ["offers"]
[environments.production]
"""
DECLARED = """\
from noria.deploy import ABTest, Bandit

spring = ABTest(name="spring", metric="conversion", min_effect=0.05, sticky="customer", weights=(2, 1, 1))
quick = ABTest(name="quick", metric="latency_ms", min_effect=0.1, max_days=0.000_001)
by_header = ABTest(name="by_header", metric="conversion", min_effect=0.05, sticky="header:x-user")
prices = Bandit(name="prices", metric="value")


class Half:
    def predict(self, rows):
        return rows["x"] * 0.5


class Third:
    def predict(self, rows):
        return rows["x"] / 3


class Fourth:
    def predict(self, rows):
        return rows["x"] / 4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tried"
    root.mkdir()
    (root / "noria.toml").write_text(SETTINGS)
    (root / "offers.py").write_text(DECLARED)
    with noria.open(root) as project:
        declared = project.declarations.modules["offers"]
        for name in ("Half", "Third", "Fourth"):
            project.models.register(getattr(declared, name), name="late", example={"x": [0.0]})
        project.deploy("late:1", to="production")
    return root


def test_a_test_of_three_is_begun_and_shown(say: Say, folder: Path) -> None:
    at = ("--project", folder)
    said = say("deploy", "late:2@production", "--ab", "spring", *at)
    assert said.code != 0
    assert "3 weights and 2 releases" in said.err
    said = say("deploy", "late:2@production", "--ab", "spring", "--beside", "late:3", *at)
    assert "test 'spring' of production/late: late:1 50%, late:2 25%, late:3 25%." in said.out
    shown = say("trial", "late@production", *at).out
    assert "A/B test 'spring' at late@production since" in shown
    assert "an arm has 0; 200 are needed" in " ".join(shown.split())
    found = json.loads(say("trial", "late@production", "--json", *at).out)
    assert (found["kind"], found["shares"]) == (
        "A/B test", {"late:1": 0.5, "late:2": 0.25, "late:3": 0.25},
    )  # fmt: skip
    assert found["found"]["decision"] == "continue"
    assert say("rollback", "late@production", *at).code == 0
    assert "no trial named 'late@production'" in say("trial", "late@production", *at).err


def test_a_bandit_is_begun_and_a_test_of_counts_ends_by_its_days(say: Say, folder: Path) -> None:
    at = ("--project", folder)
    begun = json.loads(say("deploy", "late:2@production", "--ab", "prices", "--json", *at).out)
    assert begun["shares"] == {"late:1": 0.5, "late:2": 0.5}
    assert "bandit 'prices'" in say("trial", "late@production", *at).out
    say("rollback", "late@production", *at)
    say("deploy", "late:2@production", "--ab", "quick", *at)
    assert "nothing is judged yet" in say("trial", "late@production", *at).out
    with noria.open(folder) as project:
        trial = find_trial(project.ledger, environment="production", deployment="late")
        assert trial is not None
        counts = RouteCounts(route=trial.route.number)
        for release in ("late:1", "late:2"):
            counts.of(release).observe(1, 900)
        other = RouteCounts(route=trial.route.number - 1, releases=counts.releases)
        now = datetime.now(UTC) + timedelta(seconds=1)
        assert judge_trial(project, "production", "late", counts=None, now=now) is None
        assert judge_trial(project, "production", "late", counts=other, now=now) is None
        ended = judge_trial(project, "production", "late", counts=counts, now=now)
        assert ended is not None
        assert "the test ends after 1e-06 days" in ended.pointer.reason
        assert ended.pointer.stable


def test_status_tells_what_the_last_look_found(say: Say, folder: Path) -> None:
    at = ("--project", folder)
    say("deploy", "late:2@production", "--canary", "0.25", *at)
    with noria.open(folder) as project:
        for hours in (30, 31):  # of one day one look is put on record
            now = datetime.now(UTC) + timedelta(hours=hours)
            assert judge_trial(project, "production", "late", counts=None, now=now) is None
        assert len(project.ledger.list_events(verb="canary.continued")) == 1
    told = " ".join(say("status", *at).out.split())
    assert "On trial at production/late: canary of late:2 in production/late: after 1.25 days 0" in told
    with noria.open(folder) as project:
        now = datetime.now(UTC) + timedelta(days=13)
        ended = judge_trial(project, "production", "late", counts=None, now=now)
        assert ended is not None
        assert "the trial ends after 12 days and production stays" in ended.pointer.reason
    assert "On trial at" not in say("status", *at).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("late:2@production", "--ab", "autumn"), "no A/B test or bandit named 'autumn'"),
        (("late:2@production", "--ab", "by_header"), "headers are not logged"),
        (("late:2@production", "--ab", "spring", "--canary", "0.1"), "choose one"),
        (("late:2@production", "--beside", "late:3"), "name the test by --ab"),
        (("late:1@production", "--ab", "prices"), "there is nothing to try"),
    ],
)
def test_what_cannot_be_tried_is_said(say: Say, folder: Path, words: tuple[str, ...], told: str) -> None:
    said = say("deploy", *words, "--project", folder)
    assert said.code != 0
    assert told in said.err
