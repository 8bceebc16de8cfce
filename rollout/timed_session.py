"""Plays one session so that a stuck one is named: each of its steps has a deadline.

    the policy writes a turn          bounded by the engine, call by call (rollout/engine.py)
    what the turn asks for is done    bounded here: tool, judge, expert, memory

The two alternate. In lockstep, a lane also waits in its policy for the slowest of the others, so only what a lane does
itself counts against it.
"""

import asyncio
from collections.abc import Callable

from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, SessionView
from agile_ray.errors import DeadlineError
from agile_ray.types import Session


async def play_session(lane: Lane, policy: Policy, *, deadline_s: float, stepped: Callable[[], None]) -> Session:
    """Play a lane's next session.

    Args:
        lane: plays it.
        policy: writes its turns.
        deadline_s: longest wait for one step, seconds.
        stepped: called before and after each turn that the policy writes.

    Raises:
        DeadlineError: a step took longer; names the session.
        EngineError: the policy's engine is lost.
    """
    position = lane.position
    try:
        async with asyncio.timeout(deadline_s) as limit:
            return await lane.play(_Watched(policy, limit, deadline_s=deadline_s, stepped=stepped))
    except TimeoutError as error:
        raise DeadlineError(
            f"rollout: session {position} of stream {lane.stream.id}: what one turn asked for took longer than "
            f"cluster.deadline_s ({deadline_s:g} s)"
        ) from error


class _Watched:
    """A policy during whose turns a limit does not run."""

    def __init__(
        self, policy: Policy, limit: asyncio.Timeout, *, deadline_s: float, stepped: Callable[[], None]
    ) -> None:
        self._policy = policy
        self._limit = limit
        self._deadline_s = deadline_s
        self._stepped = stepped

    async def write(self, view: SessionView) -> Completion:
        self._limit.reschedule(None)
        self._stepped()
        completion = await self._policy.write(view)
        self._stepped()
        self._limit.reschedule(asyncio.get_running_loop().time() + self._deadline_s)
        return completion
