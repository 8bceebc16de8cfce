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

from agile_ray.config import Credit
from agile_ray.credit import fitted, linked, lstd
from agile_ray.credit.baseline import usual
from agile_ray.credit.diagnostics import describe
from agile_ray.errors import ContractError
from agile_ray.types import Assigned, Float64, Int64, Mask, Segment, Session, TokenScores, TrainingRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What all modes may look at."""

    sessions: Sequence[Session]  # [S] of this iteration, in stream order within a stream
    past: Sequence[Sequence[Session]]  # iterations before this one, the oldest first
    links: linked.Links  # reads whose counterfactual was scored; none unless the mode asks for them


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
        later=np.array([session.hindsight.later_similar for session in sessions], dtype=np.int64),
        stored=np.array([session.hindsight.stored_similar for session in sessions], dtype=np.int64),
        beta=config.beta,
    )
    return amounts, {}


def bonus(*, wrote: Mask, later: Int64, stored: Int64, beta: float) -> Float64:
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


def by_fit(evidence: Evidence, _: Credit) -> Amounts:
    """A_i by a regression of V on the state of memory, over this iteration and all of `past`, of which the loop keeps
    `credit.window - 1`; formulas and source are in agile_ray/fitted.py."""
    known = (*evidence.past, evidence.sessions)
    amounts, metrics = np.zeros(sum(map(len, known))), {}
    for topic in fitted.topics(known):
        schema = fitted.Schema.of(known, topic)
        steps = fitted.transitions(known, schema)
        fit = lstd.fit(steps, prior=schema.prior, decay=fitted.TD_LAMBDA)
        amounts += fitted.fitted(steps, fit, sessions=len(amounts))
        metrics |= fitted.metrics(fit, schema)
    return amounts[len(amounts) - len(evidence.sessions) :], metrics


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
    scores: Sequence[TokenScores],
    config: Credit,
    *,
    past: Sequence[Sequence[Session]] = (),
) -> Assigned:
    """Give every session its credit A_i, on the action token that decided whether it writes memory.

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
    amounts, metrics = MODES[config.mode](Evidence(sessions=sessions, past=past, links=links), config)
    places = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    expected = usual(sessions, amounts)
    left = [session.hindsight.decided_after for session in sessions]  # action tokens until that is decided
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
                credit_baseline=float(expected[owner]) if lands else 0.0,
                decided_after=here,
                wrote=bool(sessions[owner].writes),
            )
        )
        left[owner] -= here
    return Assigned(rows=rows, metrics=describe(sessions, amounts, threshold=config.threshold) | metrics)
