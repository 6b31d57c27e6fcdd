"""The second example: packaged purchases, features and a label from views, and no join by the user."""

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import noria
from noria.workspace.creation import create_project
from noria.workspace.project import Project

TEXTS = re.compile(r'"[^"\n]*"\.join')  # of strings
JOINS = re.compile(r"\bjoin\b|\bmerge\w*\b|asof|searchsorted|\blookup\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("customers") / "shop"
    create_project(folder, template="customers")
    with noria.open(folder) as project:
        project.ingest("purchases")
        yield project


@pytest.fixture(scope="module")
def declared(shop: Project) -> Any:
    return sys.modules[shop.declarations.dataset("purchases").source.__module__]


@pytest.fixture(scope="module")
def examples(shop: Project, declared: Any) -> pa.Table:
    return declared.examples(shop)


def test_the_script_scores_the_view_above_its_baselines(shop: Project, examples: pa.Table) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "buys_again.py"],
        cwd=shop.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(.+?) +AUC (\S+) +log loss (\S+)$", done.stdout, re.MULTILINE)
    assert [way for way, *_ in told] == [
        "one rate for everybody",
        "time since the last purchase",
        "the whole view",
    ]
    (_, rate), (recency_auc, recency), (view_auc, view) = ((float(a), float(b)) for _, a, b in told)
    assert view < recency - 0.03 < rate - 0.08
    assert view_auc > recency_auc > 0.8


def test_a_row_is_what_was_known_and_what_came(shop: Project, examples: pa.Table) -> None:
    """Counted by hand from the rows of one customer."""
    assert examples.num_rows == 330_024
    of_one = examples.filter(pc.field("customer") == "00003").to_pylist()
    bought = shop.lake.read("purchases", where=pc.field("customer") == "00003")["bought_at"].to_pylist()
    for row in of_one:
        before = [each for each in bought if each < row["asked_at"]]
        after = [each for each in bought if row["asked_at"] <= each < row["outcome_at"]]
        assert row["customer__purchases"] == len(before)
        assert row["again"] == bool(after)
    assert len({row["again"] for row in of_one}) == 2


def test_statistics_suspect_nothing_but_a_leak(shop: Project, examples: pa.Table, declared: Any) -> None:
    honest = shop.features.statistics(
        examples.drop_columns(["customer", "outcome_at"]), label="again", at="asked_at"
    )
    assert honest.suspicions == ()
    early = examples.filter(pc.field("asked_at") == datetime(1997, 6, 1, tzinfo=UTC))
    leaking = shop.features.training_set(early, [declared.outcome], name="leaking", at="outcome_at")
    found = shop.features.statistics(
        leaking.drop_columns(["customer", "outcome_at"]), label="again", at="asked_at"
    )
    assert {(each.feature, each.rule) for each in found.suspicions} == {
        ("outcome__purchases_90d", "predicts_too_well")
    }


def test_online_is_offline(shop: Project) -> None:
    shop.features.materialize()
    compared = shop.features.compare("customer", limit=500, at=datetime(1998, 7, 2, tzinfo=UTC))
    assert (compared.entities, compared.different) == (500, 0)


@pytest.mark.parametrize("template", ["customers", "flights"])
def test_its_user_writes_no_line_of_join_code(tmp_path: Path, template: str) -> None:
    """Tables of a warehouse may be joined in SQL, for people who look at them: no feature reads those."""
    for each in create_project(tmp_path / template, template=template):
        if each.suffix == ".py":
            text = TEXTS.sub("", each.read_text(encoding="utf-8"))
            assert not JOINS.findall(text), each.name


def test_without_its_data_it_prints_the_command(tmp_path: Path) -> None:
    create_project(tmp_path / "shop", template="customers")
    code = (
        "import sys; sys.modules['lifetimes'] = None; from noria.cli import main;"
        f"sys.exit(main(['ingest', 'purchases', '--project', {str(tmp_path / 'shop')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "pip install --no-deps lifetimes==0.11.3" in done.stderr
    assert "Traceback" not in done.stderr
