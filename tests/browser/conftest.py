"""A headless Chromium for each file of tests, and a page that remembers what went wrong in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

REQUIRED = "AGILE_BROWSER"
"""Set to 1 where a missing browser is a failure; elsewhere these tests are then skipped."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WAIT_MS = 30_000
NARROW, BROAD = 390, 1280
"""Pixels of a telephone, and of a desk."""


@dataclass(slots=True, kw_only=True)
class Watched:
    """A page, and what it must not have: messages of errors, and requests elsewhere."""

    page: Page
    home: str = "file:"
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def check(self) -> None:
        """No error and no request elsewhere so far, and the page is no wider than its window."""
        assert (self.errors, self.elsewhere) == ([], [])
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, f"{wide} pixels in a window of {window}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one file: until it is closed, playwright runs an event loop in this thread, and no test can run another."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing = "no Chromium is found; install the package chromium"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS), timeout=WAIT_MS)
        yield started
        started.close()


Opener = Callable[..., Watched]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Opens an address in a fresh page of a width, light or dark."""
    contexts = []

    def open_page(address: str, *, width: int = BROAD, dark: bool = False) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        found = Watched(page=page, home=address.split("#")[0])
        page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda sent: None if sent.url.startswith(found.home) else found.elsewhere.append(sent.url))
        page.goto(address)
        return found

    yield open_page
    for context in contexts:
        context.close()
