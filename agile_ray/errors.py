"""The errors that this project raises on purpose.

AgileError
    ConfigError      the run can't start; fix what the message names (exit code 2)
        TurnedAwayError  an endpoint refuses the key, or has no such address or model: the run ends in its first request
    ContractError    a value violates what its type promises; always a bug
    SessionError     one session failed; recorded on the session, the run continues
        ToolError        the tool or the judge broke (a wrong query is an observation instead)
        JudgeError       a judging model gave no verdict
        ExpertError      the expert broke or missed its deadline
        EndpointError    a chat endpoint refused a request, or missed its deadline
        DemonstrationError  a demonstration can't be played as it is written
    EngineError      vLLM rejected or lost a request
    SyncError        a rollout engine does not serve the weights it was given
    LearnerError     the learners failed, for example by a loss that is not finite
        RankLostError    a learner rank died or was cut off; fresh ranks resume from the last checkpoint
            RankLateError    it hangs: it took longer than a named limit, so this is a DeadlineError too
    StarvedError     none of the played sessions can be trained on or scored, or an expert answers nobody
    DeadlineError    a wait took longer than its named limit
"""

import errno
import os
from typing import Self

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk."""


class AgileError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(AgileError):
    """The run can't start as configured."""


class TurnedAwayError(ConfigError):
    """An endpoint refuses the key, or has no such address or model. No later request would succeed, so the run ends."""


TURNED_AWAY = frozenset({401, 403, 404})
"""Statuses of HTTP that do not get better by waiting."""


def described(error: BaseException) -> str:
    """The error in one line: its type and what it says, which is "" for some errors of libraries."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class ContractError(AgileError):
    """A value violates what its type promises."""

    @classmethod
    def mismatch(cls, where: str, **shapes: tuple[int, ...]) -> Self:
        """Build the error for shapes that should be equal, naming each."""
        listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return cls(f"{where}: shapes must be equal, got {listing}")


class SessionError(AgileError):
    """One session failed; the run continues."""


class ToolError(SessionError):
    """The tool or the judge broke. A query that the tool can't run is an observation instead."""


class JudgeError(ToolError):
    """A judging model gave no verdict."""


class ExpertError(SessionError):
    """The expert broke or missed its deadline."""

    def __init__(self, said: str, *, late: bool = False) -> None:
        """`late`: it missed its deadline."""
        super().__init__(said)
        self.late = late


class EndpointError(SessionError):
    """A chat endpoint refused a request, replied nonsense, or missed its deadline."""

    def __init__(self, said: str, *, late: bool = False) -> None:
        """`late`: it missed its deadline."""
        super().__init__(said)
        self.late = late


class DemonstrationError(SessionError):
    """A demonstration can't be played as it is written."""


class EngineError(AgileError):
    """The inference engine rejected or lost a request."""


class SyncError(AgileError):
    """A rollout engine does not serve the weights it was given."""


class LearnerError(AgileError):
    """The learners failed, for example by a loss that is not finite. They would fail again in the same way."""


class RankLostError(LearnerError):
    """A learner rank died, hangs, or was cut off from the others. Fresh ranks may go on from the last checkpoint."""


class StarvedError(AgileError):
    """None of the played sessions can be trained on or scored, or an expert answers nobody."""


class DeadlineError(AgileError):
    """A wait took longer than its named limit."""


class RankLateError(RankLostError, DeadlineError):
    """A learner rank took longer than a named limit."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error comes from a full disk, also if another process or library passed it on as text."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(os.strerror(number) in str(error) for number in FULL)
