"""Credit across sessions: A_i, what a session's writes to memory are worth to the sessions after it.

Sessions are trained as independent episodes on `r_i + A_i` (AGILE, Appendix A, eq. 5 and 6): A_i is the only way by
which the value of what was remembered reaches the policy. What matters to the gradient is the part that hangs on what
session i did:

    A_i = V(S_{i+1} | with what i wrote) - V(S_{i+1} | without it)

    none        0
    heuristic   the paper's bonus, eq. 7
    fitted      V is a regression on the state of memory                                    (agile_ray/fitted.py)
    linked      V is read where later sessions retrieved what i wrote                       (agile_ray/linked.py)

Dimensions: S = sessions of one iteration. Rewards and credit in units of the reward for a right answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agile_ray import fitted, linked
from agile_ray.config import Credit
from agile_ray.errors import ContractError
from agile_ray.types import Ending, Scores, Segment, Session, TrainingRow

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What all modes may look at."""

    sessions: Sequence[Session]  # [S] of this iteration, in stream order within a stream
    past: Sequence[Sequence[Session]]  # iterations before this one, the oldest first
    links: linked.Links  # reads whose counterfactual was scored; none unless the mode asks for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The credit of one iteration."""

    rows: list[TrainingRow]
    figures: dict[str, float]  # by the names in metrics.py


FEW = 20
"""Sessions below which a mean is all that can be told of them."""
Amounts = tuple[Float64, dict[str, float]]
"""A_i of every session [S], and what the mode has to say of itself."""


def none(evidence: Evidence, _: Credit) -> Amounts:
    """A_i = 0: every session is an island."""
    return np.zeros(len(evidence.sessions)), {}


def heuristic(evidence: Evidence, config: Credit) -> Amounts:
    """A_i of AGILE, eq. 7, for every session of the iteration; see `bonus`."""
    sessions = evidence.sessions
    amounts = bonus(
        wrote=np.array([bool(session.writes) for session in sessions], dtype=np.bool_),
        later=np.array([session.later_similar for session in sessions], dtype=np.int64),
        stored=np.array([session.stored_similar for session in sessions], dtype=np.int64),
        beta=config.beta,
    )
    return amounts, {}


def bonus(*, wrote: Bool, later: Int64, stored: Int64, beta: float) -> Float64:
    """Beta * 1[N > 0] / (M + 1) for sessions that wrote memory, else 0 (AGILE, eq. 7).

    The paper does not say that only writers get it; without that, the bonus would not hang on what the session did.

    Args:
        wrote: bool [S], the session wrote an entry.
        later: int64 [S], N, questions that follow in the stream and could use what is written: cosine above
            memory.threshold, and of the same product or both with knowledge to be learned.
        stored: int64 [S], M, entries like the question before the session, cosine above memory.threshold: QA pairs of
            its product, or knowledge, whichever are more.
        beta: reward.

    Returns:
        float64 [S].
    """
    return np.where(wrote & (later > 0), beta / (stored + 1), 0.0)


def by_fit(evidence: Evidence, config: Credit) -> Amounts:
    """A_i by a regression of V on the state of memory, over this iteration and all of `past`, of which the loop keeps
    `credit.window - 1`; formulas and source are in agile_ray/fitted.py."""
    known = (*evidence.past, evidence.sessions)
    amounts, figures = np.zeros(sum(map(len, known))), {}
    for topic in fitted.topics(known):
        schema = fitted.Schema.of(known, topic)
        steps = fitted.transitions(known, schema)
        fit = fitted.fit(steps, prior=schema.prior, decay=config.decay)
        amounts += fitted.fitted(steps, fit, sessions=len(amounts))
        figures |= fit.figures(schema)
    return amounts[len(amounts) - len(evidence.sessions) :], figures


def by_links(evidence: Evidence, _: Credit) -> Amounts:
    """A_i by what later sessions read; see `linked.linked`."""
    rewards = np.array([session.own_reward for session in evidence.sessions])
    return linked.linked(rewards, evidence.links), {"credit_overlap": evidence.links.overlap(rewards)}


MODES: Mapping[str, Callable[[Evidence, Credit], Amounts]] = {
    "none": none,
    "heuristic": heuristic,
    "fitted": by_fit,
    "linked": by_links,
}


def prefixes(sessions: Sequence[Session], config: Credit) -> list[Segment]:
    """What the learner must score beside the sessions' own segments: the counterfactual prefixes of `linked`."""
    return linked.prefixes(sessions, threshold=config.threshold) if config.mode == "linked" else []


def assign(
    sessions: Sequence[Session],
    segments: Sequence[Segment],
    scores: Sequence[Scores],
    config: Credit,
    *,
    past: Sequence[Sequence[Session]] = (),
) -> Assigned:
    """The credit step between scoring and learning: give every session its A_i, where it was settled that it writes.

    Args:
        sessions: of this iteration, in stream order within a stream.
        segments: cut from them; those of one session in their order.
        scores: of the segments, then of what `prefixes` returned for the same sessions.
        past: sessions of the iterations before, the oldest first; `fitted` learns from them too.

    Raises:
        ContractError: there are not as many scores as segments and prefixes, or a session reads what a later one wrote.
        KeyError: a segment is of no session that was given.
    """
    if len(scores) < len(segments):
        raise ContractError(f"assign: every segment has its scores, got {len(scores)} for {len(segments)} segments")
    imagined = scores[len(segments) :]
    links = linked.link(sessions, imagined, threshold=config.threshold if config.mode == "linked" else None)
    amounts, figures = MODES[config.mode](Evidence(sessions=sessions, past=past, links=links), config)
    places = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    expected = usual(sessions, amounts)
    left = [session.settled for session in sessions]  # action tokens until the session is settled
    rows = []
    for segment, score in zip(segments, scores[: len(segments)], strict=True):
        owner = places[segment.stream, segment.position]
        here = min(left[owner], segment.actions)
        lands = 0 < here == left[owner]
        rows.append(
            TrainingRow(
                segment=segment,
                scores=score,
                credit=float(amounts[owner]) if lands else 0.0,
                expected=float(expected[owner]) if lands else 0.0,
                settled=here,
                wrote=bool(sessions[owner].writes),
            )
        )
        left[owner] -= here
    return Assigned(rows=rows, figures=_describe(sessions, amounts, threshold=config.threshold) | figures)


def usual(sessions: Sequence[Session], amounts: Float64) -> Float64:
    """What credit each session could expect, from those on its topic that found memory alike.

    Alike: memory held the answer for both, or for neither. Among them it is the least-squares plane over what is left
    of the stream and over N / (N + 1), N similar questions that follow; their mean where they are few. N, since most of
    what credit varies by is whether anyone will ask again; as a share, since of many readers the later count for less.

    Neither hangs on what a session does: questions come as they come. So, with ppo.discount and ppo.decay at 1, it
    changes no gradient on average, though the policy does not know N (a baseline may look at the whole input process:
    Mao et al., 2019), but for the share that a session's own credit has in the fit: of n sessions alike, credit counts
    (n - 3) / n on average, (n - 1) / n for a mean, and so nothing where one stands alone. And it is right from the
    first update on, also when credit changes.

    Args:
        amounts: float64 [S], A_i.

    Returns:
        float64 [S].
    """
    left = np.array([1.0 - session.position / session.stream_length for session in sessions])
    later = np.array([session.later_similar for session in sessions], dtype=np.float64)
    features = np.stack([np.ones_like(left), left, later / (later + 1.0)], axis=1)
    trained = np.array([session.ending is not Ending.FAILED for session in sessions])
    kinds = [(session.topic, session.known) for session in sessions]
    expected = np.zeros(len(sessions))
    for kind in set(kinds):
        alike = np.array([one == kind for one in kinds])
        seen = alike & trained
        used = features if seen.sum() >= FEW else features[:, :1]
        if seen.any():
            expected[alike] = used[alike] @ np.linalg.lstsq(used[seen], amounts[seen])[0]
    return expected


def _describe(sessions: Sequence[Session], amounts: Float64, *, threshold: float) -> dict[str, float]:
    """What every mode logs: of the sessions that wrote, since no other has credit."""
    trained = np.array([session.ending is not Ending.FAILED for session in sessions])
    writers = np.array([bool(session.writes) for session in sessions]) & trained
    figures = {"credit": float(amounts[trained].mean()) if trained.any() else 0.0}
    if not writers.any():
        return figures | dict.fromkeys(("credit_mean", "credit_spread", "credit_truncated", "credit_observed"), 0.0)
    return figures | {
        "credit_mean": float(amounts[writers].mean()),
        "credit_spread": float(amounts[writers].std()),
        "credit_truncated": float(np.mean(_truncated(sessions)[writers])),
        "credit_observed": correlation(amounts[writers], observed(sessions, threshold=threshold)[writers]),
    }


def _truncated(sessions: Sequence[Session]) -> Bool:
    """Whether the session's stream goes on behind what was collected: readers there are not seen."""
    ends = {session.stream: 0 for session in sessions}
    for session in sessions:
        ends[session.stream] = max(ends[session.stream], session.position + 1)
    return np.array([ends[session.stream] < session.stream_length for session in sessions])


def observed(sessions: Sequence[Session], *, threshold: float) -> Float64:
    """What each session's entries were later seen to bring, in hindsight and without a model, float64 [S].

    The sum, over the later sessions that read one and whose question is similar, of their own reward minus the mean own
    reward of sessions on the same topic whose answer memory did not hold. A reader of several writers counts in full
    for each. Left out: readers whose counterfactual was too long to be kept, and topics whose answers memory always
    held.
    """
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    without = {
        topic: [session.own_reward for session in kept if session.topic == topic and not session.known]
        for topic in {session.topic for session in kept}
    }
    usual = {topic: float(np.mean(rewards)) for topic, rewards in without.items() if rewards}
    places = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    gains = np.zeros(len(sessions))
    for reader in kept:
        for one in reader.counterfactuals:
            writer = places.get((reader.stream, one.writers[0]))
            if len(one.writers) == 1 and one.similarity >= threshold and writer is not None and reader.topic in usual:
                gains[writer] += reader.own_reward - usual[reader.topic]
    return gains


def correlation(left: Float64, right: Float64) -> float:
    """Pearson's; 0 where one of the two is constant, since it then says nothing of the other."""
    if len(left) < 2 or np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
