"""How long the rows of a training are: those of a finished run, of the teacher's sessions, or the longest allowed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event
from agile_ray.segments import cut
from agile_ray.types import Ending, Int64, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long the rows of training are."""

    tokens: Int64  # [B], of each sampled row
    action_share: float  # action tokens over all tokens
    rows_per_session: float
    source: str  # where they come from, in words


def longest(config: RunConfig) -> Lengths:
    """Rows of the greatest length that a session may have."""
    tokens = np.full(64, config.agent.session_tokens, np.int64)
    return Lengths(tokens=tokens, action_share=1.0, rows_per_session=1.0, source="the longest that is allowed")


def lengths_of(sessions: Sequence[Session], *, source: str) -> Lengths:
    """Lengths of played sessions; those that failed are left out.

    Args:
        sessions: at least one that did not fail.
        source: where they come from, in words.
    """
    kept = [session for session in sessions if session.ending is not Ending.FAILED]
    rows = [segment for session in kept for segment in cut(session)]
    tokens = np.array([len(segment.token_ids) for segment in rows], np.int64)
    actions = sum(segment.actions for segment in rows)
    return Lengths(
        tokens=tokens, action_share=actions / int(tokens.sum()), rows_per_session=len(rows) / len(kept), source=source
    )


def stored(run: RunFolder) -> Lengths:
    """Lengths of a run's latest iteration, of which the history has the means.

    Raises:
        ConfigError: the run has no iteration.
    """
    lines = [line for line in history.read(run.history) if line.event is Event.ITERATION]
    if not lines:
        raise ConfigError(f"--like {run}: a run that has trained is needed, found no iteration in its history")
    metrics = lines[-1].metrics
    rows, sessions, per_session = metrics["rows"], metrics["sessions"], metrics["tokens_per_session"]
    return Lengths(
        tokens=np.array([round(per_session * sessions / rows)], np.int64),
        action_share=metrics["actions_per_session"] / per_session,
        rows_per_session=rows / sessions,
        source=f"iteration {lines[-1].iteration} of {run}",
    )
