"""Prompted policies against a real vLLM server with a tiny model: replies are nonsense, and counted."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from envs.endpoints.chat import Chat
from launch.commands.model import tiny

pytestmark = pytest.mark.integration

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
START_S = 80.0


@contextmanager
def vllm_server(model, folder):
    """Serve a folder; yields the endpoint's URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    words = ("--model", str(model), "--served-model-name", "tiny", "--port", str(port))
    limits = ("--chat-template", str(template), "--max-model-len", "4096", "--max-num-seqs", "8")
    plain = ("--enforce-eager", "--dtype", "float32")
    surroundings = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, *limits, *plain],
            env=surroundings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + START_S
            while not _answers(f"{url}/health"):
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.5)
            yield f"{url}/v1"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.timeout(170)
def test_prompted_policies_play_against_a_vllm_server(call, tmp_path):
    model = tmp_path / "tiny"
    tiny(model, env="recurring", data=None, config=None, hidden=128, layers=2, vocabulary=2048, context=4096, seed=0)
    with vllm_server(model, tmp_path) as url:
        chat = Chat(url=url, model="tiny", deadline_s=60.0)
        chat.ask([{"role": "user", "content": "is it wet ?"}], max_tokens=5)
        assert (chat.usage.requests, chat.usage.completion_tokens) == (1, 5)
        assert chat.usage.prompt_tokens > 3
        for policy in ("prompt", "prompted_agent"):
            output = tmp_path / f"{policy}.json"
            code, out, err = call(
                *("evaluate", "toy/three_prices", "--policy", policy, "--endpoint", url, "--model", "tiny"),
                *("--token-prices", "1", "2", "--output", str(output)),
                *(
                    "evaluate.sessions=4",
                    "agent.turns=3",
                    "agent.session_tokens=256",
                    f"model.path={tmp_path / 'none'}",
                ),
            )
            assert code == 0, err
            found = json.loads(output.read_text())
            assert found["usage"]["requests"] >= 4
            assert found["usage"]["failed"] == 0
            assert found["failed"] == 0
            assert "completion tokens, cost " in out
