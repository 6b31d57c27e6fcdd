"""What somebody sees who opens the page: light and dark, wide and narrow, with scripts and without."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.servers.browser import Visiting, chromium, visiting
from tests.warehouse.test_dashboards import SHARES, TRIPS, engine

import noria

__all__ = ["chromium", "engine", "visiting"]  # fixtures

MORE = """
[panels.hours]
sql = "select instant, n from moments order by 1"
[panels.hours.chart]
mark = "point"
encoding.x = { field = "instant", type = "temporal" }
encoding.y = { field = "n", type = "quantitative" }

[panels.lying]
sql = "from trips"
[panels.lying.chart]
mark = "bar"
encoding.y = { field = "line", type = "nominal" }
encoding.x = { field = "riders", type = "quantitative" }

[panels.failing]
sql = "from nothing"

[panels.side_by_side]
sql = "from trips"
[[panels.side_by_side.chart.hconcat]]
mark = "bar"
encoding = { x = { field = "line", type = "nominal" }, y = { aggregate = "sum", field = "riders" } }
[[panels.side_by_side.chart.hconcat]]
mark = "arc"
encoding = { theta = { aggregate = "sum", field = "riders" }, color = { field = "line", type = "nominal" } }
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, engine: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("metro")
    (folder / "dashboards").mkdir()
    (folder / "noria.toml").write_text('[project]\nname = "metro"\n')
    text = SHARES.replace(
        '["note", "best"]', '["note", "best"], ["hours", "failing"], ["lying"], ["side_by_side"]'
    )
    (folder / "dashboards" / "ridership.toml").write_text(text + MORE)
    instants = pa.array(
        [1_704_067_200_000_000 + n * 3_600_000_000 for n in range(5)], pa.timestamp("us", "UTC")
    )
    kept = folder / ".noria" / "dashboards" / "engine"
    shutil.copytree(engine, kept)
    with noria.open(folder) as project:
        project.lake.append("trips", TRIPS, batch=1, app_id="test")
        project.lake.append("moments", pa.table({"instant": instants, "n": range(5)}), batch=1, app_id="test")
        built = project.build_dashboard("ridership")
    assert set(built.failed) == {"failing"}
    yield built.files[0]


def marks(visit: Any, panel: str) -> int:
    visit.page.wait_for_selector("html[data-drawn]")
    kinds = ("rect", "symbol", "arc")
    paths = ", ".join(f"#panel-{panel} .drawing svg .mark-{kind} > path" for kind in kinds)
    count: int = visit.page.locator(paths).count()
    return count


def test_the_console_has_not_even_a_warning(page: Path, chromium: Any) -> None:
    opened = chromium.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.goto(page.as_uri())
    opened.wait_for_selector("html[data-drawn]")
    opened.close()
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_charts_have_their_marks_and_nothing_is_fetched(
    page: Path, visiting: Visiting, scheme: str, size: tuple[int, int]
) -> None:
    with visiting(page, scheme=scheme, size=size) as visit:
        assert (
            marks(visit, "by_day") >= 6 and marks(visit, "hours") >= 5 and marks(visit, "side_by_side") >= 4
        )
        assert visit.page.evaluate("document.documentElement.dataset.drawn") == scheme
        assert visit.page.evaluate("document.documentElement.dataset.broken") is None
        assert visit.complaints == []
        assert visit.requests == [page.as_uri()]
        assert visit.page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert visit.page.locator("#panel-failing [role=alert]").inner_text().startswith("no table named")


def test_colours_follow_the_reader_and_contrast_with_the_page(page: Path, visiting: Visiting) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with visiting(page, scheme=scheme) as visit:
            marks(visit, "by_day")
            seen[scheme] = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            for place in ("h1", ".about", ".figure", "footer p", ".left", ".error", "td", "summary"):
                if visit.page.locator(place).count():
                    assert contrast(visit, place) >= 4.5, (scheme, place)
    assert seen["light"] != seen["dark"]


def test_a_reader_who_changes_the_scheme_gets_the_charts_anew(page: Path, visiting: Visiting) -> None:
    with visiting(page, scheme="light") as visit:
        marks(visit, "by_day")
        visit.page.emulate_media(color_scheme="dark")
        visit.page.wait_for_selector("html[data-drawn=dark]")
        assert marks(visit, "by_day") >= 6 and visit.complaints == []


def test_without_scripts_the_data_are_there_as_tables(page: Path, visiting: Visiting) -> None:
    with visiting(page, scripts=False) as visit:
        assert visit.page.locator("#panel-by_day td").first.is_visible()
        assert visit.page.locator("#panel-by_day tbody tr").count() == 6
        assert visit.page.locator(".figure").first.inner_text() == "410people"
        assert visit.page.locator(".drawing").first.is_visible() is False


def test_instants_are_utc_wherever_the_reader_is(page: Path, visiting: Visiting) -> None:
    labels = []
    for zone in ("UTC", "Asia/Tokyo"):
        with visiting(page, zone=zone) as visit:
            marks(visit, "hours")
            labels.append(visit.page.locator("#panel-hours .role-axis-label text").all_inner_texts())
    assert labels[0] == labels[1] != []


def test_what_the_page_could_fetch_is_refused(page: Path, visiting: Visiting) -> None:
    with visiting(page) as visit:
        marks(visit, "by_day")
        asked = "fetch('http://127.0.0.1:9/').then(() => 'got it', (error) => 'refused')"
        assert visit.page.evaluate(asked) == "refused"
        assert any("Content Security Policy" in each for each in visit.complaints)
        visit.page.evaluate("""
            const added = document.createElement("script");
            added.textContent = "window.ran = 1";
            document.body.append(added);
        """)
        assert visit.page.evaluate("window.ran === undefined") is True


def contrast(visit: Any, place: str) -> float:
    """Give the ratio of WCAG 2 between a text and what is behind it."""
    found: float = visit.page.evaluate(
        """(place) => {
          const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const light = (colour) => {
            const [r, g, b] = parts(colour).map((part) => part / 255)
              .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const text = document.querySelector(place);
          let behind = text;
          const solid = (each) => (parts(getComputedStyle(each).backgroundColor)[3] ?? 1) > 0;
          while (behind.parentElement && !solid(behind)) behind = behind.parentElement;
          const pair = [light(getComputedStyle(text).color), light(getComputedStyle(behind).backgroundColor)];
          return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        }""",
        place,
    )
    return found
