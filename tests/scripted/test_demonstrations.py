"""Demonstrations: the teacher's sessions, their returns, and their order."""

import numpy as np
import pytest

from agile_ray.agent.functions import Function
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Agent, Imitation, Memory
from agile_ray.errors import ContractError, StarvedError
from agile_ray.scripted.demonstrations import batches
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import Demonstration
from envs.shop import Shop, ShopStream
from tests.fakes.streams import script_rules

PRICE = 300


def taught(*, seed: int = 0, sessions: int = 400, warm_share: float = 0.5) -> list[list[Demonstration]]:
    shop = Shop(seed=0)
    rules = script_rules(shop, agent=Agent(), memory=Memory(threshold=0.65))
    teacher = reference("teacher", shop, Habits(seed=0, asked_share=0.5))
    config = Imitation(sessions=sessions, batch=64, warm_share=warm_share)
    return batches(config, shop, rules, teacher, price=PRICE, seed=seed, progress=lambda _: None)


def test_a_return_is_the_sum_of_the_rewards_from_there_on():
    demonstrations = [demonstration for batch in taught() for demonstration in batch]
    assert len(demonstrations) == 400
    for demonstration in demonstrations:
        earned = demonstration.segment.rewards[demonstration.segment.action_mask]
        slow = [float(earned[start:].sum()) for start in range(len(earned))]
        np.testing.assert_allclose(demonstration.returns, slow, atol=1e-6)
    firsts = {round(float(demonstration.returns[0]), 3) for demonstration in demonstrations}
    assert firsts == {0.0, 1.0, 1.0 - PRICE / 1000}  # wrong, right, right by advice


def test_the_seed_orders_the_demonstrations():
    def order(found: list[list[Demonstration]]) -> list[tuple[str, int]]:
        return [
            (demonstration.segment.stream, demonstration.segment.position) for batch in found for demonstration in batch
        ]

    assert order(taught()) == order(taught())
    assert order(taught()) != order(taught(seed=1))
    assert sorted(order(taught())) == sorted(order(taught(seed=1)))


def test_a_demonstration_has_a_return_for_every_action():
    demonstration = taught()[0][0]
    with pytest.raises(ContractError, match=r"Demonstration.*returns"):
        Demonstration(segment=demonstration.segment, returns=demonstration.returns[:-1], wrote=False)


def test_warm_episodes_ask_less_and_earn_more_than_cold_ones():
    cold, warm = ([one for batch in taught(sessions=1500, warm_share=share) for one in batch] for share in (0.0, 1.0))
    assert {at(one) for one in cold} == {at(one) for one in warm}
    asks = WordTokenizer().function_id(Function.SEEK_ADVICE)
    asked = [sum(asks in one.segment.token_ids for one in given) / len(given) for given in (cold, warm)]
    assert asked[0] > 1.2 * asked[1] > 0  # it asks half of what it does not know: less when warm
    earned = [sum(float(one.returns[0]) for one in given) / len(given) for given in (cold, warm)]
    assert earned[1] > earned[0] + 0.02


def at(demonstration: Demonstration) -> tuple[str, int]:
    return demonstration.segment.stream, demonstration.segment.position


def test_a_teacher_whose_tool_breaks_says_why(monkeypatch):
    def gone(stream, query):
        raise KeyError("rows")

    monkeypatch.setattr(ShopStream, "search", gone)
    with pytest.raises(
        StarvedError, match=r"of 64 teacher sessions can't be learned; .* by: ToolError: tool: KeyError"
    ):
        taught(sessions=64)
