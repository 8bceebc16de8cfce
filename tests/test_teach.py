"""What imitation learns from: the teacher's sessions, their returns, and their order."""

import numpy as np
import pytest

from agile_ray.config import Agent, Imitation, Memory
from agile_ray.errors import ContractError
from agile_ray.types import Lesson
from envs.references import Habits, reference, script_rules
from envs.shop import Shop
from launch.teach import batches

PRICE = 300


def taught(*, seed: int = 0, sessions: int = 400, discount: float = 1.0) -> list[list[Lesson]]:
    shop = Shop(seed=0)
    rules = script_rules(shop, price=PRICE, agent=Agent(), memory=Memory(threshold=0.65))
    teacher = reference("teacher", shop, Habits(seed=0, asked_share=0.5))
    config = Imitation(sessions=sessions, batch=64)
    return batches(config, shop, rules, teacher, seed=seed, discount=discount, progress=lambda _: None)


def test_returns_are_what_the_session_still_earns():
    lessons = [lesson for batch in taught() for lesson in batch]
    assert len(lessons) == 400
    for lesson in lessons:
        earned = lesson.segment.rewards[lesson.segment.action_mask]
        slow = [float(earned[place:].sum()) for place in range(len(earned))]
        np.testing.assert_allclose(lesson.returns, slow, atol=1e-6)
    firsts = {round(float(lesson.returns[0]), 3) for lesson in lessons}
    assert firsts == {0.0, 1.0, 1.0 - PRICE / 1000}  # wrong, right, right by advice


def test_a_discount_lowers_early_returns_only():
    plain, discounted = (taught(discount=discount)[0][0] for discount in (1.0, 0.9))
    assert plain.segment.stream == discounted.segment.stream
    assert discounted.returns[-1] == plain.returns[-1]
    rewards = plain.segment.rewards[plain.segment.action_mask]
    assert discounted.returns[0] == pytest.approx((rewards * 0.9 ** np.arange(len(rewards))).sum(), abs=1e-6)


def test_the_seed_orders_the_lessons():
    def order(found: list[list[Lesson]]) -> list[tuple[str, int]]:
        return [(lesson.segment.stream, lesson.segment.position) for batch in found for lesson in batch]

    assert order(taught()) == order(taught())
    assert order(taught()) != order(taught(seed=1))
    assert sorted(order(taught())) == sorted(order(taught(seed=1)))


def test_a_lesson_has_a_return_for_every_action():
    lesson = taught()[0][0]
    with pytest.raises(ContractError, match=r"Lesson.*returns"):
        Lesson(segment=lesson.segment, returns=lesson.returns[:-1])
