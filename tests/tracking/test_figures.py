"""What many runs were called with and what came of it, read at once."""

import math

from noria.ledger.store import Ledger
from noria.records import RunState
from noria.tracking.figures import read_figures
from noria.tracking.runs import tracked_run


def test_runs_are_read_in_order_with_what_is_asked(either_ledger: Ledger) -> None:
    ids: list[str] = []
    for number in range(3):
        with tracked_run(
            either_ledger, "train", f"trial {number}", experiment="night", seed=number,
            parent=ids[0] if ids else None, params={"depth": number, "kinds": ["a", "b"]},
        ) as run:  # fmt: skip
            run.log_metrics({"auc": 0.5 + number / 10, "loss": math.nan, "other": -math.inf})
            run.put_tag("team", "näh")
        ids.append(run.id)
    with either_ledger.database.read() as connection:
        found = read_figures(connection, [ids[2], "nobody's", ids[0]], metrics=["auc", "loss"])
        whole = read_figures(connection, [ids[1]])
        bare = read_figures(connection, [ids[1]], metrics=[])
    assert [each.id for each in found] == [ids[2], ids[0]]
    last = found[0]
    assert (last.name, last.state, last.seed, last.parent) == ("trial 2", RunState.FINISHED, 2, ids[0])
    assert (last.params, last.tags) == ({"depth": "2", "kinds": '["a", "b"]'}, {"team": "näh"})
    assert (last.metrics["auc"], math.isnan(last.metrics["loss"]), len(last.metrics)) == (0.7, True, 2)
    assert (whole[0].metrics["other"], bare[0].metrics) == (-math.inf, {})
