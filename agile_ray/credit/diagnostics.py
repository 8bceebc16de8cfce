"""What every credit mode logs about the credit that it assigned."""

from collections.abc import Sequence

import numpy as np

from agile_ray.types import Ending, Float64, Mask, Session


def describe(sessions: Sequence[Session], amounts: Float64, *, threshold: float) -> dict[str, float]:
    """What every mode logs: of the sessions that wrote, since no other has credit."""
    trained = np.array([session.ending is not Ending.FAILED for session in sessions])
    writers = np.array([bool(session.writes) for session in sessions]) & trained
    metrics = {"credit": float(amounts[trained].mean()) if trained.any() else 0.0}
    if not writers.any():
        return metrics | dict.fromkeys(("credit_mean", "credit_spread", "credit_truncated", "credit_observed"), 0.0)
    return metrics | {
        "credit_mean": float(amounts[writers].mean()),
        "credit_spread": float(amounts[writers].std()),
        "credit_truncated": float(np.mean(_truncated(sessions)[writers])),
        "credit_observed": correlation(amounts[writers], observed(sessions, threshold=threshold)[writers]),
    }


def _truncated(sessions: Sequence[Session]) -> Mask:
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
        topic: [session.own_reward for session in kept if session.topic == topic and not session.hindsight.known]
        for topic in {session.topic for session in kept}
    }
    usual = {topic: float(np.mean(rewards)) for topic, rewards in without.items() if rewards}
    places = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    gains = np.zeros(len(sessions))
    for reader in kept:
        for one in reader.hindsight.counterfactuals:
            writer = places.get((reader.stream, one.writers[0]))
            if len(one.writers) == 1 and one.similarity >= threshold and writer is not None and reader.topic in usual:
                gains[writer] += reader.own_reward - usual[reader.topic]
    return gains


def correlation(left: Float64, right: Float64) -> float:
    """Pearson's; 0 where one of the two is constant, since it then says nothing of the other."""
    if len(left) < 2 or np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
