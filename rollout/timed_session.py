"""Plays one session so that a stuck one is named: each of its steps has a deadline.

    the policy writes a turn          bounded by the engine, call by call (rollout/engine.py)
    what the turn asks for is done    bounded here: tool, judge, memory
    an expert thinks                  bounded by agent.expert_s (agile_ray/agent/paid_expert.py); then the session may
                                      wait for a seat (rollout/seats.py)

They alternate. In lockstep, a lane also waits in its policy for the slowest of the others, so only what a lane does
itself counts against it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

from agile_ray.agent.executor import Waits
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, SessionView
from agile_ray.errors import DeadlineError
from agile_ray.types import Session


async def play_session(
    lane: Lane, policy: Policy, *, deadline_s: float, stepped: Callable[[], None], waits: Waits = nullcontext
) -> Session:
    """Play a lane's next session.

    Args:
        lane: plays it.
        policy: writes its turns.
        deadline_s: longest wait for one step, seconds.
        stepped: called before and after each turn that the policy writes.
        waits: the expert is asked in such a block.

    Raises:
        DeadlineError: a step took longer; names the session.
        EngineError: the policy's engine is lost.
    """
    position = lane.position
    try:
        async with asyncio.timeout(deadline_s) as limit:
            watched = _Watched(policy, limit, deadline_s=deadline_s, stepped=stepped)
            return await lane.play(watched, waits=lambda: watched.outside(waits))
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
        self._stop()
        self._stepped()
        completion = await self._policy.write(view)
        self._stepped()
        self._start()
        return completion

    @asynccontextmanager
    async def outside(self, waits: Waits) -> AsyncIterator[None]:
        """A block in which the limit does not run."""
        self._stop()
        async with waits():
            yield
        self._start()

    def _stop(self) -> None:
        self._limit.reschedule(None)

    def _start(self) -> None:
        self._limit.reschedule(asyncio.get_running_loop().time() + self._deadline_s)
