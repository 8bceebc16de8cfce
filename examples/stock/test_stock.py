"""The stock task is checked and played; its tools and its judge do what they say."""

import asyncio
from pathlib import Path

import pytest

import envs
from agile_ray.agent.environment import Submission, judged
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.scripted.references import Habits, play_sessions, reference
from launch.extend.check import check
from launch.run.shipped_configs import read
from rollout.rules import build_rules


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)


def test_nothing_is_wrong():
    assert check(read("stock.yaml")) == []


def test_the_oracle_asks_once_for_each_of_8_items_and_calls_two_tools_for_each_of_4_prices():
    config = read("stock.yaml")
    environment = envs.build(config.env, seed=config.seed)
    rules = build_rules(environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=0)
    chosen = plays(environment, split="test", sessions=40)
    played = play_sessions(
        reference("oracle", environment, Habits()), environment, split="test", plays=chosen, rules=rules
    )
    assert score(played).total_score == pytest.approx(1 - 0.3 * 8 / 20)
    assert {len(one.turns) for one in played if one.kind == "cost"} == {5}


@pytest.mark.parametrize(("share", "earned"), [(1.0, 1.0), (1.08, 0.5), (0.5, 0.0)])
def test_a_price_that_is_nearly_right_earns_half(share, earned):
    config = read("stock.yaml")
    stream = envs.build(config.env, seed=0).stream(split="train", index=0)
    asked = max((one for one in stream.questions if one.query), key=lambda one: int(one.answer))
    said = Submission(text=str(round(share * int(asked.answer))), rows=None)
    assert asyncio.run(judged(stream, asked, said)) == earned
