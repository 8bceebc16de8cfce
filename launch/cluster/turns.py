"""Engines and learner ranks on the same GPUs, in turns (`cluster.colocate`). Each call of theirs takes the turn first.

    to play     the ranks' states go to main memory (offload), the engines come back (wake)
    to learn    the engines go to main memory (sleep), the ranks' states come back (reload)

One iteration: publish; offload, wake, load the version, collect; sleep, reload, score, learn, publish. A version lies
in Ray's object store, in main memory, so it is published in one turn and loaded in the other.
Where a rank is lost, the turn is the learners', and fresh ranks start on GPUs that the engines have left (`renew`).
"""

from collections.abc import Callable
from typing import Protocol


class Sleeper(Protocol):
    """The engines."""

    def sleep(self) -> None:
        """Move weights to main memory, drop the key-value cache; requests are kept."""
        ...

    def wake(self) -> None:
        """Be as before `sleep`."""
        ...


class Mover(Protocol):
    """The learner ranks."""

    def offload(self) -> None:
        """Move weights and optimizer to main memory."""
        ...

    def reload(self) -> None:
        """Be as before `offload`."""
        ...


class Turns:
    """Whose turn it is. Until `begin` nobody waits for the other."""

    def __init__(self) -> None:
        self._pair: tuple[Mover, Sleeper] | None = None
        self._playing = False

    def begin(self, learners: Mover, engines: Sleeper) -> None:
        """Let these take turns from now on: the learners have theirs, the engines sleep."""
        self._pair = learners, engines

    def play(self) -> None:
        """Give the GPUs to the engines.

        Raises:
            AgileError: one of the two did not move; what is on the GPUs is unknown, and the run must end.
        """
        if self._pair is not None and not self._playing:
            learners, engines = self._pair
            learners.offload()
            engines.wake()
            self._playing = True

    def learn(self) -> None:
        """Give the GPUs to the learners.

        Raises:
            AgileError: as `play`.
        """
        if self._pair is not None and self._playing:
            learners, engines = self._pair
            engines.sleep()
            self._playing = False
            learners.reload()

    def renew(self, restart: Callable[[], None]) -> None:
        """Let fresh learner ranks start in the place of lost ones: the engines leave the GPUs first.

        Args:
            restart: ends the lost ranks, and starts others.

        Raises:
            AgileError: the engines did not leave; or what `restart` raises, after which this may be called again.
        """
        if self._pair is not None and self._playing:
            self._pair[1].sleep()
            self._playing = False
        restart()
