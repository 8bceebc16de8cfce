"""The probability of asking of whole sessions, and AUGRC of sampled play."""

import itertools
import math

import numpy as np
import pytest

from agile_ray.evaluation.frontier.needed import match_oracle
from agile_ray.evaluation.frontier.selective import ask_probability, augrc, sampled_augrc
from agile_ray.types import Ending, Receipt, Turn
from tests.fakes.worlds import SESSION, changed

RECEIPT = Receipt(key="k", price=300, source="gold", latency_s=0.0, advice="yes", answer="yes")


def turn(ask_probability, reward=0.0):
    return Turn(
        prompt_ids=np.array([0], np.int32),
        completion_ids=np.array([3], np.int32),
        logprobs=np.zeros(1, np.float32),
        versions=np.zeros(1, np.int32),
        rewards=np.array([reward], np.float32),
        ask_probability=ask_probability,
    )


def played(*probabilities, asked, correct, position=0):
    turns = [turn(p) for p in probabilities]
    if asked:
        turns[-1] = turn(probabilities[-1], reward=-0.3)
        turns.append(turn(0.9))  # what follows the first ask no longer counts
    return changed(
        SESSION, position=position, turns=tuple(turns), correct=correct, receipts=(RECEIPT,) if asked else ()
    )


@pytest.mark.parametrize("asked", [False, True])
def test_the_probability_of_asking_is_that_of_any_turn_up_to_the_first_ask(asked):
    assert ask_probability(played(0.2, 0.5, asked=asked, correct=True)) == pytest.approx(1 - 0.8 * 0.5)


def test_a_session_without_probabilities_has_none():
    assert ask_probability(SESSION) is None
    assert ask_probability(played(0.2, math.nan, asked=False, correct=True)) is None
    assert sampled_augrc([played(0.2, asked=False, correct=True), SESSION]) is None
    assert sampled_augrc([]) is None


@pytest.mark.parametrize("seed", range(4))
def test_sampled_augrc_has_the_expectation_of_augrc_with_every_unaided_answer_known(seed):
    generator = np.random.default_rng(seed)
    probabilities, fails = generator.random(6) * 0.9, generator.random(6) < 0.5
    expected = augrc(1 - probabilities, fails.astype(np.float64))
    mean = 0.0
    for asks in itertools.product([False, True], repeat=6):
        sessions = [
            played(p, asked=asked, correct=asked or not failed)
            for p, asked, failed in zip(probabilities, asks, fails, strict=True)
        ]
        chance = math.prod(p if asked else 1 - p for p, asked in zip(probabilities, asks, strict=True))
        mean += chance * sampled_augrc(sessions)
    assert mean == pytest.approx(expected, abs=1e-9)


def test_asks_are_matched_with_the_oracles_by_question_and_failed_pairs_are_left_out():
    mine = [played(0.5, asked=asked, correct=True, position=i) for i, asked in enumerate((True, True, False, True))]
    mine[3] = changed(mine[3], ending=Ending.FAILED, error="ToolError: late")
    oracle = [played(0.5, asked=asked, correct=True, position=i) for i, asked in enumerate((True, False, True, True))]
    found = match_oracle(mine, oracle[::-1])
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
