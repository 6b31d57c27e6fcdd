"""Pages in a real browser: no complaint of its console, on a phone, in the dark, by keyboard."""

from itertools import pairwise
from typing import Any

from tests.servers.browser import Visiting, chromium, visiting
from tests.web.conftest import Site
from tests.web.test_pages import PATHS

__all__ = ["chromium", "visiting"]  # fixtures

CONTRAST = """() => {
  const shade = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map(each => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [light, dark] = [shade(ink), shade(behind(element))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) faint.add(`${element.tagName} ${element.className} ${ratio.toFixed(2)}`);
  }
  return [...faint];
}"""
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HEADINGS = "[...document.querySelectorAll('h1,h2,h3,h4')].map(each => Number(each.tagName[1]))"
SHOWN = [name for name in PATHS if name not in {"nowhere", "hostile leaderboard", "sorted", "text"}]


def _go(visit: Any, site: Site, name: str) -> Any:
    visit.page.goto(site.url + PATHS[name].format(**site.ids))
    return visit.page


def test_no_page_makes_the_browser_complain_or_ask_elsewhere(site: Site, visiting: Visiting) -> None:
    with visiting(site.url + "/") as visit:
        assert visit.page.url == site.url + "/experiments"
        for name in SHOWN:
            levels = _go(visit, site, name).evaluate(HEADINGS)
            assert levels[0] == 1
            assert all(after - before <= 1 for before, after in pairwise(levels))
        visit.page.goto(f"{site.url}/runs/{site.ids['full']}/file?path=pictures/dot.png")
        assert visit.page.evaluate("document.querySelector('img.shown').naturalWidth") == 2
    assert visit.complaints == []
    assert all(each.startswith((site.url, "data:")) for each in visit.requests)


def test_pages_are_read_on_a_phone_without_scrolling_sideways(site: Site, visiting: Visiting) -> None:
    with visiting(site.url + "/", size=(360, 700)) as visit:
        for name in SHOWN:
            assert _go(visit, site, name).evaluate(WIDTH) == 0, name
    assert visit.complaints == []


def test_pages_are_read_in_light_and_dark(site: Site, visiting: Visiting) -> None:
    for scheme in ("light", "dark"):
        with visiting(site.url + "/", scheme=scheme) as visit:
            for name in SHOWN:
                assert _go(visit, site, name).evaluate(CONTRAST) == [], (scheme, name)


def test_runs_are_filtered_sorted_and_compared_by_keyboard(site: Site, visiting: Visiting) -> None:
    with visiting(f"{site.url}/experiments/{site.ids['parcels']}") as visit:
        page = visit.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.get_by_label("Filter").focus()
        page.keyboard.type("params.depth = '8'")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="auc").press("Enter")
        page.wait_for_url("**order=metrics**")
        assert page.get_by_label("Filter").input_value() == "params.depth = '8'"
        boxes = page.locator("input[type=checkbox]")
        assert boxes.count() == 7
        for place in (0, 3):
            boxes.nth(place).press("Space")
        page.get_by_role("button", name="Compare what is ticked").press("Enter")
        page.wait_for_url("**/runs/compare**")
        assert page.locator("ul.legend li").count() == 2
    assert visit.complaints == []
