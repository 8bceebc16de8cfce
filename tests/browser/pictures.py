"""Draws the pictures of README.md: `python -m tests.browser.pictures SWEEP RUN --output docs/pictures`."""

import argparse
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import ViewportSize, expect

from agile_ray.record.folder import RunFolder
from launch.commands import report
from launch.view.answers import sessions
from launch.view.query import Query
from launch.view.runs import TRAINING, Runs
from tests.browser.conftest import chromium, served

VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
SESSION_SCALE, FRONTIER_SCALE = 1, 2
"""Pixels of a picture for each pixel of the page; a picture has less than 200 kB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, help="finished runs, for the frontier; their page is written anew")
    parser.add_argument("run", type=Path, help="for a session: that whose credit is the highest in the last iteration")
    parser.add_argument("--output", type=Path, required=True)
    words = parser.parse_args()
    words.output.mkdir(parents=True, exist_ok=True)
    report.command(words.sweep)
    with served(words.run) as home, chromium() as browser:
        page = browser.new_page(viewport=VIEWPORT, device_scale_factor=SESSION_SCALE)
        page.goto(f"{home}#{urlencode(_session(words.run))}")
        panel = page.locator("#session")
        expect(panel.locator(".readers")).to_be_visible()
        rest = panel.evaluate("panel => panel.scrollHeight - panel.clientHeight")
        page.set_viewport_size({"width": VIEWPORT["width"], "height": VIEWPORT["height"] + rest})
        panel.screenshot(path=words.output / "session.png")
        page = browser.new_page(viewport=VIEWPORT, device_scale_factor=FRONTIER_SCALE)
        page.goto((words.sweep / "report.html").resolve().as_uri())
        page.locator("#frontier-1 figure").first.screenshot(path=words.output / "frontier.png")


def _session(run: Path) -> dict[str, str | int]:
    """The address of a session that asked, wrote what it was told, and was read."""
    last = RunFolder(run).stored_iterations()[-1]
    shown = Query(iteration=last, asked=True, sort="credit", descending=True)
    runs = Runs([run])
    opened = runs.open(runs.names[0], TRAINING)
    [first, *_] = sessions(runs, opened, None, shown)["rows"]
    return {"source": TRAINING, "iteration": last, "asked": 1, "sort": "credit", "descending": 1, "key": first["key"]}


if __name__ == "__main__":
    main()
