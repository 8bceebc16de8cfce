import subprocess
import sys

import numpy as np
import pytest

from agile_ray.errors import ContractError, StarvedError
from agile_ray.evaluation import failures
from agile_ray.evaluation.score import Answered, Cause, cause, curve, paired_difference, score
from agile_ray.types import Ending, Origin, Receipt
from tests.fakes.worlds import SESSION, changed


def session(
    position=0,
    *,
    stream="s",
    length=4,
    right=True,
    asks=0,
    price=300,
    ending=Ending.DONE,
    kind="fact",
    answer="yes",
    origin=Origin.WORDS,
    remarks=(),
    question=None,
    known=False,
):
    return changed(
        SESSION,
        known=known,
        stream=stream,
        position=position,
        stream_length=length,
        question_id=question or f"q{position}",
        kind=kind,
        ending=ending,
        error="ToolError: broken" if ending is Ending.FAILED else None,
        answer=answer,
        correct=right,
        receipts=tuple(
            Receipt(key=f"{stream}{position}{n}", price=price, source="gold", latency_s=0, advice="yes", answer="yes")
            for n in range(asks)
        ),
        remarks=remarks,
        origin=origin,
    )


def test_a_score_of_four_sessions_matches_a_count_by_hand():
    found = score([session(0, asks=2), session(1, right=False), session(2, asks=1, right=False), session(3)])
    assert (found.sessions, found.failed) == (4, 0)
    assert (found.asked_share, found.asks_per_session, found.accuracy) == (0.5, 0.75, 0.5)
    assert found.total_score == (2000 - 900) / 4000
    assert found.endings == {Ending.DONE: 4}


def test_total_is_exact_where_floats_would_not_be():
    sessions = [session(i, length=1000, asks=1, price=100) for i in range(1000)]
    assert score(sessions).total_score == 0.9
    assert sum(s.own_reward for s in sessions) / 1000 != 0.9


def test_a_failed_session_is_left_out_and_its_payment_is_counted_separately():
    found = score([session(0), session(1, ending=Ending.FAILED, asks=1, right=False, answer=None)])
    assert (found.sessions, found.failed, found.failed_price) == (1, 1, 300)
    assert (found.accuracy, found.total_score, found.asked_share) == (1.0, 1.0, 0.0)


REFUSED = "ExpertError: expert http: ConnectError: [Errno 111] refused, port {}"


def failing(*errors, start=0):
    return [changed(session(start + i, ending=Ending.FAILED), error=error) for i, error in enumerate(errors)]


def test_failed_sessions_are_counted_by_reason_without_its_particulars():
    errors = [REFUSED.format(8000), "ToolError: tool: KeyError: 'a'", REFUSED.format(8001), "ToolError: gone; stream a"]
    found = score([*failing(*errors, "ToolError: gone; stream b", REFUSED.format(9), start=1), session(0)])
    assert list(found.reasons.items()) == [
        (REFUSED.format(8000), 3),
        ("ToolError: gone; stream a", 2),
        ("ToolError: tool: KeyError: 'a'", 1),
    ]
    assert found.failed == 6


def test_of_many_reasons_the_commonest_are_told_apart():
    found = failures.reasons(failing(*(letter * 300 for letter in "abcdefgh"), "h" * 300))
    assert list(found.items()) == [("h" * 200, 2), *((letter * 200, 1) for letter in "abcd"), ("other reasons", 3)]
    assert failures.joined([*found.items(), ("other reasons", 2), ("a" * 200, 5)])["other reasons"] == 5
    assert (failures.reasons([session(0)]), failures.summary([session(0)])) == ({}, "")


def test_a_set_without_a_whole_session_is_refused_with_the_commonest_reason():
    lost = failing("ToolError: gone", REFUSED.format(1), REFUSED.format(2))
    says = "found none; 3 of 3 failed, 2 of them by: ExpertError: expert http: ConnectError"
    with pytest.raises(StarvedError, match=says):
        score(lost)
    with pytest.raises(StarvedError, match="each of 3 pairs has a failed session; 3 of 6 failed, 2 of them by: Exp"):
        paired_difference(lost, [session(i) for i in range(3)])


def test_score_refuses_a_question_played_twice():
    with pytest.raises(ContractError, match="stream s position 0 is there 2 times"):
        score([session(0), session(0)])


def test_every_wrong_session_has_one_cause_and_a_right_one_none():
    wrong = {"right": False}
    assert cause(session()) is None
    assert cause(session(**wrong)) is Cause.PREDICTED_WRONG
    assert cause(session(**wrong, origin=Origin.ROWS)) is Cause.ROWS_WRONG
    assert cause(session(**wrong, remarks=("refused", "bad_query"))) is Cause.BAD_QUERY
    assert cause(session(**wrong, asks=1, origin=Origin.ADVICE)) is Cause.ADVICE_WRONG
    assert cause(session(**wrong, answer=None, origin=None)) is Cause.NO_ANSWER
    assert cause(session(**wrong, answer=None, origin=None, ending=Ending.CUT)) is Cause.CUT
    assert cause(session(**wrong, ending=Ending.CUT)) is Cause.PREDICTED_WRONG


def test_the_error_budget_of_a_kind_adds_up_to_its_sessions():
    found = score(
        [
            session(0, kind="fact", asks=1),
            session(1, kind="search", right=False, origin=Origin.ROWS),
            session(2, kind="search", right=False, remarks=("bad_query",)),
            session(3, kind="search"),
        ]
    )
    assert list(found.kinds) == ["fact", "search"]
    search = found.kinds["search"]
    assert (search.sessions, search.asked, search.accuracy) == (3, 0, 1 / 3)
    assert {reason: count for reason, count in search.wrong.items() if count} == {
        Cause.ROWS_WRONG: 1,
        Cause.BAD_QUERY: 1,
    }
    assert found.kinds["fact"].asked_share == 1.0


def test_what_memory_held_is_counted_by_kind():
    generator = np.random.default_rng(0)
    known = generator.random(60) < 0.5
    right = generator.random(60) < np.where(known, 0.9, 0.4)
    sessions = [session(i, kind="rule", right=bool(right[i]), known=bool(known[i]), length=60) for i in range(60)]
    rule = score([*sessions, session(0, stream="other", kind="fact")]).kinds["rule"]
    for part, chosen in ((rule.known, known), (rule.new, ~known)):
        assert (part.sessions, part.accuracy) == (chosen.sum(), pytest.approx(right[chosen].mean()))
        low, high = part.ci95
        assert low < part.accuracy < high
    alone = score([session(kind="rule", known=True)]).kinds["rule"]
    assert (alone.known, alone.new) == (Answered(sessions=1, accuracy=1.0, ci95=None), None)


def random_sessions(*, streams, length, seed):
    generator = np.random.default_rng(seed)
    return [
        session(
            i,
            stream=f"s{s}",
            length=length,
            right=bool(generator.random() < probability),
            asks=int(generator.random() < 0.3),
        )
        for s, probability in enumerate(generator.random(streams))
        for i in range(length)
    ]


def test_the_interval_of_few_streams_is_students_over_streams():
    sessions = random_sessions(streams=6, length=7, seed=1)
    found = score(sessions)
    means = [np.mean([s.own_reward for s in sessions if s.stream == f"s{n}"]) for n in range(6)]
    width = 2.5706 * np.std(means, ddof=1) / 6**0.5
    assert found.units == "6 streams (Student's t)"
    assert found.ci95 == pytest.approx((found.total_score - width, found.total_score + width), abs=1e-4)


def test_the_units_of_one_stream_are_runs_of_sessions():
    sessions = random_sessions(streams=1, length=90, seed=2)
    found = score(sessions)
    rewards = [s.own_reward for s in sessions]
    means = [np.mean(rewards[start : start + 10]) for start in range(0, 90, 10)]
    width = 2.3060 * np.std(means, ddof=1) / 9**0.5
    assert found.units == "9 runs of 10 sessions (Student's t)"
    assert found.ci95 == pytest.approx((found.total_score - width, found.total_score + width), abs=1e-4)


def test_a_single_unit_has_no_interval():
    for sessions in ([session(0)], [session(0), session(1, right=False)]):
        assert score(sessions).ci95 is None
    assert score(sessions).units == "1 run of 2 sessions (too few for an interval)"
    assert paired_difference(sessions, sessions).ci95 is None


def test_the_interval_of_many_streams_depends_on_the_seed_and_the_order_of_sessions_does_not_matter():
    sessions = random_sessions(streams=16, length=5, seed=3)
    assert score(sessions, seed=1) == score(sessions, seed=1)
    assert score(sessions, seed=1).units == "16 streams (bootstrap-t)"
    assert score(sessions, seed=1).ci95 != score(sessions, seed=2).ci95
    assert score(sessions, seed=1).ci95 == score(sessions[::-1], seed=1).ci95


def test_paired_difference_is_the_mean_over_pairs_in_any_order():
    left = [session(0, asks=1), session(1), session(0, stream="t"), session(1, stream="t", right=False)]
    right = [session(1, stream="t"), session(0, stream="t"), session(1, right=False), session(0)]
    found = paired_difference(left, right)
    assert found.mean == pytest.approx((-0.3 + 1 + 0 - 1) / 4)
    assert (found.sessions, found.failed, found.units) == (4, 0, "2 streams (Student's t)")


@pytest.mark.parametrize("streams", [5, 20])
def test_a_constant_difference_has_an_interval_of_no_width(streams):
    left = random_sessions(streams=streams, length=6, seed=4)
    right = [session(s.position, stream=s.stream, length=6, right=s.correct, asks=s.asks + 1) for s in left]
    found = paired_difference(left, right)
    assert found.mean == pytest.approx(0.3)
    assert np.allclose(found.ci95, 0.3, atol=1e-12)


def test_pairs_with_a_failed_session_are_left_out_and_counted():
    left = [session(0), session(1)]
    right = [session(0, right=False), session(1, ending=Ending.FAILED)]
    found = paired_difference(left, right)
    assert (found.mean, found.sessions, found.failed) == (1.0, 1, 1)


def test_paired_difference_refuses_sets_that_cover_other_questions():
    with pytest.raises(ContractError, match=r"stream s differs at position 1 \(2 against 1 sessions\)"):
        paired_difference([session(0), session(1)], [session(0)])
    with pytest.raises(ContractError, match="stream s differs at position 0"):
        paired_difference([session(0, question="a")], [session(0, question="b")])


def test_curve_follows_the_position_in_streams_of_any_length():
    sessions = [
        session(0, stream="long", length=4, asks=1),
        session(3, stream="long", length=4, right=False),
        session(0, stream="short", length=2),
        session(1, stream="short", length=2, asks=1),
        session(2, stream="long", length=4, ending=Ending.FAILED),
    ]
    first, second = curve(sessions, bins=2)
    assert (first.start, first.end, first.sessions, first.asked_share, first.accuracy) == (0.0, 0.5, 2, 0.5, 1.0)
    assert (second.sessions, second.asked_share, second.accuracy) == (2, 0.5, 0.5)


def test_scoring_and_recording_load_no_heavy_library():
    code = (
        "import sys, agile_ray.evaluation.score, agile_ray.record.store, agile_ray.record.recorder\n"
        "print([m for m in ('torch', 'ray', 'vllm', 'deepspeed', 'transformers', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=110)
    assert done.stdout.strip() == "[]"
