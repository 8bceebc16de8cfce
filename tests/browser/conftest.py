"""A headless Chromium for each file of tests, and a page that remembers what went wrong in it."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from launch.view.app import application
from launch.view.runs import Runs

REQUIRED = "AGILE_BROWSER"
"""Set to 1 where a missing browser is a failure; elsewhere these tests are then skipped."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WAIT_MS = 100_000
expect.set_options(timeout=WAIT_MS)
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


def _path() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; until it is closed, playwright runs an event loop in this thread, and no other can run."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_path(), args=list(FLAGS), timeout=WAIT_MS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one file, so that the tests of others can run event loops."""
    if _path() is None:
        missing = "no Chromium is found; install the package chromium"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with chromium() as started:
        yield started


@contextmanager
def watched(browser: Browser, address: str, *, width: int = BROAD, dark: bool = False) -> Iterator[Watched]:
    """An address in a fresh page of a width, light or dark."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    found = Watched(page=page, home=address.split("#")[0])
    page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith(found.home) else found.elsewhere.append(sent.url))
    page.goto(address)
    yield found
    context.close()


Opener = Callable[..., Watched]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Opens pages as `watched` does, until the test ends."""
    with ExitStack() as pages:
        yield lambda address, **look: pages.enter_context(watched(browser, address, **look))


@contextmanager
def served(*folders: Path) -> Iterator[str]:
    """Serve the viewer of runs at a free port of loopback: its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(application(Runs(folders)), log_level="warning", ws="none", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        end = time.monotonic() + WAIT_MS / 1000
        while not server.started:
            assert time.monotonic() < end, "the viewer does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(WAIT_MS / 1000)
