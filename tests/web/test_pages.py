"""Pages over real HTTP: what they show, what they escape, what they refuse."""

import base64
import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route
from tests.web.conftest import BIDI, EVIL, Site, link, serving

from noria.errors import StoreError
from noria.records import RunState
from noria.web import experiments, scores
from noria.web.application import pages
from noria.web.drawing import Asked, draw_elsewhere
from noria.workspace.user_desk import UserDesk
from noria.workspace.users import Role

PATHS = {
    "experiments": "/experiments",
    "experiment": "/experiments/{parcels}",
    "sorted": "/experiments/{parcels}?order=metrics.auc%20DESC",
    "leaderboard": "/experiments/{parcels}/leaderboard?metric=auc",
    "metrics": "/experiments/{parcels}/pictures",
    "run": "/runs/{many 0}",
    "files": "/runs/{full}",
    "comparison": "/runs/compare?run={many 0}&run={many 1}",
    "nothing compared": "/runs/compare",
    "models": "/models",
    "model": "/models/late_delivery",
    "text": "/runs/{full}/file?path=notes/readme.txt",
    "hostile experiment": "/experiments/{hostile}",
    "hostile run": "/runs/{evil}",
    "hostile comparison": "/runs/compare?run={evil}&run={bidi}",
    "hostile leaderboard": "/experiments/{hostile}/leaderboard?metric=auc",
    "nowhere": "/nowhere",
}


_SHAPES = "circle g line polygon polyline svg text title"
_TEXT = "a b bdi code dd dl dt figcaption figure h1 h2 h3 img li p picture pre source span summary ul details"
_PARTS = "body div footer head header html link main meta nav section"
_TABLES = "table tbody td th thead tr"
_FORMS = "button form input label option select"
ALLOWED = set(" ".join((_SHAPES, _TEXT, _PARTS, _TABLES, _FORMS)).split())


class _Elements(HTMLParser):
    """Lists elements with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def elements_of(text: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Give the elements of a page as a browser sees them."""
    parser = _Elements()
    parser.feed(text)
    parser.close()
    return parser.found


def told(text: str) -> str:
    """Give what a reader reads: no tags, no entities."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


@pytest.mark.parametrize("name", PATHS)
def test_every_page_lets_nothing_run_and_holds_no_foreign_tag(site: Site, name: str) -> None:
    answer = site.get(PATHS[name].format(**site.ids))
    assert answer.status == (404 if name == "nowhere" else 200)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    elements = elements_of(answer.text)
    names = {name for name, _ in elements}
    assert names <= ALLOWED
    attributes = [(attribute, value or "") for _, held in elements for attribute, value in held]
    assert not [each for each, _ in attributes if each.startswith("on") or each == "style"]
    links = [value for each, value in attributes if each in {"src", "href", "action", "srcset"}]
    assert all(re.match(r"/(?!/)|#main$|data:,$", each) for each in links)
    assert "\u202e" not in answer.text
    assert "\u2066" not in answer.text
    assert answer.text.count("<h1") == 1
    assert 'method="post"' not in answer.text.lower()


def test_the_beginning_leads_to_experiments(site: Site) -> None:
    for path in ("/", "/runs", "/experiments/"):
        answer = site.get(path)
        assert (answer.status, answer.headers["location"]) == (303, "/experiments")


def test_experiments_tell_how_many_runs_they_have_and_the_newest(site: Site) -> None:
    text = site.get("/experiments").text
    assert re.search(r">parcels<.*?>60</td>.*?>linear 59<", text, re.DOTALL)
    assert "in full" not in told(site.get("/experiments?filter=name%20LIKE%20'parc%25'").text)
    wrong = site.get("/experiments?filter=name%20LIKES")
    assert wrong.status == 400
    assert 'aria-invalid="true"' in wrong.text


def test_a_fresh_project_is_told_how_to_log_a_first_run(tmp_path: Path) -> None:
    with serving(tmp_path, server='[server]\nprefix = "/team/noria"\n') as fresh:
        text = html.unescape(fresh.get("/experiments").text)
        code = re.search(r"<pre><code>(import noria.*?)</code>", text, re.DOTALL)
        assert code is not None
        done = subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert f'mlflow.set_tracking_uri("{fresh.url}")' in text
        after = fresh.get("/experiments").text
        assert "first try" in after
        links = set(re.findall(r'(?:href|action)="(/[^"]*)"', after))
        assert links
        assert all(each.startswith("/team/noria/") for each in links)
        assert fresh.get("/experiments/0").status == 200
        assert fresh.get("/").headers["location"] == "/team/noria/experiments"
        assert "No model yet" in fresh.get("/models").text


def test_runs_are_sorted_filtered_and_paged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "_RUNS", 25)
    base = link("experiments", site.ids["parcels"])
    best = site.get(f"{base}?order=metrics.auc%20DESC&filter=params.model%20%3D%20'trees'")
    values = [float(each) for each in re.findall(r'<td class="n">(0\.\d+)</td>', best.text)]
    assert len(values) == 25
    assert values == sorted(values, reverse=True)
    assert 'aria-sort="descending"' in best.text
    seen: list[str] = []
    following = base
    while following:
        text = site.get(following).text
        seen += re.findall(r'name="run" value="(\w+)"', text)
        found = re.search(r'rel="next" href="([^"]*)"', text)
        following = html.unescape(found[1]) if found else ""
    assert len(seen) == len(set(seen)) == 60
    foreign = site.get(f"{base}?page=abc")
    assert foreign.status == 400
    assert "page token" in told(foreign.text)


def test_a_bad_filter_is_told_at_its_box_and_kept(site: Site) -> None:
    answer = site.get(f"{link('experiments', site.ids['parcels'])}?filter={quote('metrics.auc > <b>')}")
    assert answer.status == 400
    assert 'value="metrics.auc &gt; &lt;b&gt;"' in answer.text
    assert re.search(r'id="filter-error"[^>]*>filter: found', answer.text)


def test_a_table_has_the_figures_of_its_runs(site: Site) -> None:
    text = told(site.get(link("experiments", site.ids["parcels"])).text)
    for each in ("auc", "loss", "pages read", "depth", "model", "rate"):
        assert each in text


def test_a_leaderboard_ranks_and_tells_what_is_wrong(site: Site) -> None:
    base = link("experiments", site.ids["parcels"], "leaderboard")
    assert "higher is better, guessed from 'auc'" in told(site.get(f"{base}?metric=auc").text)
    unknown = site.get(f"{base}?metric=nothing")
    assert unknown.status == 404
    assert "no metric named 'nothing'" in told(unknown.text)
    undirected = site.get(f"{base}?metric=pages%20read")
    assert undirected.status == 200
    assert "does not tell which way is better: higher or lower ?" in told(undirected.text)
    lower = site.get(f"{base}?metric=pages%20read&better=lower")
    assert "lower is better, as was asked" in told(lower.text)
    assert "Python: project.runs.leaderboard(" in told(lower.text)


def test_pictures_are_drawn_by_a_child_and_tell_their_bound(site: Site) -> None:
    base = link("experiments", site.ids["parcels"], "pictures")
    found = site.get(f"{base}?metric=auc&importance=1")
    assert found.status == 200
    assert found.text.count("data:image/svg+xml;base64,") == 4
    assert "newest 2,000" in found.text
    assert re.search(r'alt="importance of parameters for auc: a forest explains [^"]*depth', found.text)
    code = "import sys; sys.exit('vl_convert' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"import noria.web.application; {code}"], check=False
                          ).returncode == 0  # fmt: skip


def test_nothing_of_pages_is_loaded_before_the_first_is_asked_for() -> None:
    code = (
        "import sys, noria.cli.up, noria.api.application, noria.api.server, noria.workspace.up.up\n"
        "import noria.web.mounting\n"
        "print([each for each in sys.modules if each == 'jinja2' or each.startswith('noria.web.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['noria.web.mounting']\n"


def test_what_a_child_finds_wrong_is_told(site: Site) -> None:
    asked = Asked(project=str(site.project.root), kind="parallel", metric="nothing", experiment="parcels")
    drawn = draw_elsewhere(asked)
    assert (drawn.kind, drawn.light) == ("NotFound", b"")
    assert "no metric named 'nothing'" in drawn.error


def test_pictures_tell_what_to_install(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "can_draw", lambda: False)
    answer = site.get(f"{link('experiments', site.ids['parcels'], 'pictures')}?metric=auc")
    assert answer.status == 200
    assert "noria[dashboards]" in answer.text


def test_a_run_shows_what_was_logged(site: Site) -> None:
    text = site.get(f"/runs/{site.ids['many 0']}").text
    assert 'aria-label="loss by step, 40 points"' in text
    full = site.get(f"/runs/{site.ids['full']}").text
    shown = told(full)
    for each in ("NaN", "∞", "config.json", "pictures /", "team delivery", "Command line", "7"):
        assert each in shown
    assert "2 of them NaN or infinite" in shown
    assert full.count("<circle") == 3
    assert "noria run reproduce" not in shown  # it is of no pipeline
    folder = site.get(f"/runs/{site.ids['full']}?folder=pictures")
    assert "dot.png" in folder.text
    shipped = told(site.get(f"/runs/{site.ids['shipped']}").text)
    assert "late_delivery:1 @champion" in shipped


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("notes/readme.txt", "first line\n&lt;b&gt;bold?&lt;/b&gt;"),
        ("config.json", "&#34;&lt;/script&gt;&#34;"),
        ("orders.csv", "<td><bdi>&lt;i&gt;9&lt;/i&gt;</bdi></td>"),
        ("long.txt", "That is the beginning of it."),
        ("page.html", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("pictures/dot.png", '<img class="shown" src="/get-artifact?'),
        ("pictures/fake.png", "It is no PNG that can be shown here."),
        ("pictures/blob.bin", "It is no text, and is not shown."),
    ],
)
def test_a_file_is_previewed_and_never_run(site: Site, path: str, shown: str) -> None:
    answer = site.get(f"/runs/{site.ids['full']}/file?path={quote(path)}")
    assert answer.status == 200
    assert shown in answer.text
    download = re.search(r'href="(/get-artifact[^"]*)"', answer.text)
    assert download is not None
    got = site.get(html.unescape(download[1]))
    assert got.status == 200
    assert got.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("path", ["", "nothing.txt", "../../noria.toml", "/etc/passwd", "pictures", "a\\b"])
def test_no_other_file_is_shown(site: Site, path: str) -> None:
    answer = site.get(f"/runs/{site.ids['full']}/file?path={quote(path)}")
    assert answer.status in {400, 404, 409}
    assert "Go on from the" in told(answer.text)


def test_signs_that_mislead_are_written_out(site: Site) -> None:
    for path in (
        f"/runs/{site.ids['evil']}",
        f"/runs/{site.ids['bidi']}",
        f"/experiments/{site.ids['hostile']}",
    ):
        text = site.get(path).text
        assert "⟨U+202E⟩" in text
        assert BIDI not in text


def test_hostile_names_are_text(site: Site) -> None:
    for path in (f"/runs/{site.ids['evil']}", f"/experiments/{site.ids['hostile']}", "/models",
                 link("models", site.ids["evil model"])):  # fmt: skip
        answer = site.get(path)
        assert answer.status == 200
        assert "alert(" in html.unescape(answer.text)
        assert "<script" not in answer.text
    assert told(site.get(f"/runs/{site.ids['evil']}").text).count("onmouseover=") >= 5
    files = site.get(f"/runs/{site.ids['evil']}").text
    (evil_file,) = re.findall(r'href="(/runs/[^"]*file\?path=[^"]*img[^"]*)"', files)
    assert "&lt;script&gt;" in site.get(html.unescape(evil_file)).text
    assert EVIL not in files


def test_runs_are_compared(site: Site) -> None:
    answer = site.get(f"/runs/compare?run={site.ids['many 0']}&run={site.ids['many 1']}")
    text = told(answer.text)
    assert "model trees linear" in text
    assert "1 that is the same" in text
    assert answer.text.count("<polyline") == 2
    many = "&".join(f"run={site.ids[f'many {number}']}" for number in range(12))
    assert "4 more were ticked; 8 are compared at most" in told(site.get(f"/runs/compare?{many}").text)


def test_a_model_shows_versions_aliases_and_its_card(site: Site) -> None:
    text = site.get("/models/late_delivery").text
    assert "@champion" in text
    card = site.get("/models/late_delivery/card?version=1")
    assert card.status == 200
    assert "late_delivery:1" in card.text
    assert "script-src" not in card.headers["content-security-policy"]
    assert "<script" not in card.text
    for version in ("9", "", "x", "1" * 40):
        assert site.get(f"/models/late_delivery/card?version={version}").status == 404


def test_what_there_is_not_gets_a_page_that_helps(site: Site) -> None:
    for path in ("/experiments/999", "/experiments/x", "/runs/nothing", "/models/nothing", "/nowhere/at/all",
                 f"/experiments/{site.ids['parcels']}/nothing", "/runs/compare?run=nothing"):  # fmt: skip
        answer = site.get(path)
        assert answer.status == 404, path
        assert answer.headers["content-type"].startswith("text/html")
        assert "Go on from the experiments or the models" in told(answer.text)


def test_programs_are_told_in_json_what_there_is_not(site: Site) -> None:
    assert site.get("/nowhere", accept="*/*").headers["content-type"] == "application/json"
    assert site.get("/api/nowhere").headers["content-type"] == "application/json"
    assert site.get("/health").status == 200


def test_strangers_see_no_page_where_users_are_named(tmp_path: Path) -> None:
    with serving(tmp_path, server='[server]\nusers = "users.json"\n') as guarded:
        UserDesk(guarded.project).add("eve", Role.READ, password="staple and size")
        assert guarded.get("/experiments").status == 401
        assert guarded.get("/pages/style.css").status == 401
        header = "Basic " + base64.b64encode(b"eve:staple and size").decode()
        assert guarded.get("/experiments", authorization=header).status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
def test_pages_only_show(site: Site, method: str) -> None:
    answer = site.get("/experiments", method=method)
    assert answer.status == (200 if method == "HEAD" else 405)
    if method == "HEAD":
        assert answer.text == ""
        assert answer.headers["content-type"].startswith("text/html")


def test_a_store_that_is_away_is_told_without_its_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreError("the database at /secret/place cannot be read")

    monkeypatch.setattr(experiments, "search_experiments", away)
    answer = site.get("/experiments")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "a store of the server cannot be used now" in answer.text
    assert "secret" not in answer.text


def test_a_run_of_a_pipeline_has_a_page_with_how_to_reproduce_it(site: Site) -> None:
    ledger = site.project.ledger
    run = ledger.start_run("pipeline", "nightly", params={"params": {"day": EVIL}})
    step = ledger.start_run("step", EVIL, parent=run.id)
    ledger.finish_run(run.id, state=RunState.FINISHED, metrics={"tasks_ran": 3.0})
    text = site.get(f"/runs/{run.id}").text
    assert f'href="/runs/{step.id}"' in text
    assert f'href="/runs/{run.id}"' in site.get(f"/runs/{step.id}").text
    assert f"noria run reproduce {run.id[:16]}" in text
    assert "<script" not in text


NAMES = st.sampled_from(
    ["filter", "order", "page", "metric", "better", "run", "path", "folder", "curve", "version"]
)
SURROGATE = "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")
VALUES = st.text(max_size=30) | st.sampled_from(
    [
        EVIL,
        "metrics.auc > 1",
        "params.`x",
        "9" * 400,
        "../..",
        "%00",
        "\0",
        "metrics.`a` DESC",
        SURROGATE,
        "auc",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), query=st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_no_query_makes_a_page_fail(site: Site, data: st.DataObject, query: list[tuple[str, str]]) -> None:
    skipped = ("pictures", "card")  # are made by a process each
    every = [each.path for each in pages(site.project).routes if isinstance(each, Route)]
    routes = [each for each in every if not each.endswith(skipped)]
    place = data.draw(st.sampled_from(routes))
    ids = data.draw(
        st.sampled_from([site.ids["parcels"], site.ids["full"], site.ids["evil"], "0", EVIL, "9" * 30])
    )
    path = place.replace("{id}", quote(ids, safe="")).replace("{name:path}", quote(ids, safe=""))
    asked = "&".join(f"{name}={quote(value.encode('utf-8', 'replace'), safe='')}" for name, value in query)
    answer = site.get(f"{path}?{asked}")
    assert answer.status < 500, (path, asked)
    assert "Traceback" not in answer.text
    assert "SELECT" not in answer.text
    assert "<script" not in answer.text.lower()
