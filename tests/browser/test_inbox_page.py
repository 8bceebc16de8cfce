"""The inbox in a browser: answering by keyboard at a desk and on a telephone, two people at one ask, and no token."""

import socket
import threading

import httpx
import pytest
import uvicorn
from playwright.sync_api import expect

from agile_ray.inbox.asks import ASK
from launch.inbox import queue
from launch.inbox.app import Changes, application
from launch.inbox.queue import FILE, Queue
from launch.inbox.server import Server
from tests.browser.conftest import BROAD, NARROW
from tests.inbox.conftest import TOKEN, ask

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
SHOWN = "columns : width <cm>, price <euro>\nhow wide is the red lamp ?"
QUESTIONS = (
    "how wide is the red lamp ?",
    "does the blue chair come with arms , and if it does , can they be taken off without tools ?",
    "<img src=x onerror=alert(1)> which lamp is the cheapest ?",
    "is the white table waterproof ?",
    "may I have your password ?",
)


class Inbox:
    """An inbox in a thread of this process, and the agents that ask it."""

    def __init__(self, folder):
        self._queue = Queue(folder / FILE)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.home = f"http://127.0.0.1:{self._door.getsockname()[1]}/"
        changes = Changes()
        app = application(self._queue, changes, token=TOKEN)
        self._server = Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2), changes)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._door]}, daemon=True)
        self._thread.start()
        self._client = httpx.Client(base_url=self.home, headers=HEADERS, timeout=10, trust_env=False, verify=False)

    @property
    def link(self):
        """The address of the page, with the token."""
        return f"{self.home}#token={TOKEN}"

    def post(self, number, **changes):
        """Ask; what the inbox says of it."""
        one = ask(number, text=QUESTIONS[number], **changes)
        body = {"ask": ASK.dump_python(one), "deadline_s": 600.0}
        return self._client.post("api/ask", json=body).raise_for_status().json()

    def finish(self, number, *, answer, text=""):
        """Answer as somebody else does, without a browser."""
        body = {"key": ask(number).key, "who": "somebody", "by": "Bob", "state": "answered"}
        self._client.post("api/finish", json={**body, "answer": answer, "text": text}).raise_for_status()

    def close(self):
        self._client.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._queue.close()
        self._door.close()


@pytest.fixture
def inbox(tmp_path):
    served = Inbox(tmp_path)
    yield served
    served.close()


def words(page):
    """The asks of the list."""
    return page.locator("#asks .words")


@pytest.mark.parametrize("width", [BROAD, NARROW])
def test_a_person_answers_edits_does_not_know_and_refuses_by_keyboard(inbox, opened, width):
    inbox.post(3)
    inbox.finish(3, answer="no", text="it is lacquered")
    inbox.post(0, context=SHOWN, ask_probability=0.25)
    found = opened(inbox.link, width=width, dark=width == NARROW)
    page, question = found.page, found.page.locator("#question")
    expect(words(page)).to_have_text([QUESTIONS[0]])
    inbox.post(1)
    inbox.post(2)
    expect(words(page)).to_have_text([*QUESTIONS[:3]])  # the list follows the inbox
    for key in ("j", "k", "Enter"):
        page.keyboard.press(key)
    expect(question).to_have_text(QUESTIONS[0])
    expect(page.locator("#facts")).to_contain_text("25.0 %")
    expect(page.locator("#context")).to_have_text(SHOWN)
    found.check()
    assert words(page).first.is_visible() == (width == BROAD)
    for name in ("Answer", "Don't know", "Refuse"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["height"] >= 36
        assert box["y"] + box["height"] < page.viewport_size["height"]
    page.keyboard.type("40 cm")
    page.keyboard.press("Enter")
    expect(question).to_have_text(QUESTIONS[1])  # the next one opens
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
    inbox.post(4)
    expect(words(page)).to_have_count(1)
    page.keyboard.press("Enter")
    expect(question).to_have_text(QUESTIONS[4])
    page.keyboard.press("Alt+r")
    expect(page.locator("#empty")).to_be_visible()
    assert [tuple(inbox.post(number).values()) for number in (0, 1, 2, 4)] == [
        ("answered", "40 cm", "40 cm"),
        ("answered", "its arms are fixed", "no, none"),
        ("unknown", "", ""),
        ("refused", "", ""),
    ]
    found.check()


def test_of_two_people_who_want_one_ask_one_gets_it_and_the_other_is_told(inbox, opened, monkeypatch):
    inbox.post(0)
    both = [opened(inbox.link) for _ in range(2)]
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
    assert inbox.post(0)["answer"] == "40 cm"

    monkeypatch.setattr(queue, "LEASE_S", 0)  # so that both may open it
    inbox.post(1)
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
    assert inbox.post(1)["answer"] == ("Bob" if told[0] else "Ann")
    assert "closed" in pages[told.index(True)].get_by_role("alert").inner_text()
    assert all("409" in error for found in both for error in found.errors)
    assert [found.elsewhere for found in both] == [[], []]


def test_without_the_token_nothing_is_shown_and_nothing_is_asked_for(inbox, opened):
    inbox.post(0)
    found = opened(inbox.home, width=NARROW)
    page, asked = found.page, []
    page.on("request", lambda sent: asked.append(sent.url.removeprefix(inbox.home)))
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
