"""The trivia task is checked, played and scored; trained where tests may start engines."""

import subprocess
import sys
from pathlib import Path

import pytest

import envs
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.scripted.references import Habits, play_sessions, reference
from launch.extend.check import check
from launch.run.shipped_configs import read
from rollout.rules import build_rules

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(HERE)


def test_nothing_is_wrong():
    assert check(read("trivia.yaml")) == []


@pytest.mark.parametrize(("policy", "total"), [("oracle", 0.88), ("ask_unless_search", 0.76), ("always_ask", 0.7)])
def test_policies_earn_what_can_be_counted_by_hand(policy, total):
    """Two capitals asked about twice each, and a sum: 5 questions, of which 2, 4 and 5 are asked at 0.3 each."""
    config = read("trivia.yaml")
    environment = envs.build(config.env, seed=config.seed)
    rules = build_rules(environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=0)
    chosen = plays(environment, split="test", sessions=None)
    played = play_sessions(
        reference(policy, environment, Habits()), environment, split="test", plays=chosen, rules=rules
    )
    assert score(played).total_score == pytest.approx(total)
    assert score(played).accuracy == 1.0


@pytest.mark.integration
@pytest.mark.long
def test_it_trains(tmp_path):
    def run(*words):
        subprocess.run([sys.executable, "-m", "launch.main", *words], check=True)

    model, small = (
        f"{tmp_path}/model",
        ("imitation.sessions=64", "loop.iterations=1", "loop.lanes=4", "learner.ranks=1"),
    )
    run("model", "tiny", "--config", "trivia.yaml", "--hidden", "64", "--layers", "1", "--output", model)
    run("train", "trivia.yaml", f"model.path={model}", f"run.folder={tmp_path}", *small)
    assert (tmp_path / "trivia" / "report.json").is_file()
