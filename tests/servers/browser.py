"""A real browser for tests: Debian's Chromium, one a module; it tells what a page asks for."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

_PROGRAM = shutil.which("chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Visit:
    """A page that is looked at.

    Attributes
    ----------
    page
        Playwright's.
    requests
        Whatever it asked for, the page itself included.
    complaints
        Errors of its scripts and of the console.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Visiting = Callable[..., Any]


@pytest.fixture(scope="module")  # while it is there, nothing else of asyncio runs in this thread
def chromium() -> Iterator[Any]:
    if _PROGRAM is None:
        pytest.skip("there is no chromium; `make servers` installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PROGRAM, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visiting(chromium: Any) -> Visiting:
    """Give a function that opens a file, or a URL, as a reader would: `with visiting(path) as visit`."""

    @contextmanager
    def visit(
        path: Path | str,
        *,
        scheme: Literal["light", "dark"] = "light",
        size: tuple[int, int] = (1280, 900),
        scripts: bool = True,
        zone: str = "UTC",
    ) -> Iterator[Visit]:
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            java_script_enabled=scripts,
            timezone_id=zone,
        )
        try:
            made = Visit(context.new_page())
            made.page.on("request", lambda request: made.requests.append(request.url))
            made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
            made.page.on(
                "console",
                lambda said: made.complaints.append(said.text) if said.type == "error" else None,
            )
            made.page.goto(path if isinstance(path, str) else path.as_uri())
            yield made
        finally:
            context.close()

    return visit
