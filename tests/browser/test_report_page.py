"""The report's page in a browser: wide, narrow, dark and in print; and what it says of runs that went wrong."""

from dataclasses import replace

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.types import Ending
from launch.commands import report
from launch.report.page.run_page import render
from launch.report.summary import build
from tests.browser.conftest import BROAD, NARROW
from tests.fakes.played import PLAYED, played
from tests.fakes.stored import turn
from tests.fakes.worlds import changed
from tests.launch.test_report import finished, run_folder  # noqa: F401  fixtures
from tests.launch.test_warnings import DOWN, evaluated, history


def page_of(folder, lines, results):
    """Write the page of a run; its address."""
    config = RunConfig(run=Run(name="r", folder="runs"), model=Model(path="m"), env=Env(name="shop"))
    path = folder / "report.html"
    path.write_text(render(build(results, config=config, lines=lines, starts=[])), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def whole(tmp_path):
    """A page with every part: credit, KL, calibration and memory too."""
    lines = [replace(line, metrics=line.metrics | {"credit_mean": 0.1}) for line in history()]
    sampled = [
        changed(one, turns=(turn([0], [1], ask=0.25 * index),), memory_sizes={"a": one.position})
        for index, one in enumerate(played("ppo_sampled"))
    ]
    return page_of(tmp_path, lines, evaluated() | {"ppo_sampled": sampled})


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [BROAD, NARROW])
def test_a_run_is_readable_at_a_desk_and_on_a_telephone(opened, whole, width, dark):
    found = opened(whole, width=width, dark=dark)
    found.check()
    page = found.page
    titles = page.locator("figcaption").all_inner_texts()
    assert {"Credit", "KL", "Memory"} <= {title.split(" (")[0] for title in titles}
    head = page.locator("#policies table").first.locator("th:visible").all_inner_texts()
    assert [name for name in head if name in ("total", "right", "asked")] == ["total", "right", "asked"]
    assert ("sessions" in head) == (width == BROAD)
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (_light(ink), _light(paper)) == (dark, not dark)
    assert cut_texts(page) == []


def test_in_print_a_dark_page_is_dark_on_white_with_everything_open(opened, whole):
    found = opened(whole, dark=True)
    found.page.emulate_media(media="print")
    found.check()
    ink = found.page.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(0, 0, 0)"
    assert not found.page.locator("nav").is_visible()
    tables = found.page.locator("details table")
    assert tables.count() > 1
    assert all(one.is_visible() for one in tables.all())


@pytest.mark.parametrize("width", [BROAD, NARROW])
def test_a_sweep_is_readable_at_a_desk_and_on_a_telephone(opened, run_folder, capsys, width):  # noqa: F811
    report.command(run_folder.parent)
    found = opened((run_folder.parent / "report.html").as_uri(), width=width)
    found.check()
    chart = found.page.locator("#frontier-1 svg").first
    assert chart.is_visible()
    assert sorted(chart.locator("text.name").all_text_contents()) == sorted(PLAYED)  # one price: a point of each policy
    assert cut_texts(found.page) == []


DOWN_FROM_4 = dict.fromkeys(range(4, 8), 90)
BAD = {
    "always asks": (
        history(asked_share={i: min(1.0, 0.2 * i) for i in range(1, 11)}),
        {"ppo": played("always_ask")},
        "The policy collapsed to always asking: from iteration 5 on",
    ),
    "expert down": (
        history(lost=DOWN_FROM_4, asked_share=dict.fromkeys(DOWN_FROM_4, 0.0)),
        {
            "ppo": [
                *(changed(one, ending=Ending.FAILED, error=DOWN) for one in played("always_ask")[:3]),
                played("ppo")[3],
            ]
        },
        "The expert failed in training, iterations 4 to 7: 360 of 1,000 sessions (36%)",
    ),
    "KL spike": (
        history(kl_nats={6: 0.2, 7: 0.41}),
        {},
        "The KL to the SFT policy spiked: 0.41 nats per token at iteration 7",
    ),
}


@pytest.mark.parametrize("width", [BROAD, NARROW])
@pytest.mark.parametrize("name", BAD)
def test_what_went_wrong_is_seen_before_the_first_scroll(opened, tmp_path, name, width):
    lines, results, said = BAD[name]
    found = opened(page_of(tmp_path, lines, evaluated() | results), width=width)
    found.check()
    warning = found.page.get_by_role("alert").get_by_text(said)
    box = warning.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < found.page.viewport_size["height"]
    first = found.page.locator(".lead").first.bounding_box()
    assert box["y"] < first["y"]


def cut_texts(page):
    """Texts of charts that reach beyond their picture."""
    return page.evaluate(
        """[...document.querySelectorAll("figure > svg")].flatMap(svg => {
          const edge = svg.getBoundingClientRect();
          return [...svg.querySelectorAll("text")].filter(text => {
            const box = text.getBoundingClientRect();
            return box.left < edge.left - 1 || box.right > edge.right + 1 || box.bottom > edge.bottom + 1;
          }).map(text => text.textContent);
        })"""
    )


def _light(colour):
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) > 384
