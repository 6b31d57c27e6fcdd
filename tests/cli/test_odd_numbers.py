"""Metrics that are no numbers of JSON: `--json` tells them apart from what is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import noria

from .conftest import Said


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    odd = {"loss": float("nan"), "gain": float("inf"), "least": float("-inf"), "auc": 0.5}
    with noria.open(tmp_path) as project:
        with project.start_run("one", system_metrics=False) as one:
            one.log_metrics(odd)
        with project.start_run("other", system_metrics=False) as other:
            other.log_metric("auc", 0.5)
    return one.id, other.id


def test_nan_and_infinities_are_texts_and_what_is_missing_is_null(
    say: Callable[..., Said], runs: tuple[str, str], tmp_path: Path
) -> None:
    one, other = runs
    told = {"loss": "NaN", "gain": "Infinity", "least": "-Infinity"}
    found = {
        each["run"]: each for each in json.loads(say("run", "search", "--json", "--project", tmp_path).out)
    }
    for name, text in told.items():
        assert found[one][f"metrics.{name}"] == text
        assert found[other][f"metrics.{name}"] is None
    assert found[one]["metrics.auc"] == 0.5
    shown = json.loads(say("run", "show", one, "--json", "--project", tmp_path).out)
    assert shown["run"]["metrics"] == {**told, "auc": 0.5}
    differing = json.loads(say("run", "diff", one, other, "--json", "--project", tmp_path).out)
    assert differing["metrics"] == {name: [text, None] for name, text in told.items()}
    listed = json.loads(say("run", "list", "--kind", "experiment", "--json", "--project", tmp_path).out)
    assert [each["metrics"].get("loss") for each in listed] == [None, "NaN"]
