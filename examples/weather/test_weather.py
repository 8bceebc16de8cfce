"""The weather task plays its tools on a server that speaks MCP, on loopback."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import envs
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.scripted.references import Habits, play_sessions, reference
from launch.extend.check import check
from launch.run.shipped_configs import read
from rollout.rules import build_rules

pytest.importorskip("mcp")
HERE = Path(__file__).parent
BUSY = ["env.tool_s=60"]
"""A busy machine may take its time."""


@pytest.fixture(scope="module")
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "server.py"), str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def here(monkeypatch, address):
    monkeypatch.chdir(HERE)
    monkeypatch.setenv("WEATHER", address)


def test_nothing_is_wrong():
    assert check(read("weather.yaml", BUSY)) == []


def test_the_servers_tool_answers_what_it_can_and_the_expert_the_rest():
    config = read("weather.yaml", BUSY)
    environment = envs.build(config.env, seed=config.seed)
    rules = build_rules(environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=0)
    chosen = plays(environment, split="test", sessions=None)
    played = play_sessions(
        reference("oracle", environment, Habits()), environment, split="test", plays=chosen, rules=rules
    )
    assert score(played).accuracy == 1.0
    assert {one.kind: sum(other.asks for other in played if other.kind == one.kind) for one in played} == {
        "question": 0,
        "guide": 2,
    }
