"""The protocol of observers, which watch a session without changing it."""

from collections.abc import Sequence
from typing import Protocol

from agile_ray.agent.session_memory import Retrieved
from agile_ray.types import Hindsight


class Observer(Protocol):
    """Watches a session and collects what credit needs and the agent does not see."""

    def retrieved(self, found: Retrieved, *, context_ids: Sequence[int], shown: slice) -> Sequence[str]:
        """Called by each [RetrieveMemory] before the session has read or bought anything.

        Args:
            found: what memory returned.
            context_ids: the context before the reply.
            shown: where the reply of [GetQuestion] is in the context.

        Returns:
            Remarks to add to the session.
        """
        ...

    def decided(self, *, actions: int) -> None:
        """Called by each write to memory, and by the submission, after which memory can't be written.

        Args:
            actions: action tokens taken so far, this one included.
        """
        ...

    def hindsight(self, *, actions: int, unaided: str | None) -> Hindsight:
        """Called once, at the end.

        Args:
            actions: action tokens of the session.
            unaided: the words that were submitted; None if there are none, or the session had advice or rows.
        """
        ...
