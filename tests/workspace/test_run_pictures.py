"""Pictures of runs: what is in them, that they are drawn, and that no name and no value breaks them."""

import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from tests.cli.conftest import Said, say
from tests.servers.browser import Visiting, chromium, visiting
from tests.warehouse.test_dashboards import engine

import noria as library
from noria.clock import from_micros
from noria.errors import ConfigError, NotFound
from noria.ledger.tables import runs
from noria.tracking.runs import tracked_run
from noria.tracking.tables import latest_metrics, run_params, tracked_runs
from noria.workspace.runs.picture import Picture

__all__ = ["chromium", "engine", "say", "visiting"]  # fixtures

HOSTILE = "</script><script>document.title='no'</script><img src=x onerror=alert(1)>"
DRAWINGS: dict[str, Callable[[library.Project], Picture]] = {
    "curves": lambda project: project.runs.pictures.curves("loss"),
    "smoothed": lambda project: project.runs.pictures.curves("loss", smoothing=0.6, x="time"),
    "bands": lambda project: project.runs.pictures.curves("loss", by="params.model"),
    "wall": lambda project: project.runs.pictures.curves("loss", x="wall"),
    "parallel": lambda project: project.runs.pictures.parallel("auc", metrics="loss"),
    "leaderboard": lambda project: project.runs.pictures.leaderboard("auc"),
    "importance": lambda project: project.runs.pictures.importance("auc"),
    "scatter": lambda project: project.runs.pictures.scatter("rate", "auc"),
    "by category": lambda project: project.runs.pictures.scatter("model", "auc"),
}


def log(
    project: library.Project,
    name: str,
    params: dict[str, Any],
    metrics: dict[str, float],
    losses: list[float],
    *,
    seed: int | None = None,
) -> str:
    with tracked_run(project.ledger, "train", name, experiment="night", seed=seed, params=params) as run:
        for step, value in enumerate(losses):
            run.log_metric("loss", value, step=step)
        run.log_metrics(metrics)
    return run.id


def opened(folder: Path, engine: Path) -> library.Project:
    (folder / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    shutil.copytree(engine, folder / ".noria" / "dashboards" / "engine")
    return library.open(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, engine: Path) -> Iterator[library.Project]:
    with opened(tmp_path_factory.mktemp("site"), engine) as made:
        for number in range(24):
            model = ("trees", "linear", HOSTILE)[number % 3]
            params = {"model": model, "rate": 10 ** (-(number % 8) / 2), "ordnung/größe": number % 5}
            params |= {"depth": number % 7} if model == "trees" else {}
            losses = [5 / (1 + step) + number / 50 for step in range(12)]
            auc = 0.6 + number % 8 / 30 + number / 1_000
            log(made, f"{model} {number // 6}", params, {"auc": auc}, losses, seed=number)
        odd = {"model": "trees", "rate": 1.0}
        log(made, "näh 夜", odd, {"auc": math.nan}, [math.inf, 1.0, math.nan, 2.0])
        yield made


def _fill(project: library.Project, count: int) -> None:
    """Put runs into the database that have what a search looks at, and no events."""
    at = from_micros(0)
    each: dict[str, Any] = {
        "scope": "project",
        "kind": "train",
        "name": "many",
        "state": "finished",
        "attempt": 1,
    }
    each |= {"experiment": "0", "params": "{}", "metrics": "{}", "code": "", "runtime": "", "at": at}
    each |= {"started_at": at, "ended_at": at}
    ids = [f"{number:032x}" for number in range(count)]
    with project.ledger.database.write() as connection:
        connection.execute(insert(runs), [{"id": run, **each} for run in ids])
        told = {"experiment": 0, "name": "many", "owner": "me", "is_scheduled": False, "started_at": at}
        connection.execute(insert(tracked_runs), [{"run": run, **told} for run in ids])
        points = {"name": "auc", "experiment": 0, "recorded_at": at, "step": 0, "is_nan": False}
        connection.execute(
            insert(latest_metrics),
            [{"run": run, "value": place * 7_919 % count, **points} for place, run in enumerate(ids)],
        )
        values = [
            {"run": run, "name": "depth", "experiment": 0, "value": run[-1], "head": run[-1]} for run in ids
        ]
        connection.execute(insert(run_params), values)


def column(picture: Picture, name: str) -> list[Any]:
    place = [*picture.columns].index(name)
    return [row[place] for row in picture.rows]


@pytest.mark.parametrize("kind", DRAWINGS)
def test_every_picture_is_drawn_and_equal_figures_have_equal_bytes(
    project: library.Project, kind: str
) -> None:
    picture, again = DRAWINGS[kind](project), DRAWINGS[kind](project)
    assert picture.rows
    for scheme in ("light", "dark"):
        svg = picture.draw(".svg", scheme=scheme)
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert svg == again.draw(".svg", scheme=scheme)
        assert b"<script" not in svg
        assert not re.search(rb' (d|transform|x|y|[xy]2)="[^"]*NaN', svg)


def test_curves_leave_out_what_is_not_finite_and_say_so(project: library.Project) -> None:
    picture = project.runs.pictures.curves("loss")
    assert picture.description == "8 of 25 runs, 2 points that are NaN or infinite left out"
    odd = [row for row in picture.rows if row[0] == "näh 夜"]
    assert [row[2] for row in odd] == pytest.approx([math.nan, 1.0, math.nan, 2.0], nan_ok=True)
    names = column(picture, "name")
    assert len({each for each in names if each.startswith("linear")}) == 2  # of one name: their ids follow


def test_a_smoothed_curve_is_a_weighted_mean_of_what_was_so_far(project: library.Project) -> None:
    picture = project.runs.pictures.curves("loss", smoothing=0.5, limit=1)
    raw, value = column(picture, "raw"), column(picture, "value")
    assert (raw[1], value[1]) == (1.0, 1.0)
    assert value[3] == pytest.approx((0.5 * 2.0 + 0.25 * 1.0) / 0.75)


def test_groups_lie_in_a_band_from_the_lowest_to_the_highest(project: library.Project) -> None:
    picture = project.runs.pictures.curves("loss", by="params.model", filter="params.model = 'linear'")
    assert picture.description == "1 group of 8 runs: mean, and lowest to highest"
    numbers = range(1, 24, 3)
    name, x, mean, low, high, _ = picture.rows[2]
    assert (name, x) == ("model linear (8)", 2.0)
    assert (low, high) == pytest.approx((5 / 3 + 1 / 50, 5 / 3 + 22 / 50))
    assert mean == pytest.approx(5 / 3 + sum(numbers) / 8 / 50)


def test_parallel_axes_are_numbers_logarithms_or_categories(project: library.Project) -> None:
    picture = project.runs.pictures.parallel("auc")
    axes = list(dict.fromkeys(column(picture, "axis")))
    assert axes == ["depth", "model", "ordnung/größe", "rate", "auc"]
    assert picture.description == "24 runs, 1 whose auc is NaN or infinite left out"
    at = {(row[0], row[2]): row[3] for row in picture.rows}
    places = {run: at[run, "rate"] for run, _ in at}
    assert sorted({round(each, 6) for each in places.values()}) == pytest.approx(
        [n / 7 for n in range(8)], abs=1e-5
    )
    assert {at[run, "depth"] for run, axis in at if axis == "depth"} >= {-0.1, 0.0, 1.0}  # -0.1: has none
    with pytest.raises(NotFound, match="did you mean 'depth'"):
        project.runs.pictures.parallel("auc", params=["depht"])


def test_one_run_and_none_are_drawn(tmp_path: Path, engine: Path) -> None:
    with opened(tmp_path, engine) as project:
        log(project, "only", {"rate": 0.1, "model": "a"}, {"auc": 0.5}, [1.0])
        for kind, drawing in DRAWINGS.items():
            assert drawing(project).draw(".svg"), kind
        nothing = project.runs.pictures.curves("loss", experiments="Default")
        assert nothing.description == "0 runs"
        assert nothing.draw(".svg")
        assert "nothing can be said" in project.runs.pictures.importance("auc").description


def test_many_runs_are_thinned_out_by_the_metric(tmp_path: Path, engine: Path) -> None:
    with opened(tmp_path, engine) as project:
        _fill(project, 3_000)
        picture = project.runs.pictures.parallel("auc")
        assert picture.description.startswith("400 of 3,000 runs")
        best = project.runs.search(order_by="metrics.auc DESC", limit=1)[0]
        worst = project.runs.search(order_by="metrics.auc", limit=1)[0]
        assert {best.id, worst.id} <= {*column(picture, "run")}


def test_files_are_what_their_ending_says(project: library.Project, tmp_path: Path) -> None:
    picture = project.runs.pictures.scatter("rate", "auc")
    assert picture.save(tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    spec = json.loads(picture.save(tmp_path / "a.json").read_bytes())
    assert (spec["$schema"].split("/")[-1], len(spec["data"]["values"])) == ("v6.json", 24)
    assert picture.save(tmp_path / "a.svg").read_bytes() == picture.draw(".svg")
    for name in ("a.pdf", "a"):
        with pytest.raises(ConfigError, match=r"wanted \.svg, \.png, \.html, \.json"):
            picture.save(tmp_path / name)
    assert {each.name for each in tmp_path.iterdir()} == {"new", "a.json", "a.svg"}


def test_a_notebook_gets_images_for_light_and_dark(project: library.Project) -> None:
    bundle = project.runs.pictures.parallel("auc")._repr_mimebundle_()
    assert bundle["text/html"].count("data:image/svg+xml;base64,") == 2
    assert "prefers-color-scheme: dark" in bundle["text/html"]
    assert "script" not in bundle["text/html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_shows_the_picture_and_runs_no_name(
    project: library.Project, tmp_path: Path, visiting: Visiting, scheme: str
) -> None:
    file = project.runs.pictures.curves("loss", by="params.model").save(tmp_path / "page.html")
    with visiting(file, scheme=scheme, size=(390, 844)) as visit:
        visit.page.wait_for_selector("html[data-drawn]")
        assert visit.page.title() == "loss"
        assert visit.page.locator(".drawing svg .mark-line path").count() == 3
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert visit.complaints == []
        assert [each for each in visit.requests if not each.startswith("data:")] == [file.as_uri()]


def test_what_is_asked_badly_is_refused(project: library.Project) -> None:
    pictures = project.runs.pictures
    for wrong in ({"smoothing": 1.0}, {"x": "day"}, {"limit": 0}, {"x": "wall", "by": "params.model"}):
        with pytest.raises(ConfigError):
            pictures.curves("loss", **wrong)
    with pytest.raises(NotFound, match="did you mean 'loss'"):
        pictures.curves("los")
    with pytest.raises(NotFound, match="there is auc, loss"):
        pictures.curves("x", runs=[project.runs.search(limit=1)[0].id])
    with pytest.raises(NotFound, match="rate"):
        pictures.scatter("rat", "auc")
    with pytest.raises(ConfigError, match="light or dark"):
        pictures.curves("loss").draw(".svg", scheme="blue")  # type: ignore[arg-type]


def test_the_command_draws(project: library.Project, tmp_path: Path, say: Callable[..., Said]) -> None:
    where = ("--project", project.root)
    drawn = say("run", "picture", "scatter", "auc", "--param", "rate", "--out", tmp_path / "a.svg", *where)
    assert drawn.code == 0
    assert (tmp_path / "a.svg").read_bytes() == project.runs.pictures.scatter("rate", "auc").draw(".svg")
    for kind in ("curves", "importance", "leaderboard", "parallel"):
        told = say("run", "picture", kind, "auc", "--out", tmp_path / f"{kind}.json", "--json", *where)
        assert json.loads(told.out)["title"] == "auc"
    assert (
        "scatter takes one --param" in say("run", "picture", "scatter", "auc", "--out", "a.svg", *where).err
    )
    assert "did you mean 'curves'" in say("run", "picture", "curve", "auc", "--out", "a.svg", *where).err
