"""The end of a training: the best checkpoint's evaluation is recorded under its own state."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import envs
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record import evaluations, history, store
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import Ending, RunState, ValidationScore
from agile_ray.weights import WeightsRef
from launch.run import final_comparison, shipped_configs
from rollout.rules import build_rules
from tests.fakes.checkpoint import export
from tests.fakes.fallible import Fallible
from tests.fakes.played import played
from tests.fakes.streams import script_rules
from tests.fakes.worlds import SESSION


class Learners:
    """Learners that are one number."""

    def __init__(self):
        self.number = 0

    def export(self, folder):
        export(folder)

    def save(self, folder):
        (folder / "number").write_text(str(self.number))

    def load(self, folder):
        self.number = int((folder / "number").read_text())

    def publish(self, version):
        return WeightsRef(version=version, buckets=(), blobs=(), probes=())

    def state(self):
        return b"0"

    def restore(self, state):
        pass


def at(iteration):
    return RunState(imitation_steps=9, iteration=iteration, version=iteration + 2)


@pytest.mark.parametrize(("scores", "best"), [({3: 0.9, 5: 0.4}, 3), ({3: 0.4, 5: 0.9}, 5)])
def test_the_best_checkpoint_is_recorded_under_its_own_state(tmp_path, monkeypatch, scores, best):
    config = RunConfig.model_validate(
        {"run": {"name": "r", "folder": tmp_path}, "model": {"path": "m"}, "env": {"name": "shop"}}
    )
    run, learners, loaded = RunFolder.of(config), Learners(), []
    checkpoints = FolderCheckpoints(
        run, keep=2, learners=learners, lanes=learners, credit=learners, resumed=lambda _: None, sft=run.sft
    )
    for iteration, score in scores.items():
        learners.number = iteration
        checkpoints.save(at(iteration), score=ValidationScore(iteration=iteration, total=score))
    said = []
    recorder = RunRecorder(run)
    recorder.resume(at(5))
    rollouts = SimpleNamespace(load=lambda ref: loaded.append(ref.version), evaluate=lambda **_: played("ppo"))
    parts = SimpleNamespace(
        config=config,
        folder=run,
        learners=learners,
        rollouts=rollouts,
        recorder=recorder,
        progress=SimpleNamespace(say=said.append),
        environment=None,
        rules=None,
    )
    monkeypatch.setattr(final_comparison, "references", lambda *_, **__: {})
    monkeypatch.setattr(final_comparison, "files", SimpleNamespace(compose=lambda _: None, write=lambda *_: None))
    monkeypatch.setattr(final_comparison, "tables", SimpleNamespace(show=lambda *_: None))
    final_comparison.compare(parts, at(5))
    lines = history.read(run.history)
    measured = {line.name: (line.iteration, line.version) for line in lines if line.event is Event.EVALUATION}
    assert measured == {"ppo": (best, best + 2), "ppo_sampled": (best, best + 2)}
    assert (learners.number, loaded) == (best, [] if best == 5 else [best + 2])
    assert [line.iteration for line in lines if line.event is Event.CLOSE] == [5]
    [line] = said
    assert line.startswith(f"Iteration {best} was chosen: it has the highest validation total of 2 evaluated, 0.900")
    assert "because iterations 3, 5 keep no values" in line
    chosen = evaluations.kept_choice(run)
    assert (chosen.iteration, chosen.highest_total, chosen.unpaired) == (best, 0.9, (3, 5))
    assert np.isfinite(lines[0].metrics["total_score"])


TOY = ("run.name=toy", "evaluate.sessions=60", "evaluate.validation_sessions=60")


def world(*overrides):
    config = shipped_configs.read("toy/three_prices", (*TOY, *overrides))
    return config, envs.build(config.env, seed=config.seed)


class Watched(HashedEmbedder):
    """Counts the texts that it embeds."""

    texts = 0

    def embed(self, texts):
        self.texts += len(texts)
        return super().embed(texts)


def test_references_play_with_the_expert_embedder_and_tokenizer_of_the_run():
    config, environment = world()
    expert = Fallible(0.4)
    rules = script_rules(environment, agent=config.agent, memory=config.memory, expert=expert)
    watched = replace(rules, embedder=Watched())
    found = final_comparison.references(config, environment, watched, trained=[SESSION])
    assert {len(sessions) for sessions in found.values()} == {60}
    for session in found["always_ask"]:
        stream = environment.stream(split="test", index=int(session.stream.rpartition("/")[2]))
        assert session.correct == expert.is_right(stream.questions[session.position], stream=session.stream)
    assert 0 < sum(session.correct for session in found["always_ask"]) < 60
    assert watched.embedder.texts > 0
    shown = environment.stream(split="test", index=0).questions[0].shown
    prompt = found["oracle"][0].turns[1].prompt_ids.tolist()
    assert rules.tokenizer.decode(prompt).endswith(f"{shown}\n")


def test_a_session_of_a_reference_that_spends_the_runs_budget_is_cut():
    config, environment = world("agent.session_tokens=24")
    rules = script_rules(environment, agent=config.agent, memory=config.memory)
    found = final_comparison.references(config, environment, rules, trained=[SESSION])
    assert {session.ending for session in found["always_ask"]} == {Ending.CUT}


def record(folder, environment, config, *names):
    """A run that trained on something and evaluated some reference policies with a fallible expert."""
    run = RunFolder(folder)
    store.write(run, 1, [SESSION], [])
    rules = script_rules(environment, agent=config.agent, memory=config.memory, expert=Fallible(0.1))
    found = final_comparison.references(config, environment, rules, trained=[SESSION])
    for name in names:
        evaluations.keep(run, name, found[name])
    return found


def test_references_of_a_finished_recording_repeat_its_references(tmp_path):
    config, environment = world(f"env.recorded={tmp_path}")
    before = record(tmp_path, environment, config, "always_ask")
    final_comparison.check_advice(config, environment)
    rules = build_rules(environment, env=config.env, agent=config.agent, memory=config.memory, model=None)
    assert rules.expert.reliability == pytest.approx(0.9, abs=0.1)
    after = final_comparison.references(config, environment, rules, trained=[SESSION])
    for name in ("always_ask", "ask_unless_search", "never_ask"):
        assert [(s.answer, s.correct) for s in after[name]] == [(s.answer, s.correct) for s in before[name]]
    assert not any(session.ending is Ending.FAILED for sessions in after.values() for session in sessions)


def test_an_ask_that_a_recording_lacks_fails_its_session(tmp_path):
    config, environment = world(f"env.recorded={tmp_path}")
    before = record(tmp_path, environment, config, "oracle")
    final_comparison.check_advice(config, environment)
    rules = build_rules(environment, env=config.env, agent=config.agent, memory=config.memory, model=None)
    after = final_comparison.references(config, environment, rules, trained=[SESSION])["always_ask"]
    asked = {(session.stream, session.question_id) for session in before["oracle"] if session.asks}
    assert 0 < len(asked) < 60
    for session in after:
        assert (session.ending is Ending.DONE) == ((session.stream, session.question_id) in asked)


def test_a_recording_without_advice_on_the_test_questions_is_refused(tmp_path):
    config, environment = world(f"env.recorded={tmp_path}")
    record(tmp_path, environment, config, "never_ask")
    with pytest.raises(ConfigError, match="env.recorded: .* must hold advice on questions of the test split, found no"):
        final_comparison.check_advice(config, environment)
    final_comparison.check_advice(*world())
