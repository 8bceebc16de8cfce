import asyncio
import pickle

import numpy as np
import pytest

from agile_ray.agent.functions import Function
from agile_ray.agent.tokenizer import WordTokenizer
from agile_ray.config import Credit
from agile_ray.credit import linked
from agile_ray.credit.assign import CreditAssigner
from agile_ray.credit.baseline import credit_baseline
from agile_ray.credit.modes import MODES, Evidence
from agile_ray.errors import ContractError
from agile_ray.segments import cut
from agile_ray.types import Ending
from tests.fakes.fitted_worlds import recurring
from tests.fakes.parts import zeros
from tests.fakes.worlds import ASKS, PREDICTS, Says, changed, lane, question

NO_LINKS = linked.link([], [])


def sessions():
    one = lane(*[question(i, "does it rust ?") for i in range(3)])
    played = [asyncio.run(one.play(Says(*turns))) for turns in (ASKS, PREDICTS, PREDICTS)]
    return [changed(played[0], stored_similar=1), played[1], played[2]]


def amounts(given, config):
    evidence = Evidence(sessions=given, past=(), links=NO_LINKS, readings=(), outlook={})
    return MODES[config.mode].amounts(evidence, config)[0].tolist()


def assigned(given, segments, config=None):
    assigner = CreditAssigner(config or Credit(mode="heuristic"))
    return assigner.assign(given, segments, [zeros(segment) for segment in segments], []).rows


def test_heuristic_credit_is_beta_over_stored_plus_one_if_similar_questions_follow():
    assert [s.hindsight.later_similar for s in sessions()] == [2, 1, 0]
    config = Credit(mode="heuristic", beta=0.1)
    assert amounts(sessions(), config) == pytest.approx([0.05, 0.0, 0.0])
    lonely = [changed(s, later_similar=0) for s in sessions()]
    assert amounts(lonely, config) == [0.0, 0.0, 0.0]


def test_mode_none_gives_no_credit():
    assert amounts(sessions(), Credit(mode="none")) == [0.0, 0.0, 0.0]


def test_assign_gives_each_session_its_own_credit_whatever_the_order():
    played = sessions()
    segments = [segment for session in reversed(played) for segment in cut(session)]
    rows = assigned(played, segments)
    assert [(row.segment.position, row.credit) for row in rows] == [(2, 0.0), (1, 0.0), (0, pytest.approx(0.05))]


def test_linked_credit_says_what_each_reader_gives():
    played, assigner = sessions(), CreditAssigner(Credit(mode="linked", threshold=0.5))
    prefixes = assigner.prefixes(played)
    assert [(prefix.position, prefix.actions) for prefix in prefixes] == [(1, 1), (2, 1)]
    values = (np.float32(0.25), np.float32(0.5))
    scores = [
        changed(zeros(prefix), own_values=np.array([value]), write_probabilities=np.array([0.75], np.float32))
        for prefix, value in zip(prefixes, values, strict=True)
    ]
    segments = [segment for session in played for segment in cut(session)]
    first, *others = assigner.assign(played, segments, [zeros(segment) for segment in segments], scores).rows
    earned = [session.own_reward for session in played]
    assert [(share.reader, share.amount) for share in first.credit_shares] == [
        (1, pytest.approx(earned[1] - 0.25)),
        (2, pytest.approx(0.25 * (earned[2] - 0.5))),  # the world without the entry lacks one with probability 1 - 0.75
    ]
    assert [row.credit_shares for row in others] == [()] * len(others)


def test_segments_without_scores_are_refused():
    played = sessions()
    segments = [segment for session in played for segment in cut(session)]
    with pytest.raises(ContractError, match="every segment has its scores, got 0 for 3 segments"):
        CreditAssigner(Credit(mode="heuristic")).assign(played, segments, [], [])


def test_credit_lands_on_the_token_that_decides_whether_the_session_writes():
    tokenizer = WordTokenizer()
    played = sessions()[:2]
    segments = [segment for session in played for segment in cut(session)]
    rows = assigned(played, segments)
    landed = [row.segment.token_ids[row.segment.action_mask][row.decided_after - 1] for row in rows]
    assert [tokenizer.function_at(int(token)) for token in landed] == [Function.UPDATE_MEMORY, Function.SUBMIT_ANSWER]
    assert [row.credit > 0 for row in rows] == [True, False]


def test_a_session_of_two_segments_is_decided_in_one_of_them():
    session = changed(sessions()[0], decided_after=3)
    first, second = (changed(next(cut(session)), index=index, last=index == 1) for index in (0, 1))
    for decided_after, expected in ((3, (3, 0)), (first.actions + 2, (first.actions, 2))):
        given = changed(session, decided_after=decided_after)
        rows = assigned([given], [first, second])
        assert tuple(row.decided_after for row in rows) == expected
        assert [row.credit > 0 for row in rows] == [decided_after == 3, decided_after != 3]


def test_the_baseline_is_the_mean_of_sessions_that_found_memory_alike():
    one = sessions()[0]
    played = [
        changed(one, position=0, known=False),
        changed(one, position=1, known=False, writes=()),
        changed(one, position=2, known=True, writes=()),
        changed(one, position=3, topic="other"),
        changed(one, position=4, known=False, ending=Ending.FAILED, error="gone"),
    ]
    expected = credit_baseline(played, np.array([0.6, 0.0, 0.0, 0.4, 9.0]))
    assert expected.tolist() == pytest.approx([0.3, 0.3, 0.0, 0.4, 0.3])


def test_the_baseline_depends_on_the_rest_of_the_stream_and_on_similar_later_questions():
    one = sessions()[0]
    later = [(3 * position) % 7 % 4 for position in range(40)]
    played = [
        changed(one, position=position, stream_length=40, known=position % 2 == 1, later_similar=later[position])
        for position in range(40)
    ]
    left, share = np.array([[1 - position / 40, n / (n + 1)] for position, n in enumerate(later)]).T
    amounts = np.where(np.arange(40) % 2 == 0, 0.1 + 0.8 * left + 0.5 * share, 0.0)
    np.testing.assert_allclose(credit_baseline(played, amounts), amounts, atol=1e-12)


def iterations(count):
    """Whole streams of the toy, a few in each iteration."""
    random = np.random.default_rng(0)
    return [[one for n in range(3) for one in recurring(random, 3 * k + n, 0.5)[0]] for k in range(count)]


def fitted(assigner, given):
    return assigner.assign(given, [], [], []).metrics


def test_fitted_credit_uses_as_many_iterations_as_its_window():
    first, second, third = iterations(3)
    config = Credit(mode="fitted", window=2)
    assigner, fresh = CreditAssigner(config), CreditAssigner(config)
    fitted(assigner, first)
    fitted(assigner, second)
    fitted(fresh, second)
    assert fitted(assigner, third) == fitted(fresh, third) != fitted(CreditAssigner(config), third)


@pytest.mark.parametrize("mode", MODES)
def test_a_restored_assigner_continues_as_the_one_it_was_saved_from(mode):
    first, second, third = iterations(3)
    config = Credit(mode=mode, window=3)
    assigner, restored = CreditAssigner(config), CreditAssigner(config)
    fitted(assigner, first)
    fitted(assigner, second)
    restored.restore(assigner.state())
    assert fitted(restored, third) == fitted(assigner, third)


def test_only_the_outcomes_of_past_sessions_are_kept_and_only_for_modes_that_look_back():
    played = sessions()
    kept = {}
    for mode in ("heuristic", "fitted"):
        assigner = CreditAssigner(Credit(mode=mode))
        fitted(assigner, played)
        kept[mode], _ = pickle.loads(assigner.state())
    assert kept["heuristic"] == []
    assert kept["fitted"] == [[changed(one, turns=(), counterfactuals=()) for one in played]]
