"""Demonstrations: the teacher's sessions, their returns, their order, and what is left out."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import envs
from agile_ray.agent.environment import Environment, Question, Stream
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.functions import Function
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Imitation, Memory
from agile_ray.errors import ContractError, StarvedError
from agile_ray.prices import Prices
from agile_ray.scripted.demonstrations import Lessons, lessons
from agile_ray.types import Demonstration
from envs.recurring import LENGTH, Recurring, RecurringStream
from envs.shop import Shop, ShopStream
from launch.run import shipped_configs
from tests.fakes.streams import script_rules

PRICE = 300
SHOP = Shop(seed=0)
TOKENIZER = WordTokenizer()
ASK = TOKENIZER.function_id(Function.SEEK_ADVICE)


def teach(world: Environment = SHOP, *, seed: int = 0, agent: Agent | None = None, **settings: float | str) -> Lessons:
    rules = script_rules(world, agent=agent or Agent(), memory=Memory(threshold=0.65), price=PRICE)
    rules = replace(rules, tokenizer=TOKENIZER)  # one for all, because it learns words as it encodes them
    given = {"sessions": 400, "batch": 64, "warm_share": 0.5, "asked_share": 0.5} | settings
    return lessons(Imitation.model_validate(given), world, rules, seed=seed, progress=lambda _: None)


def taught(world: Environment = SHOP, *, seed: int = 0, **settings: float | str) -> list[Demonstration]:
    return [one for batch in teach(world, seed=seed, agent=None, **settings).batches for one in batch]


def question_of(demonstration: Demonstration, world: Environment = SHOP) -> Question:
    index = int(demonstration.segment.stream.rpartition("/")[2])
    return world.stream(split="train", index=index).questions[demonstration.segment.position]


def at(demonstration: Demonstration) -> tuple[str, int]:
    return demonstration.segment.stream, demonstration.segment.position


def text(demonstration: Demonstration) -> str:
    return TOKENIZER.decode(demonstration.segment.token_ids.tolist())


def test_a_return_is_the_sum_of_the_rewards_from_there_on():
    demonstrations = taught(answers="guess")
    assert len(demonstrations) == 400
    for demonstration in demonstrations:
        earned = demonstration.segment.rewards[demonstration.segment.action_mask]
        slow = [float(earned[start:].sum()) for start in range(len(earned))]
        np.testing.assert_allclose(demonstration.returns, slow, atol=1e-6)
    firsts = {round(float(demonstration.returns[0]), 3) for demonstration in demonstrations}
    assert firsts == {0.0, 1.0, 1.0 - PRICE / 1000}  # wrong, right, right by advice


def test_an_unaided_gold_answer_returns_the_probability_that_the_question_is_guessed():
    """The label is always right; the value is that of the likeliest answer, which the policy can only guess."""
    guessed = 0
    for one in taught(asked_share=0.3, warm_share=0.0):
        question = question_of(one)
        alone = ASK not in one.segment.token_ids and not question.query and "history : none" in text(one)
        if alone and "knowledge : none" in text(one):
            guessed += 1
            assert one.returns[0] == pytest.approx(question.guess_probability)
            assert f"[PredictAnswer] {question.answer}[SubmitAnswer]" in text(one)
            *before, after = one.returns.tolist()  # the last token only clears the context
            assert (set(before), after) == ({one.returns[0]}, 0.0)
        elif ASK in one.segment.token_ids:
            assert one.returns[0] == pytest.approx(1 - PRICE / 1000)
        elif question.query:
            assert one.returns[0] == 1.0
    assert guessed > 30


def test_returns_of_gold_answers_and_of_guesses_agree_on_average():
    """Half of the items of this world are guessed; a guess is right or wrong, a gold answer counts the mean."""
    gold, guess = (
        [float(one.returns[0]) for one in taught(Recurring(seed=0), answers=answers, sessions=600, warm_share=0.0)]
        for answers in ("gold", "guess")
    )
    assert set(np.round(gold, 3)) == {0.5, 0.7, 1.0}
    assert set(np.round(guess, 3)) == {0.0, 0.7, 1.0}
    assert np.mean(gold) == pytest.approx(np.mean(guess), abs=4 * 0.5 * np.sqrt(2) / np.sqrt(600))


class Finite:
    """A split of two streams that later indices repeat, as ProductQA's categories are repeated."""

    search_function = Recurring.search_function

    def __init__(self) -> None:
        self._world = Recurring(seed=0)

    def stream(self, *, split: str, index: int) -> Stream:
        questions = self._world.stream(split=split, index=index % 2).questions
        return RecurringStream(id=f"finite/{split}/{index}", questions=questions)

    def streams(self, split: str) -> int | None:
        return 2

    def texts(self) -> list[str]:
        return list(self._world.texts())


def alone(demonstrations: list[Demonstration]) -> Counter[str]:
    """Questions that are answered without an entry and without advice, in the toy, where memory finds it or nothing."""
    return Counter(
        question_of(one, Finite()).shown
        for one in demonstrations
        if ASK not in one.segment.token_ids and "history : none" in text(one)
    )


def test_no_unaided_gold_answer_is_learned_twice_where_streams_end():
    found = teach(Finite(), sessions=32 * LENGTH, asked_share=0.5, warm_share=0.3)
    demonstrations = [one for batch in found.batches for one in batch]
    shown = {question.shown for index in (0, 1) for question in Finite().stream(split="train", index=index).questions}
    assert alone(demonstrations) == dict.fromkeys(shown, 1)
    (reason, repeated), *others = found.left_out.items()
    assert "answer is learned already" in reason
    assert not others
    assert len(demonstrations) + repeated == 32 * LENGTH

    everything = taught(Finite(), sessions=32 * LENGTH, asked_share=0.5, warm_share=0.3, answers="guess")
    assert len(everything) == 32 * LENGTH
    assert max(alone(everything).values()) > 10
    kept = {at(one): one for one in demonstrations}
    for one in everything:  # what the teacher asks and reads is the same, and all of it is learned
        if ASK in one.segment.token_ids or "history : none" not in text(one):
            assert text(kept[at(one)]) == text(one)


def test_where_streams_never_end_every_session_is_learned():
    found = teach(Recurring(seed=0), sessions=32 * LENGTH, asked_share=0.0, warm_share=0.0)
    assert sum(map(len, found.batches)) == 32 * LENGTH
    assert not found.left_out


def test_the_seed_orders_the_demonstrations():
    one, again, other = ([at(demonstration) for demonstration in taught(seed=seed, sessions=96)] for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(one) == sorted(other)


def test_a_demonstration_has_a_return_for_every_action():
    demonstration = taught(sessions=1)[0]
    with pytest.raises(ContractError, match=r"Demonstration.*returns"):
        Demonstration(segment=demonstration.segment, returns=demonstration.returns[:-1], wrote=False)


def test_warm_episodes_ask_as_often_and_earn_more_than_cold_ones():
    cold, warm = (taught(sessions=640, warm_share=share, asked_share=0.2) for share in (0.0, 1.0))
    assert {at(one) for one in cold} == {at(one) for one in warm}
    asked = [{at(one) for one in given if ASK in one.segment.token_ids} for given in (cold, warm)]
    assert asked[0] == asked[1]
    assert 0.13 < len(asked[0]) / len(cold) < 0.27
    earned = [sum(float(one.returns[0]) for one in given) / len(given) for given in (cold, warm)]
    assert earned[1] > earned[0] + 0.02


@pytest.mark.long
def test_warm_passes_ask_only_where_neither_memory_nor_the_tool_helps(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, Question]] = []
    advise = GoldExpert.advise

    async def noted(expert, question, *, key):
        asked.append((key.stream, question))
        return await advise(expert, question, key=key)

    monkeypatch.setattr(GoldExpert, "advise", noted)
    demonstrations = taught(sessions=640, warm_share=1.0, asked_share=0.0)  # so only warm passes ask
    assert not any(question.query for _, question in asked)
    facts = {(one.segment.stream, question_of(one).item) for one in demonstrations if not question_of(one).query}
    assert {(stream, question.item) for stream, question in asked} == facts
    assert len(asked) < 1.1 * len(facts)  # retrieval may miss an entry, and then it is bought again


def test_cut_sessions_are_counted_and_too_many_are_an_error():
    agent = Agent(turns=3)  # a search takes four
    with pytest.raises(StarvedError, match=r"of 400 teacher sessions ran out of .*agent.turns \(3\)"):
        teach(agent=agent)
    lengths = [len(one.segment.token_ids) for one in taught()]
    found = teach(agent=Agent(session_tokens=int(np.quantile(lengths, 0.97))))
    (reason, count), *others = found.left_out.items()
    assert reason == "ran out of a budget"
    assert not others
    assert 0 < count <= 40
    assert sum(map(len, found.batches)) == 400 - count


def test_a_teacher_whose_tool_breaks_says_why(monkeypatch):
    def gone(stream, query):
        raise KeyError("rows")

    monkeypatch.setattr(ShopStream, "search", gone)
    with pytest.raises(
        StarvedError, match=r"of 64 teacher sessions can't be learned; .* by: ToolError: tool: KeyError"
    ):
        taught(sessions=64)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "quickstart" else pytest.mark.long)
        for name in sorted(shipped_configs.shipped_in())
    ],
)
def test_the_teacher_of_a_shipped_config_asks_in_its_share_and_keeps_every_session(name: str):
    config = shipped_configs.read(name)
    imitation = config.imitation
    assert (imitation.asking, imitation.answers) == ("random", "gold")
    if config.env.name in ("productqa", "medmcqa", "hotpotqa"):
        pytest.skip("its files are not shipped")
    environment = envs.build(config.env, seed=config.seed)
    rules = script_rules(environment, agent=config.agent, memory=config.memory)
    rules = replace(rules, prices=Prices.of(config.env, seed=config.seed))
    few = imitation.model_copy(update={"sessions": 800})
    found = lessons(few, environment, rules, seed=config.seed, progress=lambda _: None)
    asks = [ASK in one.segment.token_ids for batch in found.batches for one in batch]
    assert len(asks) == 800
    assert not found.left_out
    assert sum(asks) / 800 == pytest.approx(imitation.asked_share, abs=4 * 0.5 / np.sqrt(800))
