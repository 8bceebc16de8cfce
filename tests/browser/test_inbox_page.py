"""The inbox in a browser: answering by keyboard at a desk and on a telephone, two people at one ask, and no token."""

import pytest
from playwright.sync_api import expect

from launch.inbox import queue
from tests.browser.conftest import BROAD, NARROW
from tests.inbox.conftest import TOKEN, Local, ask

SHOWN = "columns : width <cm>, price <euro>\nhow wide is the red lamp ?"
QUESTIONS = (
    "how wide is the red lamp ?",
    "does the blue chair come with arms , and if it does , can they be taken off without tools ?",
    "<img src=x onerror=alert(1)> which lamp is the cheapest ?",
    "is the white table waterproof ?",
    "may I have your password ?",
)
SEEN = {"context": SHOWN, "ask_probability": 0.25, "words": "which of the two chairs ?"}


@pytest.fixture
def inbox(tmp_path):
    served = Local(tmp_path)
    yield served
    served.close()


def put(inbox, number, **changes):
    """Ask a question; what the inbox says of it."""
    return inbox.ask(ask(number, text=QUESTIONS[number], **changes))


def link(inbox):
    """The address of the page, with the token."""
    return f"{inbox.url}/#token={TOKEN}"


def words(page):
    """The asks of the list."""
    return page.locator("#asks .words")


@pytest.mark.parametrize("width", [BROAD, NARROW])
def test_a_person_answers_edits_does_not_know_and_refuses_by_keyboard(inbox, opened, width):
    put(inbox, 3)
    inbox.finish(ask(3).key, answer="no", text="it is lacquered")
    put(inbox, 0, **SEEN)
    found = opened(link(inbox), width=width, dark=width == NARROW)
    page, question = found.page, found.page.locator("#question")
    expect(words(page)).to_have_text([QUESTIONS[0]])
    put(inbox, 1)
    put(inbox, 2)
    expect(words(page)).to_have_text([*QUESTIONS[:3]])  # the list follows the inbox
    for key in ("j", "k", "Enter"):
        page.keyboard.press(key)
    expect(question).to_have_text(QUESTIONS[0])
    expect(page.locator("#facts")).to_contain_text("25.0 %")
    expect(page.locator("#context")).to_have_text(SHOWN)
    expect(page.locator("#words")).to_have_text(SEEN["words"])
    found.check()
    assert words(page).first.is_visible() == (width == BROAD)
    for name in ("Answer", "Don't know", "Refuse"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["height"] >= 36
        assert box["y"] + box["height"] < page.viewport_size["height"]
    page.keyboard.type("40 cm")
    page.keyboard.press("Enter")
    expect(question).to_have_text(QUESTIONS[1])  # the next one opens
    expect(page.locator("#wants")).to_be_hidden()
    page.keyboard.press("Alt+1")
    expect(page.locator("#answer")).to_have_value("no")
    page.keyboard.type(", none")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("its arms are fixed")
    page.keyboard.press("Enter")
    expect(question).to_have_text(QUESTIONS[2])
    page.keyboard.press("Alt+d")
    expect(page.locator("#empty")).to_be_visible()
    put(inbox, 4)
    expect(words(page)).to_have_count(1)
    page.keyboard.press("Enter")
    expect(question).to_have_text(QUESTIONS[4])
    page.keyboard.press("Alt+r")
    expect(page.locator("#empty")).to_be_visible()
    assert [tuple(put(inbox, number, **({} if number else SEEN)).values()) for number in (0, 1, 2, 4)] == [
        ("answered", "40 cm", "40 cm"),
        ("answered", "its arms are fixed", "no, none"),
        ("unknown", "", ""),
        ("refused", "", ""),
    ]
    found.check()


def test_of_two_people_who_want_one_ask_one_gets_it_and_the_other_is_told(inbox, opened, monkeypatch):
    put(inbox, 0)
    both = [opened(link(inbox)) for _ in range(2)]
    pages = [found.page for found in both]
    for page in pages:
        expect(words(page)).to_have_count(1)
    for page in pages:  # at once: the first does not wait
        page.keyboard.press("Enter")
    for page in pages:
        expect(page.locator("#ask:visible, #error:visible")).to_have_count(1)
    [first] = [page for page in pages if page.locator("#ask").is_visible()]
    [second] = [page for page in pages if page is not first]
    expect(second.get_by_role("alert")).to_contain_text("somebody else is answering it")
    expect(second.locator("#asks")).to_contain_text("being answered")
    first.keyboard.type("40 cm")
    first.keyboard.press("Enter")
    expect(second.locator("#empty")).to_be_visible()
    assert put(inbox, 0)["answer"] == "40 cm"

    monkeypatch.setattr(queue, "LEASE_S", 0)  # so that both may open it
    put(inbox, 1)
    for page, name in zip(pages, ("Ann", "Bob"), strict=True):
        expect(words(page)).to_have_count(1)
        page.keyboard.press("Enter")
        expect(page.locator("#question")).to_have_text(QUESTIONS[1])
        page.keyboard.type(name)
    for page in pages:
        page.keyboard.press("Enter")
    for page in pages:
        expect(page.locator("#ask")).to_be_hidden()
    told = [page.get_by_role("alert").is_visible() for page in pages]
    assert sorted(told) == [False, True]
    assert put(inbox, 1)["answer"] == ("Bob" if told[0] else "Ann")
    assert "closed" in pages[told.index(True)].get_by_role("alert").inner_text()
    assert all("409" in error for found in both for error in found.errors)
    assert [found.elsewhere for found in both] == [[], []]


def test_without_the_token_nothing_is_shown_and_nothing_is_asked_for(inbox, opened):
    put(inbox, 0)
    found = opened(f"{inbox.url}/", width=NARROW)
    page, asked = found.page, []
    page.on("request", lambda sent: asked.append(sent.url.removeprefix(f"{inbox.url}/")))
    page.reload()
    page.locator("#token").wait_for()
    assert not [path for path in asked if path.startswith("api/")]
    found.check()
    page.keyboard.type("a token that is wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This is not the token.")
    assert "lamp" not in page.content()
    assert all("401" in error for error in found.errors)
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    expect(words(page)).to_have_text([QUESTIONS[0]])
    assert TOKEN not in page.content() + page.url
