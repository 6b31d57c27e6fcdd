"""The explanation that a training keeps of its model, and what happens where there can be none."""

from pathlib import Path
from typing import Any

import pytest

from noria.errors import NotFound
from noria.training import explanations
from noria.training.engine import build_training_set
from noria.training.explanations import find_explanation, read_explanation

from .parcel_project import HOLDOUT_FROM, UNTIL, Bench, declare, make_rows


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_explanation_that_cannot_be_computed_takes_no_model_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("somewhere in the trees")

    data = build_training_set(declare(), *make_rows(3_000), until=UNTIL, holdout_from=HOLDOUT_FROM)
    with monkeypatch.context() as broken:
        broken.setattr(explanations, "explain_model", break_down)
        fitted = bench.fit(declare(), data, key="broken")
    assert bench.registry.load(fitted.version).sample_error() == 0
    assert find_explanation(bench.ledger, fitted.version) is None
    with pytest.raises(NotFound) as missing:
        read_explanation(bench.ledger, bench.registry, fitted.version)
    assert "somewhere in the trees" in missing.value.__notes__[0]
    again = bench.fit(declare(), data, key="another")  # the same model; this time it is explained
    assert again.version == fitted.version
    assert read_explanation(bench.ledger, bench.registry, again.version).model == fitted.version.sha256
