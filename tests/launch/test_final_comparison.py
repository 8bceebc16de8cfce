"""The end of a training: which weights are evaluated, under which state, and what is not played again."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import envs
from agile_ray.agent.memory import HashedEmbedder
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError, StarvedError
from agile_ray.evaluation.plays import Part
from agile_ray.record import evaluations, history, store
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.evaluations import Measured
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.record.recorder import RunRecorder
from agile_ray.scripted.guided import Guide
from agile_ray.types import Ending, RunState, ValidationScore
from agile_ray.weights import WeightsRef
from launch.run import final_comparison, shipped_configs
from rollout.rules import build_rules
from tests.fakes.checkpoint import export
from tests.fakes.fallible import Fallible
from tests.fakes.played import played
from tests.fakes.streams import script_rules
from tests.fakes.worlds import SESSION, changed


class Learners:
    """Learners that are one number."""

    def __init__(self):
        self.number = 0

    def export(self, folder):
        export(folder)

    def save(self, folder, *, earlier=None):
        del earlier
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


class Rollouts:
    """Rollouts that note what they play, and can be killed at one of the evaluations, after its first session."""

    def __init__(self, *, killed_at=0):
        self.loaded, self.evaluations, self.guides, self.killed_at = [], [], [], killed_at

    def load(self, weights):
        self.loaded.append(weights.version)

    def evaluate(self, *, split, sessions, greedy, parts, guide=None):
        self.guides.append(guide)
        self.evaluations.append((greedy, parts.sessions))
        if len(self.evaluations) == self.killed_at:
            parts.add(Part(index=0, sessions=tuple(played("ppo")[:1]), state=None))
            raise KeyboardInterrupt
        return played("ppo" if greedy else "ppo_sampled")


def parts_of(run, config, rollouts, *, state, say=lambda _: None):
    """The parts of a training that its final comparison needs."""
    recorder = RunRecorder(run)
    recorder.resume(state)
    return SimpleNamespace(
        config=config,
        folder=run,
        learners=Learners(),
        rollouts=rollouts,
        recorder=recorder,
        progress=SimpleNamespace(say=say),
        environment=None,
        rules=None,
    )


@pytest.fixture
def references(monkeypatch):
    """The reference policies that were played, in order; they play nothing real, and no report is written."""
    asked = []

    def play(*_, entries, **__):
        asked.extend(entries)
        return {entry: played("oracle") for entry in entries}

    monkeypatch.setattr(final_comparison, "references", play)
    monkeypatch.setattr(final_comparison, "searches", lambda *_: False)  # there is no environment
    monkeypatch.setattr(final_comparison, "files", SimpleNamespace(compose=lambda _: None, write=lambda *_: None))
    monkeypatch.setattr(final_comparison, "tables", SimpleNamespace(show=lambda *_: None))
    return asked


def config_in(folder, **changes):
    raw = {"run": {"name": "r", "folder": folder}, "model": {"path": "m"}, "env": {"name": "shop"}}
    return RunConfig.model_validate(raw | changes)


def test_a_run_with_a_colleague_is_compared_with_asking_it_always(tmp_path, references):
    colleague = {"name": "gold", "wrong": 0.2, "price": 0.1}
    config = config_in(tmp_path, env={"name": "shop", "expert": {"colleague": colleague}})
    final_comparison.compare(parts_of(RunFolder.of(config), config, Rollouts(), state=at(5)), at(5))
    assert references == [*final_comparison.ENTRIES, "always_colleague"]
    assert "always_colleague" not in final_comparison.entries_of(config_in(tmp_path))


@pytest.mark.parametrize(("scores", "best"), [({3: 0.9, 5: 0.4}, 3), ({3: 0.4, 5: 0.9}, 5)])
@pytest.mark.usefixtures("references")
def test_the_best_checkpoint_is_recorded_under_its_own_state(tmp_path, scores, best):
    config = config_in(tmp_path)
    run, learners, rollouts = RunFolder.of(config), Learners(), Rollouts()
    checkpoints = FolderCheckpoints(
        run, keep=2, learners=learners, lanes=learners, credit=learners, resumed=lambda _: None, sft=run.sft
    )
    for iteration, score in scores.items():
        learners.number = iteration
        checkpoints.save(at(iteration), score=ValidationScore(iteration=iteration, total=score))
    said = []
    parts = parts_of(run, config, rollouts, state=at(5), say=said.append)
    parts.learners = learners
    final_comparison.compare(parts, at(5))
    lines = history.read(run.history)
    measured = {line.name: (line.iteration, line.version) for line in lines if line.event is Event.EVALUATION}
    assert measured == {"ppo": (best, best + 2), "ppo_sampled": (best, best + 2)}
    assert (learners.number, rollouts.loaded) == (best, [] if best == 5 else [best + 2])
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
    config, environment = world(f"env.expert=recorded:{tmp_path}")
    before = record(tmp_path, environment, config, "always_ask")
    final_comparison.check_advice(config, environment)
    rules = build_rules(
        environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=config.seed
    )
    assert rules.expert.reliability == pytest.approx(0.9, abs=0.1)
    after = final_comparison.references(config, environment, rules, trained=[SESSION])
    for name in ("always_ask", "ask_unless_search", "never_ask"):
        assert [(s.answer, s.correct) for s in after[name]] == [(s.answer, s.correct) for s in before[name]]
    assert not any(session.ending is Ending.FAILED for sessions in after.values() for session in sessions)


def test_an_ask_that_a_recording_lacks_fails_its_session(tmp_path):
    config, environment = world(f"env.expert=recorded:{tmp_path}")
    before = record(tmp_path, environment, config, "oracle")
    final_comparison.check_advice(config, environment)
    rules = build_rules(
        environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=config.seed
    )
    after = final_comparison.references(config, environment, rules, trained=[SESSION])["always_ask"]
    asked = {(session.stream, session.question_id) for session in before["oracle"] if session.asks}
    assert 0 < len(asked) < 60
    for session in after:
        assert (session.ending is Ending.DONE) == ((session.stream, session.question_id) in asked)


def test_a_recording_without_advice_on_the_test_questions_is_refused(tmp_path):
    config, environment = world(f"env.expert=recorded:{tmp_path}")
    record(tmp_path, environment, config, "never_ask")
    with pytest.raises(ConfigError, match="env.expert: .* must hold advice on questions of the test split, found no"):
        final_comparison.check_advice(config, environment)
    final_comparison.check_advice(*world())
    colleague, environment = world(f"env.expert={{colleague: {{name: 'recorded:{tmp_path}', price: 0.1}}}}")
    with pytest.raises(ConfigError, match="env.expert.colleague: .* must hold advice on questions of the test split"):
        final_comparison.check_advice(colleague, environment)


def test_a_comparison_that_was_stopped_plays_nothing_twice(tmp_path, references):
    config = config_in(tmp_path)
    run = RunFolder.of(config)
    with pytest.raises(KeyboardInterrupt):
        final_comparison.compare(parts_of(run, config, Rollouts(killed_at=2), state=at(5)), at(5))
    assert (evaluations.has(run, "ppo"), evaluations.has(run, "ppo_sampled"), references) == (True, False, [])
    again = Rollouts()
    final_comparison.compare(parts_of(run, config, again, state=at(5)), at(5))
    assert again.evaluations == [(False, 1)]
    assert sorted(references) == sorted(final_comparison.ENTRIES)
    assert not run.evaluation_parts("ppo_sampled").exists()
    references.clear()
    third = Rollouts()
    evaluations.discard(run, "oracle")
    final_comparison.compare(parts_of(run, config, third, state=at(5)), at(5))
    assert (third.evaluations, references) == ([], ["oracle"])
    lines = [line.name for line in history.read(run.history) if line.event is Event.EVALUATION]
    assert lines == ["ppo", "ppo_sampled"]


@pytest.mark.parametrize(
    ("state", "changes", "twice"),
    [
        (at(5), {}, False),
        (at(5), {"cluster": {"deadline_s": 9.0}}, False),
        (at(5), {"evaluate": {"sessions": 3}}, True),
        (at(9), {}, True),
    ],
)
@pytest.mark.usefixtures("references")
def test_only_the_same_weights_and_settings_are_not_played_again(tmp_path, state, changes, twice):
    config = config_in(tmp_path)
    run, first, second = RunFolder.of(config), Rollouts(killed_at=3), Rollouts()
    final_comparison.compare(parts_of(run, config, first, state=at(5)), at(5))
    final_comparison.compare(parts_of(run, config_in(tmp_path, **changes), second, state=state), state)
    assert second.evaluations == ([(True, 0), (False, 0)] if twice else [])


@pytest.mark.usefixtures("references")
def test_evaluations_of_weights_that_are_trained_again_are_discarded(tmp_path):
    config = config_in(tmp_path)
    run = RunFolder.of(config)
    evaluate_sft(run, config)
    final_comparison.compare(parts_of(run, config, Rollouts(), state=at(5)), at(5))
    rollouts = Rollouts()
    parts = parts_of(run, config, rollouts, state=at(3))  # iterations 4 and 5 are lost
    assert run.evaluated_entries() == ["sft", "sft_sampled"]
    final_comparison.compare(parts, at(5))
    assert rollouts.evaluations == [(True, 0), (False, 0)]


def evaluate_sft(run, config):
    parts = parts_of(run, config, Rollouts(), state=at(0))
    for one in final_comparison.tests("sft", config, at(0)):
        final_comparison.play(parts, one)


@pytest.mark.parametrize(
    ("changes", "again", "loaded"), [({"evaluate": {"sessions": 3}}, [(True, 0), (False, 0)], [2, 7]), ({}, [], [])]
)
@pytest.mark.usefixtures("references")
def test_the_sft_policy_plays_the_test_questions_of_the_others_also_if_they_changed(tmp_path, changes, again, loaded):
    config = config_in(tmp_path, **changes)
    run, learners = RunFolder.of(config), Learners()
    checkpoints = FolderCheckpoints(
        run, keep=2, learners=learners, lanes=learners, credit=learners, resumed=lambda _: None, sft=run.sft
    )
    for iteration in (0, 5):
        learners.number = iteration
        checkpoints.save(at(iteration), score=None)
    checkpoints.keep_sft(at(0))
    evaluate_sft(run, config_in(tmp_path))
    for _ in range(2):
        rollouts = Rollouts()
        parts = parts_of(run, config, rollouts, state=at(5))
        parts.learners = learners
        final_comparison.compare(parts, at(5))
        assert (learners.number, rollouts.loaded) == (5, loaded)
        assert rollouts.evaluations[: len(again)] == again
        again, loaded = [], []
    assert evaluations.is_kept(run, "sft", Measured.of(config, at(0)))


@pytest.mark.usefixtures("references")
def test_where_the_tool_answers_the_policy_also_plays_with_its_own_query_and_scripted_asks(tmp_path, monkeypatch):
    monkeypatch.setattr(final_comparison, "searches", lambda *_: True)
    config, rollouts = config_in(tmp_path), Rollouts()
    run = RunFolder.of(config)
    for _ in range(2):  # what is stored is not played again
        final_comparison.compare(parts_of(run, config, rollouts, state=at(5)), at(5))
    assert rollouts.guides == [None, None, Guide(name="ask_unless_own_search")]
    assert "ask_unless_own_search" in evaluations.kept(run)


@pytest.mark.parametrize(
    ("name", "bar", "found"),
    [("shop", (), True), ("shop", ("SearchProduct",), False), ("recurring", (), False)],
)
def test_an_own_query_needs_questions_that_the_tool_answers(tmp_path, name, bar, found):
    settings = config_in(tmp_path, env={"name": name}, agent={"bar": bar}, evaluate={"sessions": 48})
    assert final_comparison.searches(settings, envs.build(settings.env, seed=0)) == found


@pytest.mark.usefixtures("references")
def test_an_evaluation_of_which_nothing_can_be_scored_is_played_again(tmp_path):
    class Broken(Rollouts):
        def evaluate(self, *, parts, **rest):
            parts.add(Part(index=0, sessions=(failed,), state=None))
            return [failed]

    failed = changed(SESSION, ending=Ending.FAILED, error="expert: gone")
    config = config_in(tmp_path)
    run, rollouts = RunFolder.of(config), Rollouts()
    with pytest.raises(StarvedError, match="expert: gone"):
        final_comparison.compare(parts_of(run, config, Broken(), state=at(5)), at(5))
    final_comparison.compare(parts_of(run, config, rollouts, state=at(5)), at(5))
    assert rollouts.evaluations == [(True, 0), (False, 0)]
