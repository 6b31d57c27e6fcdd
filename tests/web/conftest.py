"""A project with runs of every kind, whose control plane answers with pages."""

import base64
import http.client
import math
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.records import canonical_json
from noria.registry.catalogue import ModelCatalogue
from noria.registry.sources import SourceRoots
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.tables import latest_metrics, run_params, run_tags
from noria.web.mounting import Pages
from noria.workspace.project import Project
from noria.workspace.up.records import Role, UpState

SINCE = datetime(2024, 5, 1, tzinfo=UTC)
EVIL = '<script>alert("hacked")</script>"onmouseover="alert(2)" \'x\' &amp; </title></script><!--'
BIDI = "gnp.\u202etxt.\u2066exe"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP4z8DwHwSAgP8MDAwMDAwAPu8F+8Hn1VIAAAAASUVORK5C"
    "YII="
)


@dataclass(frozen=True)
class Answer:
    """What a browser gets."""

    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass
class Site:
    """A control plane with pages."""

    project: Project
    port: int
    prefix: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def get(
        self, path: str, *, method: str = "GET", accept: str = "text/html", authorization: str = ""
    ) -> Answer:
        headers = {"accept": accept} | ({"authorization": authorization} if authorization else {})
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request(method, f"{self.prefix}{path}", headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode("utf-8", "replace"))


@contextmanager
def serving(folder: Path, *, server: str = "") -> Iterator[Site]:
    """Serve a fresh project in a folder."""
    (folder / "noria.toml").write_text(f'[project]\nname = "shop"\n{server}')
    with noria.open(folder) as project:
        prefix = project.settings.server.prefix
        with ControlPlane("127.0.0.1", 0, prefix=prefix) as plane:
            state = UpState(role=Role.FOLLOWER, since=SINCE, leader="elsewhere")
            plane.start(application(project, lambda: state, host="127.0.0.1", pages=Pages(project)))
            yield Site(project, int(plane.url.removesuffix(prefix).rpartition(":")[2]), prefix)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a site whose project has sixty runs, hostile ones, models, and files."""
    with serving(tmp_path_factory.mktemp("site")) as made:
        _log_many(made)
        _log_one_in_full(made)
        _log_hostile(made)
        _register(made)
        yield made


def link(*parts: str) -> str:
    return "/" + "/".join(quote(each, safe="") for each in parts)


def _log_many(site: Site) -> None:
    for number in range(60):
        luck = random.Random(number)
        depth, model = 1 + number % 8, ("trees", "linear")[number % 2]
        params = {"model": model, "depth": depth, "rate": 10 ** luck.uniform(-4, 0), "rows": 1_000}
        with site.project.start_run(
            f"{model} {number}", experiment="parcels", params=params, seed=number // 16, system_metrics=False
        ) as run:
            run.log_metric("auc", 0.6 + depth / 50 + luck.gauss(0, 0.004))
            run.log_metric("pages read", number)
            if number < 2:
                for step in range(40):
                    run.log_metric("loss", 1 / (step + 1 + number), step=step)
        site.ids[f"many {number}"] = run.id
    site.ids["parcels"] = site.project.runs.get(site.ids["many 0"]).experiment or ""


def _log_one_in_full(site: Site) -> None:
    with site.project.start_run(
        "in full", experiment="files", tags={"team": "delivery", "config": '{"a": [1, 2]}'}, seed=7,
        system_metrics=False,
    ) as run:  # fmt: skip
        run.log_metric("big", math.inf)
        run.log_metric("none", math.nan)
        for step, value in enumerate((0.5, math.nan, 0.25, -math.inf, 0.125)):
            run.log_metric("gappy", value, step=step)
        run.log_text("first line\n<b>bold?</b>\n", "notes/readme.txt")
        run.log_dict({"b": 1, "a": ["</script>", 2]}, "config.json")
        run.log_text("day,orders\n2024-01-01,7\n2024-01-02,<i>9</i>\n", "orders.csv")
        run.log_text("x" * 100_000, "long.txt")
        run.log_html("<script>alert(1)</script>", "page.html")
        for name, data in (("dot.png", PNG), ("fake.png", b"<svg onload=alert(1)>"), ("blob.bin", b"\0\1")):
            file = site.project.root / name
            file.write_bytes(data)
            run.log_artifact(file, "pictures")
    site.ids["full"] = run.id


def _log_hostile(site: Site) -> None:
    """Log what no client can, too: pages hold whatever the tables do."""
    project = site.project
    with project.start_run(EVIL, experiment=EVIL, tags={"note": EVIL}, params={"note": EVIL},
                           system_metrics=False) as run:  # fmt: skip
        run.log_text(EVIL, f"{BIDI}.txt")
        run.log_text(EVIL, "<img src=x onerror=alert(1)>.csv")
    with project.start_run(BIDI, experiment=EVIL, system_metrics=False) as other:
        other.log_metric("auc", 0.5)
    site.ids |= {"evil": run.id, "bidi": other.id}
    site.ids["hostile"] = project.runs.get(run.id).experiment or ""
    number = int(site.ids["hostile"])
    with project.ledger.database.write() as connection:
        text = {"run": run.id, "experiment": number, "name": EVIL, "value": EVIL, "head": EVIL[:64]}
        connection.execute(run_params.insert(), text)
        connection.execute(run_tags.insert(), text)
        point = {"run": run.id, "experiment": number, "name": EVIL, "recorded_at": SINCE, "step": 3,
                 "value": 1.0, "is_nan": False}  # fmt: skip
        connection.execute(latest_metrics.insert(), point)


def _register(site: Site) -> None:
    project = site.project
    with project.start_run("shipped", experiment="files", system_metrics=False) as run:
        run.log_text(canonical_json({"flavors": {}}).decode(), "model/MLmodel")
    site.ids["shipped"] = run.id
    root = f"mlflow-artifacts:/{project.runs.get(run.id).experiment}/{run.id}/artifacts"
    roots = SourceRoots(of_run=lambda _: root, of_model=lambda _: None)
    versions = VersionCatalogue(project.ledger, project.storage, project.artifacts, roots)
    site.ids["evil model"] = EVIL.replace("/", "|").replace(":", "")
    for name in ("late_delivery", site.ids["evil model"]):
        ModelCatalogue(project.ledger).create(name, description=EVIL)
        versions.register(name, f"{root}/model", run=run.id)
    project.models.put_alias("late_delivery:1", "champion")
