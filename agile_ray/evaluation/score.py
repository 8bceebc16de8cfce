"""Scores of sessions: shares, totals, intervals, the error budget, and how they change along a stream.

Failed sessions are left out of every number and counted separately. Payments stay integer thousandths until the final
division. intervals.py defines the intervals.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agile_ray.agent.expert import COLLEAGUE
from agile_ray.errors import ContractError, StarvedError
from agile_ray.evaluation import failures
from agile_ray.evaluation.intervals import interval, within_streams
from agile_ray.types import Ending, Origin, Session


class Cause(StrEnum):
    """Why a session that did not fail has no right answer: the first cause that applies."""

    CUT = "cut"  # a budget ran out before anything was submitted
    NO_ANSWER = "no_answer"  # the context was cleared, nothing was submitted
    ADVICE_WRONG = "advice_wrong"  # advice was paid for, but the submitted answer is wrong
    BAD_QUERY = "bad_query"  # the tool could not run a query of the session
    ROWS_WRONG = "rows_wrong"  # the rows that the tool found are wrong
    PREDICTED_WRONG = "predicted_wrong"  # the policy's own words are wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How often the answers of some sessions were right."""

    sessions: int
    accuracy: float
    ci95: tuple[float, float] | None  # of the accuracy, for other questions of these streams


@dataclass(frozen=True, slots=True, kw_only=True)
class KindScore:
    """The error budget of one kind of question."""

    sessions: int
    asked: int  # sessions that asked at least once
    asked_share: float
    accuracy: float
    wrong: dict[Cause, int]  # sessions by cause; with the right ones they sum to `sessions`
    new: Answered | None = None  # sessions whose answer memory did not hold; None: there are none
    known: Answered | None = None  # sessions whose answer memory held


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceScore:
    """The score of the sessions at which one price was told."""

    sessions: int
    asked_share: float
    accuracy: float
    total_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The score of a set of sessions."""

    sessions: int  # that did not fail
    asked_share: float  # share that asked at least once
    asked_new: float | None  # the same, of sessions whose answer memory did not hold; None: there are none
    asked_known: float | None  # of sessions whose answer memory held
    asks_per_session: float
    accuracy: float
    total_score: float  # accuracy - thousandths paid / (1000 sessions), reward per session
    ci95: tuple[float, float] | None  # [low, high] of total_score; None: a single unit has no interval
    units: str  # of the interval, and its method: "64 streams (bootstrap-t)"
    failed: int  # sessions left out
    failed_price: int  # thousandths that failed sessions paid; not part of any other field
    endings: dict[Ending, int]
    kinds: dict[str, KindScore]
    reasons: dict[str, int] = field(default_factory=dict)  # failed sessions by reason, the commonest first
    prices: dict[int, PriceScore] = field(default_factory=dict)  # by price, thousandths; empty if all have the same
    # share of sessions that asked "expert" and "colleague" at least once; empty if nobody asked the colleague
    experts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Total score of one policy minus another's, on the same questions."""

    mean: float
    ci95: tuple[float, float] | None
    sessions: int  # pairs compared
    failed: int  # pairs left out because one of the two failed
    units: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Sessions in one part of their streams; bounds are shares of the stream's length."""

    start: float  # included
    end: float  # excluded
    sessions: int
    asked_share: float
    accuracy: float
    remembered: float | None = None  # mean number of earlier sessions whose entries memory held; None: not measured


def reward(session: Session) -> int:
    """Own reward of a session, thousandths."""
    return session.reward


def expected_reward(session: Session, guess_probability: float | None) -> float:
    """Own reward of a session, thousandths, with a guess counted at its probability of being right.

    This keeps every expected value and removes the noise of luck.

    Args:
        session: any.
        guess_probability: what `agile_ray.agent.hindsight.guess_probability` says of it; None counts it as judged.
    """
    return reward(session) if guess_probability is None else 1000 * guess_probability - session.paid


def score(sessions: Sequence[Session], *, seed: int = 0) -> Score:
    """Score a set of sessions.

    Args:
        sessions: of one policy; each question is played once.
        seed: of the bootstrap.

    Raises:
        ContractError: a question was played twice.
        StarvedError: no session is left to score; says why most of them failed.
    """
    _by_question(sessions)
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    if not kept:
        raise StarvedError(f"score: needs a session that did not fail, found none{failures.summary(sessions)}")
    failed = [session for session in sessions if session.ending is Ending.FAILED]
    ci95, units = interval([(session, reward(session)) for session in kept], seed=seed)
    return Score(
        sessions=len(kept),
        asked_share=_share(kept, _asked),
        asked_new=_asked_among([session for session in kept if not session.hindsight.known]),
        asked_known=_asked_among([session for session in kept if session.hindsight.known]),
        asks_per_session=sum(session.asks for session in kept) / len(kept),
        accuracy=_share(kept, _right),
        total_score=sum(map(reward, kept)) / (1000 * len(kept)),
        ci95=ci95,
        units=units,
        failed=len(failed),
        failed_price=sum(session.paid for session in failed),
        endings=dict(Counter(session.ending for session in sessions)),
        kinds={
            kind: _kind_score([session for session in kept if session.kind == kind])
            for kind in sorted({session.kind for session in kept})
        },
        reasons=failures.reasons(failed),
        prices=_by_price(kept),
        experts=_by_expert(kept),
    )


def paired_difference(
    first: Sequence[Session],
    second: Sequence[Session],
    *,
    worth: Callable[[Session], float] = reward,
    seed: int = 0,
    other_streams: bool = True,
) -> Difference:
    """Total score of `first` minus `second`, question by question.

    Args:
        first: sessions of one policy.
        second: sessions of the other, on the same questions.
        worth: value of one session, thousandths.
        seed: of the bootstrap.
        other_streams: the interval is for other streams; else for other questions of these streams.

    Raises:
        ContractError: they do not cover the same questions, or one was played twice.
        StarvedError: every pair has a failed session; says why most of them failed.
    """
    left, right = _by_question(first), _by_question(second)
    differing = (left.keys() ^ right.keys()) or {key for key in left if left[key].question_id != right[key].question_id}
    if differing:
        stream, position = min(differing)
        raise ContractError(
            f"paired_difference: both sides must cover the same questions, but stream {stream} differs at "
            f"position {position} ({len(left)} against {len(right)} sessions); play the same streams"
        )
    pairs = [
        (session, worth(session) - worth(right[key]))
        for key, session in left.items()
        if Ending.FAILED not in (session.ending, right[key].ending)
    ]
    if not pairs:
        raise StarvedError(
            f"paired_difference: each of {len(left)} pairs has a failed session{failures.summary([*first, *second])}"
        )
    ci95, units = interval(pairs, seed=seed) if other_streams else within_streams(pairs)
    return Difference(
        mean=sum(difference for _, difference in pairs) / (1000 * len(pairs)),
        ci95=ci95,
        sessions=len(pairs),
        failed=len(left) - len(pairs),
        units=units,
    )


def curve(sessions: Iterable[Session], *, bins: int = 10) -> list[Bin]:
    """Asked share, accuracy and memory along the stream, in `bins` equal parts; empty parts are left out."""
    parts: list[list[Session]] = [[] for _ in range(bins)]
    for session in sessions:
        if session.ending is not Ending.FAILED:
            parts[session.position * bins // session.stream_length].append(session)
    return [
        Bin(
            start=index / bins,
            end=(index + 1) / bins,
            sessions=len(part),
            asked_share=_share(part, _asked),
            accuracy=_share(part, _right),
            remembered=sum(sum(one.hindsight.memory_sizes.values()) for one in part) / len(part),
        )
        for index, part in enumerate(parts)
        if part
    ]


def cause(session: Session) -> Cause | None:
    """Why the session has no right answer; None if it has one."""
    if session.correct:
        return None
    if session.answer is None:
        return Cause.CUT if session.ending is Ending.CUT else Cause.NO_ANSWER
    if session.asks:
        return Cause.ADVICE_WRONG
    if "bad_query" in session.remarks:
        return Cause.BAD_QUERY
    return Cause.ROWS_WRONG if session.origin is Origin.ROWS else Cause.PREDICTED_WRONG


def _by_price(sessions: Sequence[Session]) -> dict[int, PriceScore]:
    prices = sorted({session.price for session in sessions})
    if len(prices) < 2:
        return {}
    return {price: _price_score([session for session in sessions if session.price == price]) for price in prices}


def _by_expert(sessions: Sequence[Session]) -> dict[str, float]:
    asked = [{receipt.key.endswith(f"@{COLLEAGUE}") for receipt in session.receipts} for session in sessions]
    if not any(True in one for one in asked):
        return {}
    return {name: sum(who in one for one in asked) / len(asked) for name, who in (("expert", False), (COLLEAGUE, True))}


def _price_score(sessions: Sequence[Session]) -> PriceScore:
    return PriceScore(
        sessions=len(sessions),
        asked_share=_share(sessions, _asked),
        accuracy=_share(sessions, _right),
        total_score=sum(map(reward, sessions)) / (1000 * len(sessions)),
    )


def _kind_score(sessions: Sequence[Session]) -> KindScore:
    found = Counter(map(cause, sessions))
    return KindScore(
        sessions=len(sessions),
        asked=sum(map(_asked, sessions)),
        asked_share=_share(sessions, _asked),
        accuracy=_share(sessions, _right),
        wrong={reason: found[reason] for reason in Cause},
        new=_answered([session for session in sessions if not session.hindsight.known]),
        known=_answered([session for session in sessions if session.hindsight.known]),
    )


def _answered(sessions: Sequence[Session]) -> Answered | None:
    if not sessions:
        return None
    ci95, _ = within_streams([(session, 1000.0 * session.correct) for session in sessions])
    return Answered(sessions=len(sessions), accuracy=_share(sessions, _right), ci95=ci95)


def _share(sessions: Sequence[Session], claim: Callable[[Session], bool]) -> float:
    return sum(map(claim, sessions)) / len(sessions)


def _asked_among(sessions: Sequence[Session]) -> float | None:
    return _share(sessions, _asked) if sessions else None


def _asked(session: Session) -> bool:
    return session.asks > 0


def _right(session: Session) -> bool:
    return session.correct


def _by_question(sessions: Sequence[Session]) -> dict[tuple[str, int], Session]:
    by_question = {(session.stream, session.position): session for session in sessions}
    if len(by_question) != len(sessions):
        (stream, position), times = Counter((s.stream, s.position) for s in sessions).most_common(1)[0]
        raise ContractError(
            f"score: a set has each question once, but stream {stream} position {position} is there {times} times"
        )
    return by_question
