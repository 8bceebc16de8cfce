"""Prompted policies and a chat expert against a real vLLM server with a tiny model: nonsense, and counted."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager

import pytest

from agile_ray.agent.expert import AskKey
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.config import Env
from agile_ray.prices import Prices
from agile_ray.types import Outcome
from envs.endpoints.chat import Chat
from launch.commands.model import tiny
from rollout.experts import build_expert
from tests.fakes.worlds import question

pytestmark = [pytest.mark.integration, pytest.mark.long]

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}answer:"
"""After a line break the model would write line breaks alone, which are no answer."""
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


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """One server for all tests of this file: it takes half a minute to start."""
    folder = tmp_path_factory.mktemp("server")
    model = folder / "tiny"
    tiny(model, env="recurring", data=None, config=None, hidden=128, layers=2, vocabulary=2048, context=4096, seed=0)
    with vllm_server(model, folder) as found:
        yield found


@pytest.mark.timeout(170)
def test_prompted_policies_play_against_a_vllm_server(call, tmp_path, url):
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


def served(url):
    """Requests that the server finished, and the tokens that it read and wrote, as it counts them itself."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()

    def total(name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{name}_total"))

    return total("request_success"), total("prompt_tokens") + total("generation_tokens")


@pytest.mark.timeout(170)
def test_a_chat_expert_is_asked_until_its_tokens_are_spent_and_never_twice_for_a_question(tmp_path, url):
    def experts(tokens):
        spec = {"name": "chat", "url": url, "model": "tiny", "tokens": tokens, "cache": tmp_path / "answers.sqlite"}
        config = Env(name="shop", expert=spec, advice_cost=0.2)
        built = build_expert(config, deadline_s=60.0)
        return built.spending, PaidExpert(built, deadline_s=60.0), Prices.of(config, seed=0)

    async def asked(paid, prices, numbers, stream):
        keys = {number: AskKey(stream=stream, position=number, number=0) for number in numbers}
        return await asyncio.gather(
            *(
                paid.ask(question(number, f"is number {number} wet ?"), key=key, price=200, prices=prices)
                for number, key in keys.items()
            )
        )

    requests, tokens = served(url)
    books, paid, prices = experts(1500)
    found = asyncio.run(asked(paid, prices, range(8), "a"))
    outcomes = Counter(one.outcome for one in found)
    answered = [number for number, one in enumerate(found) if one.outcome is Outcome.ANSWERED]
    assert set(outcomes) == {Outcome.ANSWERED, Outcome.CAPPED}, outcomes
    assert all(one.advice and one.price == 200 for one in found if one.outcome is Outcome.ANSWERED)
    assert {one.price for one in found if one.outcome is Outcome.CAPPED} == {0}
    spent = books.tokens
    assert spent <= 1500
    expected, end = (requests + len(answered), tokens + spent), time.monotonic() + 10.0
    while served(url) != expected and time.monotonic() < end:  # the server counts a moment after it answers
        time.sleep(0.1)
    assert served(url) == expected

    books, paid, prices = experts(spent)  # a later run with the same cache, and nothing left to spend
    again = asyncio.run(asked(paid, prices, answered, "b"))
    assert [one.advice for one in again] == [found[number].advice for number in answered]
    (capped,) = asyncio.run(asked(paid, prices, [8], "b"))
    assert (capped.outcome, capped.price) == (Outcome.CAPPED, 0)
    assert (books.tokens, served(url)) == (spent, expected)
