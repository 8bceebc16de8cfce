"""An inbox with people and agents."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from agile_ray.agent.environment import Question
from agile_ray.inbox.asks import Ask
from launch.inbox.queue import Queue

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "t" * 24


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


class Served:
    """An inbox in a process of its own, which may be killed and started again at the same port."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        words = ["-m", "launch.main", "inbox", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                httpx.get(self.url, timeout=2, verify=False)
                return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the inbox does not answer")

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=10)

    def post(self, name, **body):
        return httpx.post(
            f"{self.url}/api/{name}", json=body, verify=False, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        )

    def waiting(self):
        found = httpx.get(
            f"{self.url}/api/asks", verify=False, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        )
        return [one["ask"] for one in found.json()["open"]]

    def finish(self, key, *, who="person-1", state="answered", answer="x"):
        return self.post("finish", key=key, who=who, by="Ann", state=state, text="", answer=answer)


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("AGILE_INBOX_TOKEN", TOKEN)
    inbox = Served(tmp_path / "inbox").start()
    yield inbox
    if inbox.process.poll() is None:
        inbox.kill()
