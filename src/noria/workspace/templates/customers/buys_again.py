"""Learn from outcomes known when 1998 begins, predict its first four months: `python buys_again.py`.

Three ways are scored on the same questions: one rate for everybody, a model that sees only how long ago the
last purchase was, and one that sees the whole view.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from customers import customer, examples
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import noria

TODAY = datetime(1998, 1, 1, tzinfo=UTC)


class Score(NamedTuple):
    """How good one way is on questions asked after `TODAY`."""

    way: str
    auc: float
    log_loss: float


def scores(data: pa.Table) -> list[Score]:
    """Fit on what was known today, and score what was asked from then on."""
    learn = data.filter(pc.field("outcome_at") <= TODAY)
    judge = data.filter(pc.field("asked_at") >= TODAY)
    label, truth = (np.asarray(rows["again"]).astype(int) for rows in (learn, judge))

    def score(way: str, *columns: str) -> Score:
        def inputs(rows: pa.Table) -> np.ndarray:
            return np.log1p(np.column_stack([rows[each] for each in columns]))

        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs(learn), label)
        chance = model.predict_proba(inputs(judge))[:, 1]
        return Score(way, float(roc_auc_score(truth, chance)), float(log_loss(truth, chance)))

    rate = np.full(len(truth), label.mean())
    return [
        Score("one rate for everybody", 0.5, float(log_loss(truth, rate))),
        score("time since the last purchase", "customer__since_minutes"),
        score("the whole view", *customer.columns)]


if __name__ == "__main__":
    with noria.open(Path(__file__).parent) as project:
        project.ingest("purchases")  # the same content lands once
        for each in scores(examples(project)):
            print(f"{each.way:30} AUC {each.auc:.4f}   log loss {each.log_loss:.4f}")
