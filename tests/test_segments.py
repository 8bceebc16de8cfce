import numpy as np
import pytest

from agile_ray.errors import ContractError
from agile_ray.segments import cut, turns
from agile_ray.types import NO_VERSION, Ending, TokenScores, Turn
from tests.fakes.worlds import SESSION, changed


def turn(prompt, completion, *, version=0, reward=0.0, ask=np.nan):
    count = len(completion)
    return Turn(
        prompt_ids=np.array(prompt, np.int32),
        completion_ids=np.array(completion, np.int32),
        logprobs=np.full(count, -0.5, np.float32),
        versions=np.full(count, version, np.int32),
        rewards=np.array([0.0] * (count - 1) + [reward], np.float32),
        ask_probability=ask,
    )


def session(*turns, ending=Ending.DONE):
    return changed(
        SESSION,
        turns=turns,
        ending=ending,
        error="boom" if ending is Ending.FAILED else None,
    )


def test_cut_joins_turns_whose_prompts_extend_one_another():
    [segment] = cut(session(turn([1, 2], [3]), turn([1, 2, 3, 4], [5, 6], version=2, reward=1.0)))
    assert segment.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert segment.action_mask.tolist() == [False, False, True, False, True, True]
    assert segment.rewards.tolist() == [0, 0, 0, 0, 0, 1]
    assert segment.versions.tolist() == [NO_VERSION, NO_VERSION, 0, NO_VERSION, 2, 2]
    assert (segment.actions, segment.last) == (3, True)


def test_the_probability_of_asking_is_at_the_first_token_of_each_turn_and_turns_get_it_back():
    played = session(turn([1, 2], [3, 7], ask=0.75), turn([1, 2, 3, 7, 4], [5, 6]), turn([9], [8], ask=0.5))
    segments = list(cut(played))
    first, second = (segment.ask_probabilities for segment in segments)
    np.testing.assert_array_equal(first, np.array([np.nan, np.nan, 0.75, *[np.nan] * 4], np.float32))
    np.testing.assert_array_equal(second, np.array([np.nan, 0.5], np.float32))
    np.testing.assert_equal([one.ask_probability for one in turns(segments)], [0.75, np.nan, 0.5])


def test_cut_starts_a_new_segment_when_the_context_is_rewritten():
    first, second = cut(session(turn([1, 2], [3]), turn([1, 9], [5])))
    assert (first.last, second.last, second.index) == (False, True, 1)


def test_cut_starts_a_new_segment_when_the_context_became_shorter():
    assert len(list(cut(session(turn([1, 2], [3, 4]), turn([1, 2, 3], [5]))))) == 2


def test_cut_yields_nothing_for_a_failed_session():
    assert list(cut(session(turn([1], [2]), ending=Ending.FAILED))) == []


def test_turn_refuses_logprobs_that_do_not_match_its_tokens():
    with pytest.raises(ContractError, match=r"completion_ids \(2,\), logprobs \(1,\)"):
        Turn(
            prompt_ids=np.zeros(1, np.int32),
            completion_ids=np.zeros(2, np.int32),
            logprobs=np.zeros(1, np.float32),
            versions=np.zeros(2, np.int32),
            rewards=np.zeros(2, np.float32),
        )


def test_scores_of_other_lengths_are_refused():
    four, three = np.zeros(4, np.float32), np.zeros(3, np.float32)
    with pytest.raises(ContractError, match=r"TokenScores: .*reference_logprobs \(3,\)"):
        TokenScores(logprobs=four, reference_logprobs=three, own_values=four, write_probabilities=four)
