"""Asks that carry words: what the policy writes after the function, up to the end token, reaches the expert."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

import envs
from agile_ray.agent.expert import Advice, GoldExpert
from agile_ray.agent.functions import Function
from agile_ray.agent.policy import Completion
from agile_ray.config import Agent, Env, Memory, Model, Run, RunConfig
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.expert_spec import ExpertSpec
from agile_ray.prices import Prices
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.segments import cut
from agile_ray.types import Ending
from launch.run import shipped_configs
from launch.run.adoption import imitation_key
from rollout.actor import engine_settings
from rollout.rules import build_rules, worded
from rollout.settings import ActorSettings, RolloutSettings
from tests.fakes.model_folder import write_model_folder
from tests.fakes.worlds import END, OPENING, Says, lane, question, read, rules

WET = question(1, "is it waterproof ?")
WORDS = "does rain get in ?"
ENDS = "[UpdateMemory] [SubmitAnswer] [ClearContext]"
ALONE = "[PredictAnswer] yes [SubmitAnswer] [ClearContext]"
BOTH = frozenset({Function.SEEK_ADVICE, Function.ASK_COLLEAGUE})


class Noting(GoldExpert):
    """Notes the keys of what it is asked."""

    def __init__(self):
        self.asked = []

    async def advise(self, question, *, key):
        self.asked.append(key)
        return Advice(text=question.advice, answer=question.answer)


class Likely(Says):
    """Gives each turn half of the last one's probability of asking."""

    probability = 1.0

    async def write(self, view) -> Completion:
        self.probability /= 2
        return replace(await super().write(view), ask_probability=self.probability)


def in_words(**changes):
    return replace(rules(**changes), worded=BOTH)


def play(*turns, by):
    return asyncio.run(lane(WET, with_rules=by).play(Likely(*turns)))


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ((f"[SeekAdvice] {WORDS} {END}",), WORDS),
        (("[SeekAdvice] does rain", f"get in ? {END}"), WORDS),  # the first turn ran out of tokens
        ((f"[SeekAdvice] {END}",), ""),
    ],
)
def test_the_expert_gets_the_words_and_the_policy_pays_at_their_end(turns, words):
    expert = Noting()
    session = play(*OPENING, *turns, ENDS, by=in_words(expert=expert))
    assert [(str(key), key.words, key.ask_probability) for key in expert.asked] == [("test/small/0#0#0", words, 0.125)]
    assert (session.receipts[0].words, session.paid, session.correct) == (words, 300, True)
    asking = session.turns[2 : 2 + len(turns)]
    assert [turn.rewards.tolist() for turn in asking[:-1]] == [[0.0] * len(turn.rewards) for turn in asking[:-1]]
    assert asking[-1].rewards[-1] == pytest.approx(-0.3)
    assert not asking[-1].rewards[:-1].any()
    (segment,) = cut(session)
    assert segment.actions == sum(len(turn.completion_ids) for turn in session.turns), "its words are its own tokens"


@pytest.mark.parametrize(
    ("turns", "agent", "says", "remarks", "ending"),
    [
        ((f"[SeekAdvice] {WORDS} [SubmitAnswer]", ALONE), {}, "words of an ask end with", ("refused",), Ending.DONE),
        ((f"[SeekAdvice] {WORDS} [SeekAdvice]", ALONE), {}, "words of an ask end with", ("refused",), Ending.DONE),
        ((f"[SeekAdvice] {WORDS}",), {"turns": 3}, "", (), Ending.CUT),
        (("[SeekAdvice] " + "so " * 60,), {"session_tokens": 40, "turn_tokens": 60}, "", (), Ending.CUT),
        ((f"[SeekAdvice] {WORDS} [ClearContext]", ALONE), {}, "words of an ask end with", ("refused",), Ending.DONE),
        (
            (f"[SeekAdvice] {WORDS} {END}", ALONE),
            {"bar": ("SeekAdvice",)},
            "SeekAdvice is not available",
            ("refused", "past_stop"),
            Ending.DONE,
        ),
    ],
    ids=["another function", "itself", "turns", "tokens", "the end of the session", "barred"],
)
def test_words_that_do_not_end_ask_nobody_and_cost_nothing(turns, agent, says, remarks, ending):
    expert = Noting()
    by = in_words(agent=Agent.model_validate(agent), expert=expert)
    session = play(*OPENING, *turns, by=by)
    assert (expert.asked, session.receipts, session.paid) == ([], (), 0)
    assert (session.remarks, session.ending) == (remarks, ending)
    assert says in read(session.turns[-1].prompt_ids.tolist(), by.tokenizer)


def test_an_ask_above_the_limit_is_refused_before_its_words():
    expert = Noting()
    by = in_words(agent=Agent(asks=1), expert=expert)
    session = play(*OPENING, f"[SeekAdvice] a {END}", f"[SeekAdvice] b {END}", ENDS, by=by)
    assert ([key.words for key in expert.asked], session.paid) == (["a"], 300)
    assert len(session.turns[3].completion_ids) == 1


def test_without_the_option_an_ask_is_its_token_alone():
    expert = Noting()
    asks, tries = (
        play(*OPENING, asks, ENDS, by=rules(expert=expert)) for asks in ("[SeekAdvice]", f"[SeekAdvice] {WORDS} {END}")
    )
    assert [key.words for key in expert.asked] == ["", ""]
    assert tries.remarks == ("past_stop",)
    for one, other in zip(asks.turns, tries.turns, strict=True):
        np.testing.assert_array_equal(one.completion_ids, other.completion_ids)
        np.testing.assert_array_equal(one.rewards, other.rewards)


def test_an_ask_that_is_played_again_in_other_words_is_paid_once_and_keeps_its_first_words(tmp_path):
    expert = Noting()
    one = lane(WET, with_rules=in_words(expert=expert))
    start = one.state()
    first = asyncio.run(one.play(Says(*OPENING, f"[SeekAdvice] {WORDS} {END}", ENDS)))
    one.restore(start)
    again = asyncio.run(one.play(Says(*OPENING, f"[SeekAdvice] how wide ? {END}", ENDS)))
    assert len(expert.asked) == 1
    assert again.receipts == first.receipts
    store.write_sessions(RunFolder(tmp_path).evaluation_file("x"), [again])
    assert store.read_sessions(RunFolder(tmp_path).evaluation_file("x"))[0].receipts[0].words == WORDS


def test_words_count_in_a_price_by_tokens():
    prices = Prices.of(
        Env(name="shop", advice_cost=0.1, expert={"price": {"token": 0.01, "most": 0.9}, "words": True}), seed=0
    )
    by = replace(in_words(), prices=prices)
    plain, worded = (play(*OPENING, f"[SeekAdvice] {words} {END}", ENDS, by=by) for words in ("", WORDS))
    assert worded.paid - plain.paid == 10 * len(by.tokenizer.encode(WORDS))


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        ({}, set()),
        ({"words": True}, {Function.SEEK_ADVICE}),
        ({"colleague": {"price": 0.1, "words": True}}, {Function.ASK_COLLEAGUE}),
        ({"words": True, "colleague": {"price": 0.1, "words": True}}, BOTH),
    ],
)
def test_each_expert_says_for_itself_whether_its_asks_carry_words_and_the_engine_goes_on_to_their_end(
    tmp_path, spec, asks
):
    assert worded(ExpertSpec.model_validate(spec)) == asks
    folder = write_model_folder(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    config = RunConfig(run=Run(name="r", folder=tmp_path), model=Model(path=folder), env=Env(name="shop", expert=spec))
    settings = ActorSettings(
        common=RolloutSettings.of(config), index=0, hired=0, start="a", model=folder, log=tmp_path / "log"
    )
    tokenizer = build_rules(
        envs.build(config.env, seed=0), env=Env(name="shop"), agent=Agent(), memory=Memory(), model=folder, seed=0
    ).tokenizer
    stops = {tokenizer.function_at(stop) for stop in engine_settings(settings).stops}
    assert None in stops, "the end token"
    assert (Function.SEEK_ADVICE in stops) == (Function.SEEK_ADVICE not in asks)
    assert Function.GET_QUESTION in stops


def test_scripts_ask_with_the_question_and_play_as_without_words():
    found = []
    for spec in ("gold", {"words": True}):
        env = Env(name="shop", expert=spec)
        shop = envs.build(env, seed=0)
        by = build_rules(shop, env=env, agent=Agent(), memory=Memory(threshold=0.72), model=None, seed=0)
        chosen = plays(shop, split="test", sessions=40)
        found.append(play_sessions(reference("always_ask", shop, Habits()), shop, split="test", plays=chosen, rules=by))
    silent, spoken = found
    assert {receipt.words for one in silent for receipt in one.receipts} == {""}
    texts = [shop.stream(split="test", index=one.index).questions for one in chosen]
    assert [receipt.words for one in spoken for receipt in one.receipts] == [
        q.text for stream in texts for q in stream
    ][:40]
    assert score(silent).total_score == score(spoken).total_score
    assert all(one.ending is Ending.DONE and not one.remarks for one in spoken)


def test_a_script_shortens_its_words_to_the_turn_and_still_ends_them():
    expert = Noting()
    long = question(1, "is it " + "very " * 60 + "wet ?")
    by = in_words(agent=Agent(turn_tokens=12, session_tokens=300), expert=expert)
    env = envs.build(Env(name="shop"), seed=0)
    session = asyncio.run(lane(long, with_rules=by).play(reference("always_ask", env, Habits())))
    assert (len(session.receipts), expert.asked[0].words) == (
        1,
        ("is it " + "very " * 60)[: len("is it " + "very " * 8)].strip(),
    )


def test_runs_whose_asks_carry_words_imitate_on_their_own():
    def key(*overrides):
        return imitation_key(shipped_configs.read("quickstart", overrides))

    assert key("env.expert.words=true") != key() == key("env.expert.words=false")
    pair = "env.expert.colleague={price: 0.1, words: true}"
    assert key(pair) not in (key("env.expert.colleague={price: 0.1}"), key(pair, "env.expert.words=true"))
