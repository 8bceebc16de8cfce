"""Engines and learner ranks on the same GPUs, in turns (`cluster.colocate`). Each call of theirs takes the turn first.

    to play     the ranks' states go to main memory (offload), the engines come back (wake)
    to learn    the engines go to main memory (sleep), the ranks' states come back (reload)

One iteration: publish; offload, wake, load the version, collect; sleep, reload, score, learn, publish. A version lies
in Ray's object store, in main memory, so it is published in one turn and loaded in the other.
"""

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
            learners.reload()
            self._playing = False
