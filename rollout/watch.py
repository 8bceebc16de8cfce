"""Follows what the actors report while a call of theirs runs."""

import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError

from agile_ray.evaluation.plays import Part
from rollout.player import Report
from rollout.waiting import FETCH_S

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

REPORT_S = 15.0
"""Longest wait for reports, seconds. An actor that is late is asked again."""


class Watch:
    """The progress of one call to every actor."""

    def __init__(
        self,
        handles: "Sequence[ActorHandle]",
        *,
        call: int,
        show: Callable[[int], None],
        take: Callable[[Part], None] = lambda _: None,
    ) -> None:
        """Begin with a call that was just made.

        Args:
            handles: of the actors.
            call: its number.
            show: called with the number of sessions that all actors have finished.
            take: called with every part of an evaluation, once; those of one stream come in order.
        """
        self._handles = handles
        self._call = call
        self._show = show
        self._take = take
        self._seen = [0] * len(handles)  # parts of each actor that were taken
        self._played = [0] * len(handles)
        self._steps = [-1] * len(handles)

    def ask(self) -> "list[ObjectRef[bytes]]":
        """Ask every actor for its report; hand each answer to `note`."""
        return [handle.report.remote(self._call, seen) for handle, seen in zip(self._handles, self._seen, strict=True)]

    def look(self) -> list[int]:
        """Ask every actor for its report, and take what arrives within `REPORT_S`.

        Returns:
            the actors that made a step since the last report. A dead one is left to the call that waits for it.
        """
        asked = {answer: actor for actor, answer in enumerate(self.ask())}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=REPORT_S)
        moved: list[int] = []
        for answer in ready:
            with suppress(RayError):
                if self.note(asked[answer], ray.get(answer, timeout=FETCH_S)):
                    moved.append(asked[answer])
        self._show(sum(self._played))
        return moved

    def note(self, actor: int, answer: bytes) -> bool:
        """Take an actor's report; whether the actor made a step since the last one."""
        report: Report = pickle.loads(answer)  # noqa: S301  from our own actor
        for part in report.parts:
            self._take(part)
        self._seen[actor] += len(report.parts)
        self._played[actor] = report.played
        moved, self._steps[actor] = report.steps != self._steps[actor], report.steps
        return moved
