"""What each knob declares that it affects, key by key."""

import json

import pytest

from agile_ray.config import RunConfig
from agile_ray.effects import (
    imitation_of,
    machines_of,
    may_change_on_resume,
    pair_conflicts,
    resume_conflicts,
    sft_evaluation_of,
)
from agile_ray.knobs import Affects, Section, knobs
from launch.run import shipped_configs

KEYS = [knob.key for knob in knobs(RunConfig)]
ENGINE_MEMORY = {"rollout.kv_cache_gib", "rollout.gpu_memory"}


def config(*overrides: str) -> RunConfig:
    return shipped_configs.read("quickstart", overrides)


def beginning(*words: str) -> set[str]:
    return {key for key in KEYS if key.startswith(words)}


def test_a_resumed_run_may_change_how_long_and_where_it_runs():
    free = {knob.key for knob in knobs(RunConfig) if may_change_on_resume(knob)}
    loop = {"loop.iterations", "loop.checkpoint_every", "loop.evaluate_every", "imitation.checkpoint_every"}
    memory = {"learner.micro_batch_tokens", "learner.gradient_checkpointing"} | ENGINE_MEMORY
    assert free == beginning("run.", "cluster.", "evaluate.") | loop | memory
    assert resume_conflicts(config(), config("loop.iterations=99", "cluster.deadline_s=9", "run.name=other")) == []
    assert resume_conflicts(config(), config("ppo.clip=0.1")) == ["ppo.clip was 0.3, is 0.1"]


def test_an_expert_may_move_before_a_run_resumes_and_stays_the_same():
    def asking(port, **more):
        colleague = {"name": "http", "url": f"http://h:{port}", "price": 0.1, **more}
        return config(f"env.expert={{name: inbox, url: 'http://h:{port}', colleague: {json.dumps(colleague)}}}")

    assert resume_conflicts(asking(1), asking(2)) == []
    [said] = resume_conflicts(asking(1), asking(1, reliability=0.5))
    assert said.startswith("env.expert was ")


def test_machines_are_restarted_if_a_setting_of_their_start_changes():
    machines = beginning("model.", "rollout.", "learner.", "cluster.")
    assert set(machines_of(config())) == machines | {
        "loop.lanes",
        "agent.session_tokens",
        "imitation.dtype",
        "ppo.dtype",
    }
    assert machines_of(config()) != machines_of(config("env.expert.words=true"))


IMITATION = beginning("seed", "model.", "env.", "agent.", "memory.", "imitation.", "learner.", "ppo.critic")
IMITATION -= {"imitation.checkpoint_every"}


@pytest.mark.parametrize("asking", ["random", "judgement"])
def test_imitation_depends_on_the_price_since_its_returns_contain_it(asking):
    assert set(imitation_of(config(f"imitation.asking={asking}"))) == IMITATION


def test_the_evaluation_of_the_sft_policy_depends_on_imitation_price_sampling_and_number_of_sessions():
    played = beginning("rollout.", "loop.lanes", "evaluate.sessions") - ENGINE_MEMORY
    everything = IMITATION | played | {"cluster.device"}
    assert set(sft_evaluation_of(config())) == everything


def test_runs_that_are_compared_may_differ_in_price_seed_and_where_they_ran():
    free = {knob.key for knob in knobs(RunConfig) if not knob.affects & Affects.COMPARISON}
    own = {"env.advice_cost", "seed", "imitation.checkpoint_every"}
    assert free == beginning("run.", "cluster.") | own | ENGINE_MEMORY
    one, other = config("credit.mode=none"), config("credit.mode=linked", "seed=3", "ppo.clip=0.1")
    assert pair_conflicts(one, other, compared="credit.mode") == ["ppo.clip was 0.3, is 0.1"]


def test_a_knob_without_a_declaration_affects_everything():
    class Silent(Section):
        new: int = 1

    (knob,) = knobs(Silent)
    assert knob.affects is Affects.EVERYTHING


@pytest.mark.parametrize("affects", list(Affects), ids=lambda affects: affects.name)
def test_every_effect_is_declared_by_some_knobs_and_not_by_others(affects):
    assert {bool(knob.affects & affects) for knob in knobs(RunConfig)} == {True, False}
