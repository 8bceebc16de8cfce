"""Metrics of assigned credit that every mode logs."""

from collections.abc import Sequence

import numpy as np

from agile_ray.types import Ending, Float64, Session


def credit_metrics(sessions: Sequence[Session], amounts: Float64, *, threshold: float) -> dict[str, float]:
    """Describe the credit of one iteration, by the names in record/metrics.py.

    All but `credit` are over the sessions that wrote, since no other has credit.

    Args:
        sessions: S of one iteration.
        amounts: float64 [S], A_i.
        threshold: minimum cosine of the questions of a reader and a writer.
    """
    trained = np.array([session.ending is not Ending.FAILED for session in sessions])
    writers = np.array([bool(session.writes) for session in sessions]) & trained
    metrics = {"credit": float(amounts[trained].mean()) if trained.any() else 0.0}
    if not writers.any():
        return metrics | dict.fromkeys(("credit_mean", "credit_spread", "credit_observed"), 0.0)
    return metrics | {
        "credit_mean": float(amounts[writers].mean()),
        "credit_spread": float(amounts[writers].std()),
        "credit_observed": correlation(amounts[writers], observed_gains(sessions, threshold=threshold)[writers]),
    }


def observed_gains(sessions: Sequence[Session], *, threshold: float) -> Float64:
    """Compute what later sessions were observed to gain from each session's entries, without a model, float64 [S].

    The sum of (own reward - baseline) over the later sessions that read one of them and whose question is similar. The
    baseline is the mean own reward of sessions on the reader's topic whose answer memory did not hold. A reader of
    several writers counts in full for each. Left out: readers whose counterfactual was too long to be kept, and topics
    whose answers memory always held.
    """
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    without = {
        topic: [session.own_reward for session in kept if session.topic == topic and not session.hindsight.known]
        for topic in {session.topic for session in kept}
    }
    baseline = {topic: float(np.mean(rewards)) for topic, rewards in without.items() if rewards}
    indices = {(session.stream, session.position): index for index, session in enumerate(sessions)}
    gains = np.zeros(len(sessions))
    for reader in kept:
        for one in reader.hindsight.counterfactuals:
            writer = indices.get((reader.stream, one.writers[0]))
            alone = len(one.writers) == 1 and one.similarity >= threshold
            if alone and writer is not None and reader.topic in baseline:
                gains[writer] += reader.own_reward - baseline[reader.topic]
    return gains


def correlation(left: Float64, right: Float64) -> float:
    """Pearson's correlation; 0 if one of the two is constant."""
    if len(left) < 2 or np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
