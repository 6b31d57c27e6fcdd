"""Models of every kind registered as they are, deployed, tried, promoted: loaded as a server loads them."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.registry.test_more_formats import WIDTH, network
from tests.workspace.given_models import make_project

import noria
from noria.deploy.environments import Move
from noria.deploy.releases import read_release
from noria.errors import ConfigError, Conflict, DeploymentError, GateRefused, NotFound, SourceError
from noria.features.code_bundle import find_kept, read_bundle
from noria.features.code_bundling import bundle_modules
from noria.records import digest_of
from noria.serving.formats.scorers import Rows
from noria.serving.models import LoadedModel, load_route
from noria.workspace.project import Project

RNG = np.random.default_rng(0)
MIXED = pd.DataFrame({
    "a": RNG.normal(size=60), "b": RNG.integers(0, 3, 60), "c": RNG.choice(["u", "v", "w"], 60)
})  # fmt: skip
NUMBERS = MIXED[["a", "b"]]
LATE = (MIXED.a + RNG.normal(scale=0.3, size=60) > 0).astype(int)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with noria.open(make_project(tmp_path / "tried")) as opened:
        yield opened


@pytest.fixture
def given(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(project.root))
    yield importlib.import_module("models_in_python")
    for name in ("models_in_python", "words_of_models"):
        sys.modules.pop(name, None)


def served(move: Move, folder: Path) -> LoadedModel:
    """Load what a move put up, as a worker does: bytes, code and files by their digests, samples verified."""
    return next(iter(load_route(move.route, folder=folder).models.values()))


def answers(found: LoadedModel, rows: Rows) -> dict[str, Any]:
    """Score rows; give the columns by name."""
    names = [each.name for each in found.served.outputs]
    return dict(zip(names, found.scorer.predict(rows), strict=True))


def trees(library: str, kind: str) -> Any:
    lgb, xgb = {"n_estimators": 4, "verbose": -1, "n_jobs": 1}, {"n_estimators": 4, "n_jobs": 1}
    label = {"binary": LATE, "regression": MIXED.a, "classes": MIXED.b}[kind]
    if library == "lightgbm":
        made = lightgbm.LGBMRegressor if kind == "regression" else lightgbm.LGBMClassifier
        return made(**lgb).fit(NUMBERS, label)
    made = xgboost.XGBRegressor if kind == "regression" else xgboost.XGBClassifier
    return made(**xgb).fit(NUMBERS, label)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
@pytest.mark.parametrize("kind", ["binary", "regression", "classes"])
def test_trees_of_any_objective_answer_as_their_library(project: Project, library: str, kind: str) -> None:
    model = trees(library, kind)
    version = project.models.register(model, name="late", example=NUMBERS, metrics={"auc": 0.8})
    assert project.models.register(model, name="late", example=NUMBERS, metrics={"auc": 0.8}) == version
    found = served(project.deploy("late", to="production"), project.root)
    rows = Rows(NUMBERS.to_numpy(dtype=np.float64))
    given = answers(found, rows)
    own = model.predict(NUMBERS) if kind == "regression" else model.predict_proba(NUMBERS)
    if kind == "classes":
        np.testing.assert_allclose(given["probability"], own, rtol=1e-6)
        assert list(given["label"]) == model.predict(NUMBERS).tolist()
    else:
        np.testing.assert_allclose(given["score"], own if kind == "regression" else own[:, 1], rtol=1e-6)
    assert [(each.name, each.kind, each.datatype) for each in found.served.inputs] == [
        ("a", "number", ""), ("b", "number", "INT64"),
    ]  # fmt: skip


def test_a_booster_reads_categories_in_the_order_it_was_trained_with(project: Project) -> None:
    frame = MIXED.assign(c=MIXED.c.astype(pd.CategoricalDtype(["w", "v", "u"])))
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=2).fit(frame, LATE)
    project.models.register(model, name="late", example=frame)
    found = served(project.deploy("late", to="production"), project.root)
    assert found.served.inputs[2].categories == ("w", "v", "u")
    loaded = project.load_model("late")
    np.testing.assert_array_equal(loaded.predict(MIXED), model.predict_proba(frame)[:, 1])


def pipeline(label: Any, *, regression: bool = False) -> Any:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["c"]), (StandardScaler(), ["a", "b"])
    )
    return make_pipeline(columns, LinearRegression() if regression else LogisticRegression()).fit(
        MIXED, label
    )


@pytest.mark.parametrize("kind", ["binary", "classes", "regression"])
def test_pipelines_of_scikit_learn_with_columns_of_texts(project: Project, kind: str) -> None:
    model = pipeline(
        {"binary": LATE, "classes": MIXED.c, "regression": MIXED.a}[kind], regression=kind == "regression"
    )
    project.models.register(model, name="late", example=MIXED)
    found = served(project.deploy("late", to="production"), project.root)
    assert [each.kind for each in found.served.inputs] == ["number", "number", "string"]
    rows = Rows(NUMBERS.to_numpy(dtype=np.float64), {"c": MIXED.c.tolist()})
    given = answers(found, rows)
    if kind == "regression":
        np.testing.assert_allclose(given["score"], model.predict(MIXED), rtol=1e-9)
    elif kind == "binary":
        np.testing.assert_allclose(given["score"], model.predict_proba(MIXED)[:, 1], rtol=1e-9)
    else:
        assert found.served.outputs[1].labels == ("u", "v", "w")
        assert list(given["label"]) == model.predict(MIXED).tolist()
        np.testing.assert_allclose(given["probability"], model.predict_proba(MIXED), rtol=1e-9)


def test_an_onnx_model_of_an_array(project: Project, tmp_path: Path) -> None:
    rows = RNG.normal(size=(9, WIDTH))
    (tmp_path / "two.onnx").write_bytes(network("two").SerializeToString())
    project.models.register(tmp_path / "two.onnx", name="late", example=rows)
    found = served(project.deploy("late", to="production"), project.root)
    assert [each.name for each in found.served.inputs] == [f"x{each}" for each in range(WIDTH)]
    scores = np.asarray(found.scorer.predict(Rows(rows))[0])
    np.testing.assert_array_equal(scores, project.load_model("late").predict(rows))


def test_a_class_is_constructed_of_the_code_that_was_kept(project: Project, given: ModuleType) -> None:
    project.models.register(given.Doubler, name="twice", example={"x": [1.0, None]})
    move = project.deploy("twice", to="production")
    (project.root / "models_in_python.py").write_text("raise SystemExit")  # the project has moved on
    found = served(move, project.root)
    assert (found.scorer.is_native, found.scorer.path) == (False, "python")
    assert np.asarray(found.scorer.predict(Rows(np.array([[3.0]])))[0]).tolist() == [6.0]


def test_a_class_reads_its_files_and_gives_several_columns(
    project: Project, given: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("a=first\nb=second\n")
    example = {"word": ["a", None, "b"]}
    files = {"words.txt": tmp_path / "words.txt"}
    version = project.models.register(given.Looked, name="words", example=example, artifacts=files)
    found = served(project.deploy("words:1", to="production"), project.root)
    told = [(each.name, each.datatype) for each in found.served.outputs]
    assert told == [("label", "BYTES"), ("length", "INT64")]
    label, length = found.scorer.predict(Rows(np.empty((2, 0)), {"word": ["b", "z"]}))
    assert (list(label), np.asarray(length).tolist()) == (["second", "?"], [6, 1])
    assert project.load_model("words").predict({"word": ["a"]})["label"] == ["first"]
    shown = project.registry.show(version)
    assert "files/artifacts/words.txt" in shown.parts
    with pytest.raises(ConfigError, match=r"words:1 was registered as it is .*gives label, length"):
        project.registry.load(version)


def test_a_class_of_an_installed_distribution_is_imported_as_it_is_installed() -> None:
    code = read_bundle(bundle_modules([lightgbm.Booster.__module__], what="the model"))
    assert (dict(code.sources), "lightgbm" in code.distributions) == ({}, True)
    assert find_kept(code, "lightgbm.basic", "Booster") is lightgbm.Booster


def test_a_model_that_fails_on_its_example_says_with_what(project: Project, given: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"model 'odd' fails on the example: ValueError: secret"):
        project.models.register(given.Odd, name="odd", example={"x": [13.0]})


def test_attributes_are_kept_without_pickle(project: Project, given: ModuleType) -> None:
    model = given.Weighted(np.array([1.0, 2.0]))
    project.models.register(model, name="sum", example=NUMBERS.head(4), rows="matrix")
    found = served(project.deploy("sum", to="production"), project.root)
    assert {each.name for each in found.served.files} == {"model.json", "program.zip", "state.skops"}
    assert np.asarray(found.scorer.predict(Rows(np.array([[1.0, 1.0]])))[0]).tolist() == [3.0]


def test_a_pickle_is_made_and_loaded_only_where_the_project_says_so(
    given: ModuleType, project: Project, tmp_path: Path
) -> None:
    model = given.Ruled(given.Rule(3.0))
    with pytest.raises(ConfigError, match=r'cannot be kept without pickle .*trust_pickle = \["ruled"\]'):
        project.models.register(model, name="ruled", example={"x": [1.0]})
    trusting = make_project(tmp_path / "trusting", settings='[registry]\ntrust_pickle = ["ruled"]\n')
    with noria.open(trusting) as other:
        other.models.register(model, name="ruled", example={"x": [1.0]})
        move = other.deploy("ruled", to="production")
        (told,) = move.route.models
        assert told.trust_pickle
        (values,) = served(move, other.root).scorer.predict(Rows(np.array([[2.0]])))
        assert np.asarray(values).tolist() == [6.0]
        release = other.ledger.get_version("release", "ruled")
    (trusting / "noria.toml").write_text((trusting / "noria.toml").read_text().replace('["ruled"]', "false"))
    with noria.open(trusting) as other:
        place = other.deployment("production", "ruled")
        route = place.route(other.ledger.get_version("route", "production.ruled"))
        with pytest.raises(DeploymentError, match=r"a pickle of Python objects, which runs code"):
            load_route(route, folder=other.root)
        assert read_release(release).files["model.json"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (13.0, r"odd:1 raised ValueError in predict \(models_in_python.py, line \d+\)$"),
        (14.0, r"odd:1, output 'score', gave 1 values for 2 rows; wanted is one for each row"),
        (15.0, r"odd:1, output 'score', gave BYTES; wanted is FP64, as registered"),
    ],
)
def test_what_a_model_does_wrong_is_told_without_data(
    project: Project, given: ModuleType, x: float, message: str
) -> None:
    project.models.register(given.Odd, name="odd", example={"x": [1.5, 2.5]})
    found = served(project.deploy("odd", to="production"), project.root)
    with pytest.raises(DeploymentError, match=message) as caught:
        found.scorer.predict(Rows(np.array([[x], [x]])))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_was_changed_is_refused(project: Project, given: ModuleType) -> None:
    project.models.register(given.Doubler, name="twice", example={"x": [1.0]})
    move = project.deploy("twice", to="production")
    program = next(each for each in move.route.models[0].files if each.name == "program.zip")
    Path(program.path).chmod(0o644)
    Path(program.path).write_bytes(b"other")
    with pytest.raises(DeploymentError, match=r"twice:1: the model's file .* has digest"):
        load_route(move.route, folder=project.root)


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (object(), {"x": [1.0]}, "object cannot be registered; give a model of LightGBM"),
        (StandardScaler(), {"x": [1.0]}, "has no method `predict`"),
        (LinearRegression(), {"x": [1.0]}, "fails on the example: NotFittedError"),
        (LinearRegression().fit(NUMBERS, LATE), {"a": [1.0]}, "the example lacks b, which the model reads"),
        (LinearRegression().fit(NUMBERS, LATE), NUMBERS.head(0), "the example has no rows"),
        (
            LinearRegression().fit(NUMBERS, LATE),
            {"a": [1.0], "b": [b"x"]},
            "column 'b' of the example is binary",
        ),
    ],
)
def test_what_cannot_be_registered_says_why(project: Project, model: Any, example: Any, message: str) -> None:
    with pytest.raises((ConfigError, SourceError), match=message):
        project.models.register(model, name="late", example=example)
    assert project.registry.list_models() == []


def test_a_folder_of_mlflow_is_deployed_as_it_is(project: Project) -> None:
    with project.start_run("logs") as run:
        run.log_model(pipeline(MIXED.c), "late", example=MIXED, registered="late")
    move = project.deploy("late", to="production", example=MIXED.head(5))
    found = served(move, project.root)
    assert [(each.name, each.kind, each.datatype) for each in found.served.inputs] == [
        ("a", "number", "FP64"), ("b", "number", "INT64"), ("c", "string", ""),
    ]  # fmt: skip
    assert [(each.name, each.datatype) for each in found.served.outputs] == [("label", "BYTES")]
    rows = Rows(NUMBERS.to_numpy(dtype=np.float64), {"c": MIXED.c.tolist()})
    (labels,) = found.scorer.predict(rows)
    assert list(labels) == project.load_model("late").predict(MIXED).tolist()
    with pytest.raises(SourceError, match="input 'b' lacks a value; the model reads long"):
        found.scorer.predict(Rows(np.array([[1.0, np.nan]]), {"c": ["u"]}))
    (told,) = move.route.models
    assert {"MLmodel", "model.skops"} <= {each.name for each in told.files}


def test_a_gate_lets_in_by_what_is_on_record(project: Project) -> None:
    model = trees("lightgbm", "binary")
    project.models.register(model, name="late", example=NUMBERS)
    with pytest.raises(GateRefused, match="no metric auc") as caught:
        project.deploy("late:1", to="staging")
    assert "register it with `metrics={...}`" in caught.value.__notes__[0]
    assert project.ledger.find_pointer("staging", "late") is None
    assert [each.subject for each in project.ledger.list_events(verb="gate.refused")] == ["late:1"]
    project.models.register(model, name="late", example=NUMBERS, metrics={"auc": 0.71})
    project.deploy("late:2", to="staging", reason="good enough")
    passed = project.ledger.list_events(verb="gate.passed")
    assert [(each.subject, each.payload["environment"]) for each in passed] == [("late:2", "staging")]
    project.deploy("late:1", to="production")
    reasons = [each.reason for each in project.ledger.list_pointers()]
    assert sorted(reasons) == ["good enough", "late:1 is deployed (production has no gate)"]


def test_a_version_is_tried_promoted_and_rolled_back(project: Project) -> None:
    for count in (2, 3, 4):
        model = lightgbm.LGBMClassifier(n_estimators=count, verbose=-1).fit(NUMBERS, LATE)
        project.models.register(model, name="late", example=NUMBERS)
    with pytest.raises(Conflict, match=r"nothing is in production beside .*noria deploy late:2@production"):
        project.deploy("late:2", to="production", canary=0.1)
    project.deploy("late:1", to="production")
    with pytest.raises(Conflict, match="there is nothing to deploy"):
        project.deploy("late:1", to="production")
    with pytest.raises(Conflict, match="nothing is on trial at late@production, late:1 answers alone"):
        project.promote("late@production")

    move = project.deploy("late:2", to="production", canary=0.25)
    assert [(each.weight, each.mode) for each in move.route.entries] == [(0.75, "answer"), (0.25, "answer")]
    assert not move.pointer.stable
    assert project.promote("late@production", reason="it is better").pointer.stable
    assert project.model("late@production").ref == "late:2"

    move = project.deploy("late:3", to="production", shadow=True)
    assert [(each.weight, each.mode) for each in move.route.entries] == [(1.0, "answer"), (1.0, "shadow")]
    loaded = load_route(move.route, folder=project.root)
    assert [each.served.version for each in loaded.targets["late"].shadows] == [3]
    assert project.model("late@production").ref == "late:2"
    project.rollback("late@production")
    assert project.model("late@production").ref == "late:2"
    asked = [each.payload["verb"] for each in project.ledger.list_events(verb="person.asked")]
    assert asked == ["deploy", "canary", "promote", "shadow", "rollback"]
    actions = [each.payload["action"] for each in project.ledger.list_events(verb="route.requested")]
    assert actions == asked
    project.models.restore("late:1", reason="as it was")
    assert project.model("late@production").ref == "late:1"


def test_what_is_asked_wrongly_says_what_was_wanted(project: Project) -> None:
    project.models.register(trees("lightgbm", "binary"), name="late", example=NUMBERS)
    with pytest.raises(NotFound, match="no environment named 'prod'"):
        project.deploy("late", to="prod")
    with pytest.raises(NotFound, match="no model named 'later'"):
        project.deploy("later", to="production")
    with pytest.raises(ConfigError, match="canary is 10"):
        project.deploy("late", to="production", canary=10)
    with pytest.raises(ConfigError, match="choose one"):
        project.deploy("late", to="production", canary=0.1, shadow=True)
    with pytest.raises(NotFound, match="no deployment named 'late@production'"):
        project.promote("late@production")


def test_releases_of_what_noria_trained_have_the_digests_that_they_had(project: Project) -> None:
    project.models.register(trees("lightgbm", "binary"), name="late", example=NUMBERS)
    project.deploy("late", to="production")
    facts = project.ledger.get_version("release", "late").facts
    release = project.ledger.get_version("release", "late")
    assert digest_of(release.facts) == release.sha256
    assert set(facts) == {
        "model", "model_ref", "model_digest", "file_digest", "format", "inputs", "views", "view_digests",
        "threshold", "refit_of", "code", "code_diff", "runtime",
    }  # fmt: skip
    assert facts["inputs"][0] == {"name": "a", "kind": "number", "categories": [], "unseen": "nan"}
    manifest = json.loads(project.storage.get(project.registry.get("late").sha256))
    assert set(manifest["signature"]) == {"inputs", "output"}
    assert manifest["signature"]["inputs"][0] == {"categories": [], "kind": "number", "name": "a"}


def test_commands_deploy_and_promote(noria: Callable[..., Any], project: Project) -> None:
    for count in (2, 3):
        model = lightgbm.LGBMClassifier(n_estimators=count, verbose=-1).fit(NUMBERS, LATE)
        project.models.register(model, name="late", example=NUMBERS)
    done = noria("deploy", "late:1@production", "--project", project.root)
    assert done.returncode == 0, done.stderr
    assert "late:1 answers all traffic of production/late (route production.late:1)." in done.stdout
    assert "production has no gate" in done.stdout
    done = noria("deploy", "late@production", "--canary", "0.2", "--json", "--project", project.root)
    said = json.loads(done.stdout)
    assert (said["model"], said["action"], said["gate"]) == ("late:2", "canary", None)
    done = noria("promote", "late@production", "--project", project.root)
    assert "late:2 answers all traffic of production/late" in done.stdout
    done = noria("deploy", "late:2", "--project", project.root)
    assert done.returncode == 2
    assert "or NAME:3@ENVIRONMENT" in done.stderr
