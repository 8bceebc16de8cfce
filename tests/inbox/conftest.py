"""An inbox with people and agents."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn

from agile_ray.agent.environment import Question
from agile_ray.inbox.asks import ASK, Ask
from launch.inbox.app import Changes, application
from launch.inbox.lines import Lines
from launch.inbox.queue import FILE, Queue
from launch.inbox.server import Server

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "t" * 24
WITH = {"Authorization": f"Bearer {TOKEN}"}


def ask(number=0, **changes):
    fields = {
        "stream": "train/0",
        "question_id": f"q{number}",
        "kind": "fact",
        "topic": "fact",
        "text": f"who is {number} ?",
    }
    return Ask(**{"key": f"train/0#{number}#0", **fields, **changes})


def question(number=0):
    return Question(id=f"q{number}", text=f"who is {number} ?", answer="gold, which nobody may see")


@pytest.fixture
def queue(tmp_path):
    opened = Queue(tmp_path / "inbox.sqlite")
    yield opened
    opened.close()


class Reached:
    """An inbox that is asked over HTTP."""

    def __init__(self, folder):
        self.folder = folder

    def post(self, name, **body):
        return httpx.post(f"{self.url}/api/{name}", json=body, verify=False, headers=WITH, timeout=110)

    def ask(self, one):
        """Ask; what the inbox says of it."""
        return self.post("ask", ask=ASK.dump_python(one), deadline_s=600.0).raise_for_status().json()

    def waiting(self):
        found = httpx.get(f"{self.url}/api/asks", verify=False, headers=WITH, timeout=110)
        return [one["ask"] for one in found.json()["open"]]

    def finish(self, key, *, who="person-1", state="answered", answer="x", text=""):
        return self.post("finish", key=key, who=who, by="Ann", state=state, text=text, answer=answer)


class Local(Reached):
    """One in a thread of this process."""

    def __init__(self, folder):
        super().__init__(folder)
        self._queue = Queue(folder / FILE)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self._changes = changes = Changes()
        app = application(self._queue, changes, token=TOKEN)
        self._server = Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2), changes)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._door]}, daemon=True)
        self._thread.start()

    def forget(self):
        """Forget every line, as one that was started again."""
        self._changes.lines = Lines()

    def close(self):
        self._server.should_exit = True
        self._thread.join(60)
        self._queue.close()
        self._door.close()


class Served(Reached):
    """One in a process of its own, which may be killed and started again at the same port."""

    def __init__(self, folder):
        super().__init__(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        words = ["-m", "launch.main", "inbox", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 100
        while time.monotonic() < end:
            try:
                httpx.get(self.url, timeout=10, verify=False)
                return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the inbox does not answer")

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("AGILE_INBOX_TOKEN", TOKEN)
    inbox = Local(tmp_path)
    yield inbox
    inbox.close()


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("AGILE_INBOX_TOKEN", TOKEN)
    inbox = Served(tmp_path / "inbox").start()
    yield inbox
    if inbox.process.poll() is None:
        inbox.kill()
