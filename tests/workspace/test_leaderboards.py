"""What was tried, ranked: which runs repeat one another, and how sure the order is."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Said, say

import noria as library
from noria.errors import BadFilter, ConfigError, NotFound
from noria.evaluation.repeats import repeat_interval, unpaired_interval
from noria.tracking.runs import tracked_run

__all__ = ["say"]  # a fixture

Say = Callable[..., Said]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[library.Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    with library.open(tmp_path) as opened:
        yield opened


def log(
    project: library.Project,
    params: dict[str, Any],
    metrics: dict[str, float],
    *,
    seed: int | None = None,
    parent: str | None = None,
    name: str = "trial",
    tags: dict[str, str] | None = None,
    experiment: str = "night",
) -> str:
    with tracked_run(
        project.ledger, "train", name, experiment=experiment, seed=seed, parent=parent, params=params
    ) as run:
        run.log_metrics(metrics)
        for each, value in (tags or {}).items():
            run.put_tag(each, value)
    return run.id


def log_seeds(project: library.Project, depth: int, values: list[float]) -> list[str]:
    return [
        log(project, {"depth": depth, "rate": 0.1}, {"auc": each}, seed=at) for at, each in enumerate(values)
    ]


def test_seeds_repeat_one_configuration_and_differences_are_paired_by_them(project: library.Project) -> None:
    worse, better = [0.70, 0.80, 0.75], [0.72, 0.82, 0.775]
    log_seeds(project, 2, worse)
    ids = log_seeds(project, 8, better)
    board = project.runs.leaderboard("auc")
    assert board.column_names[:5] == ["rank", "params.depth", "mean", "sd", "n"]
    first, second = board.to_pylist()
    assert (first["params.depth"], first["rank"], first["n"], first["mean"]) == (
        "8",
        1,
        3,
        pytest.approx(0.7716667),
    )
    assert (first["best_run"], first["best_value"], first["compared"]) == (ids[1], 0.82, "the best")
    assert (first["difference"], first["ties_with_best"]) == (None, True)
    wanted = repeat_interval([one - other for one, other in zip(worse, better, strict=True)])
    assert wanted is not None
    assert (second["rank"], second["pairs"], second["compared"]) == (2, 3, "paired by seed")
    assert (second["difference"], second["difference_low"], second["difference_high"]) == pytest.approx(
        (wanted.mean, wanted.low, wanted.high)
    )
    assert second["ties_with_best"] is False  # though the intervals of the means overlap by far
    assert second["high"] > first["low"]
    told = {name.decode(): value.decode() for name, value in board.schema.metadata.items()}
    assert told["direction"] == "higher is better, guessed from 'auc' in its name"
    assert json.loads(told["same"]) == {"params.rate": "0.1"}
    assert (told["runs"], told["without"]) == ("6", "0")


def test_folds_nested_in_a_run_are_grouped_by_what_it_says(project: library.Project) -> None:
    for model, plus in (("trees", 0.1), ("linear", 0.0)):
        parent = log(project, {"model": model}, {"auc": 0.6 + plus}, name=model)
        for fold in range(4):
            log(project, {"fold": fold}, {"auc": 0.6 + plus + fold / 100}, parent=parent, name=f"fold {fold}")
    first, second = project.runs.leaderboard("auc").to_pylist()
    assert (first["params.model"], first["n"], first["mean"]) == ("trees", 4, pytest.approx(0.715))
    assert second["compared"] == "paired by fold"
    assert second["difference"] == pytest.approx(-0.1)
    wanted = repeat_interval([0.7, 0.71, 0.72, 0.73], overlap=1 / 3, bounds=(0, 1))
    assert wanted is not None
    assert (first["low"], first["high"]) == pytest.approx((wanted.low, wanted.high))


def test_what_ran_once_has_no_interval_and_what_shares_no_seed_is_compared_by_welch(
    project: library.Project,
) -> None:
    for seed in (1, 2, 3):
        log(project, {"depth": 1}, {"loss": 0.1 + seed / 100}, seed=seed)
        log(project, {"depth": 2}, {"loss": 0.2 + seed / 100}, seed=seed + 10)
    log(project, {"depth": 3}, {"loss": 0.5})
    board = project.runs.leaderboard("loss")
    assert [each["params.depth"] for each in board.to_pylist()] == ["1", "2", "3"]
    assert board["compared"].to_pylist() == ["the best", "unpaired, Welch", "not: one of them ran once"]
    assert board["ties_with_best"].to_pylist() == [True, False, None]
    assert (board["low"].to_pylist()[2], board["sd"].to_pylist()[2]) == (None, None)


def test_folds_with_other_seeds_are_paired_by_fold_and_unpaired_ones_corrected(
    project: library.Project,
) -> None:
    easy = (0.0, 0.1, 0.2, 0.3)
    for fold, plus in enumerate(easy):
        log(project, {"depth": 2, "fold": fold}, {"auc": 0.5 + plus}, seed=1)
        log(project, {"depth": 4, "fold": fold}, {"auc": 0.51 + plus + fold / 1_000}, seed=2)
        log(project, {"depth": 1, "fold": f"of others {fold}"}, {"auc": 0.4 + plus}, seed=1)
    _, paired, apart = project.runs.leaderboard("auc").to_pylist()
    assert (paired["compared"], paired["pairs"], paired["ties_with_best"]) == ("paired by fold", 4, False)
    wanted = repeat_interval([-0.01, -0.011, -0.012, -0.013], overlap=1 / 3)
    assert wanted is not None
    assert (paired["difference_low"], paired["difference_high"]) == pytest.approx((wanted.low, wanted.high))
    best = [0.51 + plus + fold / 1_000 for fold, plus in enumerate(easy)]
    welch = unpaired_interval([0.4 + plus for plus in easy], best, overlaps=(1 / 3, 1 / 3))
    assert welch is not None
    assert (apart["compared"], apart["pairs"]) == ("unpaired, Welch", 0)
    assert (apart["difference_low"], apart["difference_high"]) == pytest.approx((welch.low, welch.high))


@pytest.mark.parametrize("fixed", ["a_seed", "split_seed", "model__random_state"])
def test_a_seed_that_is_the_same_throughout_does_not_hide_the_one_that_varies(
    project: library.Project, fixed: str
) -> None:
    for seed in range(3):
        log(project, {"depth": 1, fixed: 42}, {"auc": 0.5 + seed / 10}, seed=seed)
        log(project, {"depth": 2, "seed": seed, fixed: 7}, {"auc": 0.6 + seed / 10})
    best, other = project.runs.leaderboard("auc").to_pylist()
    assert (best["n"], other["n"], other["pairs"], other["compared"]) == (3, 3, 3, "paired by seed")


def test_runs_of_several_experiments_are_no_repeats_of_one_another(project: library.Project) -> None:
    for experiment, plus in (("night", 0.0), ("day", 0.2)):
        for seed in range(2):
            log(project, {"depth": 1}, {"auc": 0.5 + plus + seed / 100}, seed=seed, experiment=experiment)
    best, other = project.runs.leaderboard("auc").to_pylist()
    assert [(each["experiment"], each["n"]) for each in (best, other)] == [("day", 2), ("night", 2)]
    (merged,) = project.runs.leaderboard("auc", by="params.depth").to_pylist()
    assert merged["n"] == 2  # as was asked: one each seed
    (day, _) = project.runs.leaderboard("auc", by="experiment").to_pylist()
    assert day["experiment"] == "day"


def test_runs_that_sum_up_at_any_depth_do_not_count_beside_what_they_sum_up(project: library.Project) -> None:
    top = log(project, {"depth": 1}, {"auc": 0.9})
    middle = log(project, {}, {"loss": 1.0}, parent=top)
    for fold in range(2):
        log(project, {"fold": fold}, {"auc": 0.5}, parent=middle)
    (place,) = project.runs.leaderboard("auc", by="params.depth").to_pylist()
    assert (place["n"], place["mean"]) == (2, 0.5)


def test_figures_whose_squares_are_none_are_left_out(project: library.Project, say: Say) -> None:
    for seed in range(3):
        log(project, {"depth": 1}, {"loss": 1.7976931348623157e308}, seed=seed)
        log(project, {"depth": 1}, {"loss": -1.7976931348623157e308}, seed=seed)
        log(project, {"depth": 2}, {"loss": 1e150 if seed else 1.0}, seed=seed)
    (place,) = project.runs.leaderboard("loss").to_pylist()
    assert (place["params.depth"], place["n"], math.isfinite(place["high"])) == ("2", 3, True)
    shown = say("run", "leaderboard", "loss", "--project", project.root).out
    assert "1 configuration" in shown


def test_a_seed_that_ran_twice_is_one_repeat(project: library.Project) -> None:
    for value in (0.5, 0.7):
        log(project, {"depth": 1}, {"auc": value}, seed=1)
    log(project, {"depth": 1}, {"auc": 0.8}, seed=2)
    (place,) = project.runs.leaderboard("auc", by="params.depth").to_pylist()
    assert (place["params.depth"], place["n"], place["mean"]) == ("1", 2, pytest.approx(0.7))


def test_values_that_are_not_finite_are_left_out_and_told(project: library.Project, say: Say) -> None:
    for seed, value in enumerate((0.5, math.nan, math.inf, 0.7)):
        log(project, {"depth": 1}, {"auc": value}, seed=seed)
    log(project, {"depth": 2}, {"auc": math.nan})
    log(project, {"depth": 2}, {"loss": 1.0})
    board = project.runs.leaderboard("auc")
    (place,) = board.to_pylist()
    assert (place["n"], place["left_out"], place["mean"]) == (2, 2, pytest.approx(0.6))
    assert (board.schema.metadata[b"unranked"], board.schema.metadata[b"without"]) == (b"1", b"1")
    shown = say("run", "leaderboard", "auc", "--project", project.root).out
    assert "Without auc: 1 run." in shown
    told = "NaN, infinite or too large, and left out: 2 values, beside 1 configuration with no others."
    assert told in " ".join(shown.split())


def test_runs_without_parameters_are_told_apart_by_their_names(project: library.Project) -> None:
    for name in ("trees", "trees", "linear"):
        log(project, {}, {"auc": 0.5 if name == "linear" else 0.8}, name=name)
    board = project.runs.leaderboard("auc")
    assert [(each["name"], each["n"]) for each in board.to_pylist()] == [("trees", 2), ("linear", 1)]


def test_means_that_differ_by_rounding_alone_are_equal(project: library.Project) -> None:
    for model, values in (("a", (0.1, 0.5)), ("b", (0.3, 0.1 + 0.2))):
        for value in values:
            log(project, {"model": model}, {"auc": value})
    board = project.runs.leaderboard("auc").to_pylist()
    assert board[0]["mean"] != board[1]["mean"]
    assert [each["rank"] for each in board] == [1, 1]
    assert board[1]["difference"] == 0


def test_tags_that_name_a_model_tell_configurations_apart_and_others_do_not(project: library.Project) -> None:
    for model, who in (("a", "x"), ("a", "y"), ("b", "x")):
        log(project, {"depth": 1}, {"auc": 0.5}, tags={"model": model, "who": who})
    board = project.runs.leaderboard("auc")
    assert [(each["tags.model"], each["rank"]) for each in board.to_pylist()] == [("a", 1), ("b", 1)]
    by_who = project.runs.leaderboard("auc", by=["tags.who"])
    assert [(each["tags.who"], each["n"]) for each in by_who.to_pylist()] == [("x", 2), ("y", 1)]


def test_only_what_is_finished_counts_unless_the_filter_says(project: library.Project) -> None:
    log(project, {"depth": 1}, {"auc": 0.5})
    with (
        pytest.raises(RuntimeError),
        tracked_run(project.ledger, "train", "broken", experiment="night") as run,
    ):
        run.log_metrics({"auc": 0.9})
        raise RuntimeError("stop")
    assert project.runs.leaderboard("auc")["mean"].to_pylist() == [0.5]
    assert project.runs.leaderboard("auc", filter="attributes.status = 'FAILED'")["mean"].to_pylist() == [0.9]
    assert project.runs.leaderboard("auc", experiments="Default").num_rows == 0


def test_what_is_asked_badly_is_refused(project: library.Project) -> None:
    log(project, {"depth": 1}, {"auc": 0.5, "answer": 42.0})
    with pytest.raises(ConfigError, match="does not tell whether more of it is better"):
        project.runs.leaderboard("answer")
    assert project.runs.leaderboard("answer", higher_is_better=False).num_rows == 1
    with pytest.raises(NotFound, match="did you mean 'auc'"):
        project.runs.leaderboard("aucc")
    with pytest.raises(ConfigError, match=r"write params\.NAME"):
        project.runs.leaderboard("auc", by="depth")
    with pytest.raises(NotFound, match=r"did you mean 'params\.depth'"):
        project.runs.leaderboard("auc", by=["params.dept"])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        project.runs.leaderboard("auc", level=95)
    with pytest.raises(BadFilter):
        project.runs.leaderboard("auc", filter="metrics.auc >")


def test_the_commands_tell_as_python_does(project: library.Project, say: Say) -> None:
    log_seeds(project, 2, [0.70, 0.80, 0.75])
    log_seeds(project, 8, [0.72, 0.81, 0.78])
    log(project, {"depth": 9, "rate": 0.1}, {"auc": 0.99}, name="</script>")
    where = ("--project", project.root)
    shown = say("run", "leaderboard", "auc", *where).out
    assert "The first ran once: repeat it" in shown
    few = say("run", "leaderboard", "auc", "--filter", "params.depth != '9'", "--limit", "1", *where).out
    assert "and 1 more; --limit 0 gives all" in few
    assert "The same in all: params.rate 0.1." in few
    found = json.loads(say("run", "leaderboard", "auc", "--lower-is-better", "--json", *where).out)
    assert [each["what"]["params.depth"] for each in found["places"]] == ["2", "8", "9"]
    assert found["direction"] == "lower is better, as was asked"
    refused = say("run", "leaderboard", "answer", *where)
    assert (refused.code, "no metric named 'answer'" in refused.err) == (3, True)


def test_importance_counts_repeats_once(project: library.Project, say: Say) -> None:
    for depth in range(24):
        for seed in range(2):
            log(project, {"depth": depth, "same": 1}, {"auc": depth / 30 + seed / 1_000}, seed=seed)
    found = project.runs.param_importance("auc")
    assert (found.runs, [each.name for each in found.params]) == (24, ["depth"])
    assert found.params[0].stands_out
    where = ("--project", project.root)
    shown = say("run", "importance", "auc", *where).out
    assert "Left out: same, the same in all runs." in shown
    few = say("run", "importance", "auc", "--filter", "params.depth = '3'", *where).out
    assert few.strip() == "Nothing can be said: 1 different things were tried, 20 are the least."
    with pytest.raises(NotFound):
        project.runs.param_importance("aucc")
