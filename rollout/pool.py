"""The driver's side of the rollout actors. Each call goes to every actor at once and blocks until all have answered.

call        waits for                                          bounded by
start       every engine to serve its first weights            START_S
reopen      every actor to open new lanes                      cluster.deadline_s
spread      every lane's first memory to be grown                 cluster.deadline_s
collect     every lane to play its sessions                    cluster.deadline_s
evaluate    every stream to be played                          cluster.deadline_s
load        every engine to fetch, load and check a version    cluster.deadline_s
            nccl: to prepare; then to serve and check it       cluster.deadline_s each, and STOP_S to give up
state       every actor to report its lanes                    cluster.deadline_s
restore     every actor to put back its lanes                  cluster.deadline_s
shutdown    every engine to end; then the actors are killed    STOP_S

While collect and evaluate wait, the actors are asked for their progress; that is bounded by STOP_S. Inside an actor,
one request or one call into vLLM is bounded by cluster.deadline_s too.
"""

import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import ray
from ray.exceptions import RayError

import envs
from agile_ray.errors import AgileError, ConfigError, SyncError
from agile_ray.evaluation.plays import plays
from agile_ray.record.roll_call import RollCall
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Session
from agile_ray.weights import WeightsRef
from rollout.actor import RolloutActor
from rollout.player import LanePosition
from rollout.settings import ActorSettings, RolloutSettings
from rollout.waiting import wait

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

START_S = 900.0
"""Longest wait for the engines to start, seconds; enough to read a large model from a slow disk."""
STOP_S = 15.0
"""Longest wait for the engines to end, and for a report of progress, seconds."""

Result = TypeVar("Result")


class Bar(Protocol):
    """Shows the progress of a call: yields a function that takes the number of finished sessions."""

    def __call__(self, title: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]: ...


def no_bar(title: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    del title, total
    return nullcontext(lambda _: None)


class RolloutPool:
    """Implements `agile_ray.protocols.Rollouts` on Ray actors."""

    def __init__(
        self,
        settings: RolloutSettings,
        *,
        model: Path,
        logs: Path,
        bar: Bar = no_bar,
        roll_call: RollCall | None = None,
    ) -> None:
        """Begin to start the actors; call `wait_until_ready` before any other method.

        Args:
            model: Hugging Face folder, readable on every node.
            logs: folder for the engines' logs.
            roll_call: of the run's folder, into which the actors write receipts; None if they only play.
        """
        self._settings = settings
        self._bar = bar
        self._environment = envs.build(settings.env, seed=settings.seed)
        gpus = settings.rollout.tensor_parallel if settings.device == "gpu" else 0
        kind = ray.remote(num_cpus=1, num_gpus=gpus)(RolloutActor)
        model, logs = model.absolute(), logs.absolute()
        each = (
            ActorSettings(common=settings, index=index, model=model, log=logs / f"engine-{index}.log")
            for index in range(settings.rollout.actors)
        )
        self.handles: list[ActorHandle] = [cast("ActorHandle", kind.remote(one)) for one in each]
        self._roll_call = roll_call
        self._answers = (
            [handle.answer.remote(roll_call, name) for handle, name in zip(self.handles, self._names, strict=True)]
            if roll_call is not None
            else []
        )
        self._starts = [handle.start.remote() for handle in self.handles]

    def wait_until_ready(self) -> None:
        """Wait until every engine serves the model; if one does not start, shut all of them down.

        Raises:
            ConfigError: model, environment or embedder do not fit the settings; or an actor's node does not share the
                run's folder.
            EngineError: an engine does not start.
            DeadlineError: an engine takes longer than `START_S`, for example because the cluster has no free resources.
        """
        try:
            self._wait("answer", self._answers, deadline_s=START_S)
            if self._roll_call is not None:
                self._roll_call.check(self._names)
            self._wait("start", self._starts, deadline_s=START_S)
        except BaseException:
            self.shutdown()
            raise

    @property
    def _names(self) -> list[str]:
        return [f"engine-{index}" for index in range(len(self.handles))]

    def reopen(self, settings: RolloutSettings, *, bar: Bar = no_bar) -> None:
        """Open lanes with other settings on the running engines, each at the start of its first stream.

        Args:
            settings: equal to the previous ones in `rollout`, `device`, `exact` and `agent.session_tokens`.

        Raises:
            ConfigError: environment or embedder do not fit the settings.
        """
        self._settings, self._bar = settings, bar
        self._environment = envs.build(settings.env, seed=settings.seed)
        self._wait("reopen", [handle.reopen.remote(settings) for handle in self.handles])

    def spread(self, shares: AskingShares) -> None:
        """Move every lane to the place where it begins in its first stream; call it before any session is collected.

        Args:
            shares: of the starting policy's sessions that asked; memories are grown by them.

        Raises:
            EngineError: an actor died.
            DeadlineError: an actor took longer than `cluster.deadline_s`.
        """
        self._wait("spread", [handle.spread.remote(shares) for handle in self.handles])

    def collect(self) -> list[Session]:
        """Play `settings.sessions` sessions on every lane.

        Returns:
            Actor by actor, lane by lane, each lane's sessions in stream order.

        Raises:
            EngineError: an actor died or its engine failed; the message names the actor.
            DeadlineError: an actor took longer than `cluster.deadline_s`.
        """
        sessions, rollout = self._settings.sessions, self._settings.rollout
        answers = [handle.collect.remote(sessions) for handle in self.handles]
        return self._sessions("collect", answers, total=sessions * rollout.lanes * rollout.actors)

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        """Play the streams that `agile_ray.evaluation.plays` chooses; actor a of n plays streams a, a + n, a + 2n, ...

        Returns:
            Stream by stream, in the order of the split.

        Raises:
            ConfigError: the split is unknown, or it never ends and `sessions` is None.
            EngineError: an actor died or its engine failed; the message names the actor.
            DeadlineError: an actor took longer than `cluster.deadline_s`.
        """
        chosen = plays(self._environment, split=split, sessions=sessions)
        actors = len(self.handles)
        shares = [chosen[first::actors] for first in range(actors)]
        calls = zip(self.handles, shares, strict=True)
        answers = [handle.evaluate.remote(share, split, greedy) for handle, share in calls]
        total = sum(play.sessions for play in chosen)
        played = self._sessions(f"evaluate {split}", answers, total=total)
        rest = iter(played)
        by_play = {play.index: [next(rest) for _ in range(play.sessions)] for share in shares for play in share}
        return [session for play in chosen for session in by_play[play.index]]

    def load(self, weights: WeightsRef) -> None:
        """Serve a version on every engine and check it there.

        Raises:
            SyncError: an engine refused a bucket, or its logprobs are not those of the version; or the transfer failed
                while engines were loading, and these are held.
            EngineError: an actor died or its engine failed.
            DeadlineError: an actor took longer than `cluster.deadline_s`.
        """
        if weights.transfer is None:
            self._wait("load", [handle.load.remote(weights) for handle in self.handles])
            return
        announced = replace(weights, transfer=None)
        try:
            self._wait("prepare", [handle.prepare.remote(announced) for handle in self.handles])
            weights.transfer()
            self._wait("serve", [handle.serve.remote(announced) for handle in self.handles])
        except AgileError as error:
            self._give_up(error)
            raise

    def _give_up(self, error: AgileError) -> None:
        """End a transfer that failed: engines whose model is untouched serve the old version again.

        Raises:
            SyncError: an engine is held; the message names it.
        """
        calls = [handle.give_up.remote(str(error)) for handle in self.handles]
        try:
            held = self._wait("give_up", calls, deadline_s=STOP_S)
        except AgileError:  # an actor that is dead or late: the first error says more
            return
        reasons = [f"actor {index}: {reason}" for index, reason in enumerate(held) if reason is not None]
        if reasons:
            raise SyncError(f"rollout.load: {'; '.join(reasons)}") from error

    def state(self) -> bytes:
        """Positions and memories of all lanes, for a checkpoint; call it only between two collections."""
        shares: list[list[LanePosition]] = self._wait("state", [handle.positions.remote() for handle in self.handles])
        return pickle.dumps([position for share in shares for position in share])

    def restore(self, state: bytes) -> None:
        """Put every lane back to its position in a checkpoint.

        Raises:
            ConfigError: the checkpoint has another number of lanes, or other streams.
        """
        positions: list[LanePosition] = pickle.loads(state)  # noqa: S301  our own checkpoint
        lanes = self._settings.rollout.lanes
        expected = lanes * len(self.handles)
        if [position.number for position in positions] != list(range(expected)):
            raise ConfigError(
                f"resume: the checkpoint has {len(positions)} lanes, rollout.actors x rollout.lanes is {expected}; set "
                "them as they were"
            )
        shares = [positions[first : first + lanes] for first in range(0, expected, lanes)]
        calls = [handle.restore.remote(share) for handle, share in zip(self.handles, shares, strict=True)]
        self._wait("restore", calls)

    def shutdown(self) -> None:
        """End engines and actors. It raises nothing, since it also runs after a failure; a second call does nothing.

        An actor whose engine is still starting can't answer, and is killed at once.
        """
        pairs = zip(self.handles, self._starts, strict=True)
        calls: list[ObjectRef[None]] = [
            handle.shutdown.remote() for handle, start in pairs if ray.wait([start], timeout=0)[0]
        ]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=STOP_S)
        for handle in self.handles:
            ray.kill(handle)
        self.handles, self._starts = [], []

    def _sessions(self, call: str, answers: "Sequence[ObjectRef[bytes]]", *, total: int) -> list[Session]:
        with self._bar(call, total) as show:
            parts = self._wait(call, answers, meanwhile=lambda: self._show_progress(show))
        return [session for part in parts for session in pickle.loads(part)]  # noqa: S301  from our own actors

    def _show_progress(self, show: Callable[[int], None]) -> None:
        with suppress(RayError):  # a dead actor is reported by the call that waits for it
            show(sum(ray.get([handle.played.remote() for handle in self.handles], timeout=STOP_S)))

    def _wait(
        self,
        call: str,
        answers: "Sequence[ObjectRef[Result]]",
        *,
        deadline_s: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Result]:
        limit = self._settings.deadline_s if deadline_s is None else deadline_s
        return wait(call, answers, deadline_s=limit, meanwhile=meanwhile)
