"""The inbox over HTTP: what it refuses, and that its page needs nothing else."""

import asyncio
import re
import resource
import socket
import sqlite3
from dataclasses import asdict

import pytest
from starlette.testclient import TestClient

from agile_ray.errors import ConfigError
from agile_ray.inbox.asks import State
from launch.inbox import app
from launch.inbox import token as tokens
from launch.inbox.app import LONGEST_BODY, STATIC, Changes, Inbox, application
from launch.inbox.lines import DROPPED_S, TOLD_AT_ONCE, Lines
from launch.inbox.notify import Webhook
from launch.inbox.server import allow_connections, owned
from launch.view.app import HEADERS
from tests.conftest import one_line
from tests.fakes.endpoint import Reply, serving
from tests.inbox.conftest import TOKEN, WITH, ask

ODD = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028"
REPLY = {"key": ask().key, "who": "person-1", "by": "Ann", "state": "answered", "text": "", "answer": "x"}
PAGE = (STATIC / "index.html").read_text()


@pytest.fixture
def client(tmp_path):
    from launch.inbox.queue import Queue

    queue = Queue(tmp_path / "inbox.sqlite")
    queue.post(ask(text=ODD, context=ODD, ask_probability=0.25), deadline_s=1e10, now=0)
    yield TestClient(application(queue, Changes(), token=TOKEN), base_url="http://127.0.0.1:8322")
    queue.close()


@pytest.mark.parametrize("path", ["/api/asks", "/api/ask", "/api/wait", "/api/claim", "/api/release", "/api/finish"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": "Bearer \u00e9".encode()}, {"Cookie": f"token={TOKEN}"}])  # fmt: skip
def test_without_the_token_there_is_nothing(client, path, headers):
    found = client.request("GET" if path == "/api/asks" else "POST", path, headers=headers)
    assert (found.status_code, found.json()) == (401, {"error": "the token is missing or wrong"})
    assert {name: found.headers[name] for name in HEADERS} == HEADERS


def test_the_token_in_the_address_does_not_count(client):
    assert client.get("/api/asks", params={"token": TOKEN}).status_code == 401


def test_what_is_asked_is_sent_as_data(client):
    found = client.get("/api/asks", headers=WITH)
    assert found.headers["Content-Type"] == "application/json"
    [one] = found.json()["open"]
    assert (one["ask"]["text"], one["ask"]["ask_probability"]) == (ODD, 0.25)
    assert "alert(" not in client.get("/").text


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("claim", {"key": "x", "who": "person-1"}, 404),
        ("claim", {"key": ask().key, "who": "p"}, 400),
        ("claim", {"key": ask().key}, 400),
        ("finish", {**REPLY, "answer": " "}, 400),
        ("finish", {**REPLY, "state": "late"}, 400),
        ("finish", {**REPLY, "answer": "x" * 20_001}, 400),
        ("ask", {"ask": {}, "deadline_s": 1}, 400),
        ("ask", {"ask": asdict(ask(1, words="x" * 20_001)), "deadline_s": 1}, 400),
        ("wait", {"line": "a", "wait_s": 1}, 400),
        ("wait", {"line": "line-one", "wait_s": "inf"}, 400),
        ("ask", {"ask": asdict(ask(1)), "deadline_s": 0}, 400),
        ("ask", {"ask": asdict(ask(1)), "deadline_s": "inf"}, 400),
        ("ask", {"ask": asdict(ask(1, ask_probability=1.5)), "deadline_s": 1}, 400),
        ("claim", {"key": "x" * LONGEST_BODY, "who": "person-1"}, 400),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(client, name, body, code):
    found = client.post(f"/api/{name}", headers=WITH, json=body)
    assert found.status_code == code
    assert "\n" not in found.json()["error"]
    assert client.get("/api/asks", headers=WITH).json()["counts"]["open"] == 1


def test_the_second_person_is_told_why(client):
    assert client.post("/api/claim", headers=WITH, json={"key": ask().key, "who": "person-1"}).status_code == 200
    other = {"key": ask().key, "who": "person-2"}
    assert client.post("/api/claim", headers=WITH, json=other).status_code == 409
    assert client.post("/api/finish", headers=WITH, json=REPLY).status_code == 200
    found = client.post("/api/finish", headers=WITH, json={**REPLY, "who": "person-2"})
    assert (found.status_code, found.json()["error"]) == (409, f"{ask().key}: it is closed already: answered by Ann")


def test_the_page_names_only_what_is_there_and_runs_nothing_of_its_own(client):
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", PAGE) == []
    named = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", PAGE)
    assert [client.get(path).status_code for path in [*named, "/static/dom.js"]] == [200] * (len(named) + 1)
    scripts = "".join(path.read_text() for path in STATIC.glob("*.js"))
    assert set(re.findall(r"\$\(\"(\w+)\"\)", scripts)) <= set(re.findall(r"\bid=\"(\w+)\"", PAGE))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?:", scripts
    )


def test_a_token_is_made_once_and_only_its_owner_reads_it(tmp_path, monkeypatch):
    monkeypatch.delenv("AGILE_INBOX_TOKEN", raising=False)
    made = tokens.token(tmp_path)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert tokens.token(tmp_path) == made
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ConfigError, match="only its owner"):
        tokens.token(tmp_path)
    monkeypatch.setenv("AGILE_INBOX_TOKEN", "short")
    with pytest.raises(ConfigError, match="at least 16"):
        tokens.token(tmp_path)


def test_one_process_serves_an_inbox(tmp_path):
    with owned(tmp_path), pytest.raises(ConfigError, match="another one does"), owned(tmp_path):
        pass


def test_pages_that_wait_are_woken_by_each_change():
    async def play():
        changes = Changes()
        for _ in range(2):
            woken = [asyncio.ensure_future(changes.wait(60)) for _ in range(3)]
            await asyncio.sleep(0)
            changes.now()
            await asyncio.wait_for(asyncio.gather(*woken), 30)
        await changes.wait(0.01)

    asyncio.run(play())


def told(client, line, *, read=0):
    return client.post("/api/wait", headers=WITH, json={"line": line, "wait_s": 0, "read": read}).json()


def test_a_line_is_told_of_its_own_asks_until_it_has_read_it(client):
    assert told(client, "line-one") == {"known": False, "number": 0, "told": {}}
    assert told(client, "line-two")["known"] is False
    for number, line in ((1, "line-one"), (2, "line-two"), (3, "line-nobody-keeps")):
        asked = {"ask": asdict(ask(number)), "deadline_s": 600, "line": line}
        assert client.post("/api/ask", headers=WITH, json=asked).json()["state"] == "open"
        assert client.post("/api/finish", headers=WITH, json={**REPLY, "key": ask(number).key}).status_code == 200
    yes = {"state": "answered", "text": "x", "answer": "x"}
    for _ in range(2):  # the first reply may be lost
        assert told(client, "line-one") == {"known": True, "number": 1, "told": {ask(1).key: yes}}
    assert told(client, "line-one", read=1) == {"known": True, "number": 1, "told": {}}
    assert told(client, "line-two") == {"known": True, "number": 1, "told": {ask(2).key: yes}}
    assert told(client, "line-nobody-keeps")["known"] is False


def test_a_line_wakes_when_an_ask_is_closed_and_is_dropped_when_nobody_listens():
    now = [0.0]
    lines = Lines(clock=lambda: now[0])

    async def play():
        for name in ("gone", "busy"):
            lines.open(name)
            lines.add(name, "a")
        listening = asyncio.ensure_future(lines.wait("busy", read=0, seconds=60))
        await asyncio.sleep(0)
        now[0] = DROPPED_S + 1
        lines.open("new")
        assert ("gone" in lines, "busy" in lines) == (False, True)
        lines.close("a")
        assert await asyncio.wait_for(listening, 30) == {1: "a"}
        for number in range(TOLD_AT_ONCE):
            lines.add("busy", f"b{number}")
            lines.close(f"b{number}")
        first = await lines.wait("busy", read=1, seconds=0)
        lines.add("busy", "c")
        lines.close("c")
        assert len(first) == TOLD_AT_ONCE
        assert await lines.wait("busy", read=max(first), seconds=0) == {TOLD_AT_ONCE + 2: "c"}
        listening = asyncio.ensure_future(lines.wait("new", read=0, seconds=60))
        await asyncio.sleep(0)
        lines.wake_all()
        assert await asyncio.wait_for(listening, 30) == {}

    asyncio.run(play())


async def notified(webhook, queue, now):
    await webhook.tell(queue.waiting(now), count=queue.counts()["open"], now=now)
    if webhook._sending is not None:
        await webhook._sending


def test_a_webhook_is_told_of_new_asks_once_in_a_while_and_may_fail(queue, capsys):
    url = "http://127.0.0.1:9/secret"
    webhook = Webhook(url, every_s=60)

    async def play():
        for number, now in enumerate((100, 110, 170, 240)):
            if number < 3:
                queue.post(ask(number), deadline_s=999, now=now)
            await notified(webhook, queue, now)

    asyncio.run(play())
    assert webhook.failures == 2  # at 100, at 170; the ask of 110 is told of then, and at 240 nothing is new
    said = capsys.readouterr().err
    assert "2 so far" in said
    assert "secret" not in said


def test_a_webhook_that_refuses_is_not_named(capsys):
    with serving(Reply(status=404)) as endpoint:
        asyncio.run(Webhook(f"{endpoint.url.replace('http', 'HTTP')}/se cret")._send({"text": "asks wait"}))
    assert capsys.readouterr().err == "inbox: notification failed (1 so far): status 404\n"


def test_deadlines_are_kept_again_after_the_disk_was_full(queue, monkeypatch, capsys):
    monkeypatch.setattr(app, "TICK_S", 0.01)
    queue.post(ask(), deadline_s=1, now=0)
    expire, faults = queue.expire, [sqlite3.OperationalError("database or disk is full")] * 2

    def full(now):
        if faults:
            raise faults.pop()
        return expire(now)

    monkeypatch.setattr(queue, "expire", full)

    async def play():
        watches = asyncio.ensure_future(Inbox(queue, Changes()).watch())
        async with asyncio.timeout(60):
            while queue.told(ask().key).state is State.OPEN:
                await asyncio.sleep(0.01)
        watches.cancel()

    asyncio.run(play())
    assert queue.told(ask().key).state is State.LATE
    assert capsys.readouterr().err.count("disk is full; trying again") == 1


def test_an_inbox_may_have_all_connections_that_the_system_allows():
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, most))
        allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


def test_an_inbox_whose_port_is_taken_makes_no_folder(call, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = call("inbox", tmp_path / "inbox", "--port", taken.getsockname()[1])
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "an address that is free here" in one_line(err)


@pytest.mark.parametrize(
    ("words", "says"), [((), "can't be the folder of an inbox"), (("--export",), "can't be written")]
)
def test_a_folder_that_can_not_be_made_is_one_line(call, tmp_path, words, says):
    (tmp_path / "taken").write_text("a file")
    below = tmp_path / "taken" / "below"
    code, out, err = call("inbox", *((tmp_path, *words, below / "asked.jsonl") if words else (below,)))
    assert (code, out, (tmp_path / "taken").read_text()) == (2, "", "a file")
    assert says in one_line(err)
