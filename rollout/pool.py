"""The driver's side of the rollout actors. Each call goes to every actor at once and blocks until all have answered.

call        waits for                                          bounded by
start       every engine to serve its first weights            START_S
reopen      every actor to open new lanes                      cluster.deadline_s
spread      every lane's first memory to be grown              cluster.deadline_s
collect     every lane to play its sessions                    cluster.deadline_s for each step of a session
evaluate    every stream to be played                          cluster.deadline_s for each step of a session
report      every actor's last report of an evaluation         cluster.deadline_s
load        every engine to fetch, load and check a version    cluster.deadline_s
            nccl: to prepare; then to serve and check it       cluster.deadline_s each, and STOP_S to give up
sleep, wake every engine to leave its GPU, or to come back     cluster.deadline_s
save        every actor to write its lanes                     cluster.deadline_s
restore     every actor to put back its lanes                  cluster.deadline_s
shutdown    every engine to end; then the actors are killed    STOP_S

collect and evaluate take as long as there is something to play. A step is one request to the engine, or what one turn
asks for: tool, judge, expert, memory. The actor bounds each step, and names the session that is late. Meanwhile the
driver asks the actors for reports (rollout/watch.py); it gives up on an actor that reports no step for REPORT_S longer
than that. Any other call into vLLM is bounded by cluster.deadline_s inside its actor, too.
"""

import itertools
import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import ray

import envs
from agile_ray.errors import AgileError, ConfigError, SyncError
from agile_ray.evaluation.plays import Part, Play, balanced, plays
from agile_ray.record.evaluations import PlayedParts
from agile_ray.record.roll_call import REMEDY, RULE, RollCall
from agile_ray.scripted.guided import Guide
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Session
from agile_ray.weights import WeightsRef
from rollout.actor import RolloutActor
from rollout.lane_files import saved_actors
from rollout.settings import ActorSettings, RolloutSettings
from rollout.waiting import wait
from rollout.watch import REPORT_S, Watch

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

START_S = 900.0
"""Longest wait for the engines to start, seconds; enough to read a large model from a slow disk."""
STOP_S = 15.0
"""Longest wait for the engines to end, seconds."""

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
        places: "Sequence[PlacementGroupSchedulingStrategy] | None" = None,
        take_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to start the actors; call `wait_until_ready` before any other method.

        Args:
            model: Hugging Face folder, readable on every node.
            logs: folder for the engines' logs.
            roll_call: of the run's folder, into which the actors write receipts; None if they only play.
            places: where each actor runs; None: wherever Ray finds room.
            take_turn: called before the engines compute, who then have the GPUs.
        """
        self._settings = settings
        self._bar = bar
        self._calls = itertools.count()
        self._environment = envs.build(settings.env, seed=settings.seed)
        self._take_turn = take_turn
        kind = ray.remote(num_cpus=1, num_gpus=settings.gpu_share * settings.rollout.tensor_parallel)(RolloutActor)
        strategies = ["DEFAULT"] * settings.rollout.actors if places is None else places
        model, logs = model.absolute(), logs.absolute()
        each = (
            ActorSettings(common=settings, index=index, model=model, log=logs / f"engine-{index}.log")
            for index in range(settings.rollout.actors)
        )
        self.handles: list[ActorHandle] = [
            cast("ActorHandle", kind.options(scheduling_strategy=strategy).remote(one))
            for one, strategy in zip(each, strategies, strict=True)
        ]
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
            DeadlineError: a step of a session took longer than `cluster.deadline_s`; the message names the session. Or
                an actor reports no step at all.
        """
        self._take_turn()
        sessions, rollout = self._settings.sessions, self._settings.rollout
        answers = [handle.collect.remote(sessions) for handle in self.handles]
        with self._bar("collect", sessions * rollout.lanes * rollout.actors) as show:
            watch = Watch(self.handles, call=next(self._calls), show=show)
            played: list[bytes] = self._wait_for_steps("collect", answers, watch)
        return [session for part in played for session in pickle.loads(part)]  # noqa: S301  from our own actors

    def evaluate(
        self,
        *,
        split: str,
        sessions: int | None,
        greedy: bool,
        parts: PlayedParts | None = None,
        guide: Guide | None = None,
    ) -> list[Session]:
        """Play the streams that `agile_ray.evaluation.plays` chooses, the longest ones first.

        Args:
            split: of the streams.
            sessions: total number; None plays every stream to its end.
            greedy: whether the most probable token is taken, instead of a sampled one.
            parts: what the same evaluation has played before, and where it is kept from now on. None: nothing.
            guide: script that decides when to ask; None: the engines decide.

        Returns:
            Stream by stream, in the order of the split.

        Raises:
            ConfigError: the split is unknown, or it never ends and `sessions` is None.
            EngineError: an actor died or its engine failed; the message names the actor.
            DeadlineError: as `collect`.
        """
        self._take_turn()
        parts = PlayedParts(None) if parts is None else parts
        chosen = plays(self._environment, split=split, sessions=sessions)
        left = [play for play in (_rest(play, parts.streams.get(play.index)) for play in chosen) if play.left]
        total = sum(play.sessions for play in chosen)
        before = total - sum(play.left for play in left)
        call = next(self._calls)
        shares = balanced(left, shares=len(self.handles))
        answers = [
            handle.evaluate.remote(share, split, greedy, parts.keeps, call, guide)
            for handle, share in zip(self.handles, shares, strict=True)
        ]
        with self._bar(title := f"evaluate {split}", total) as show:
            watch = Watch(self.handles, call=call, show=lambda played: show(before + played), take=parts.add)
            self._wait_for_steps(title, answers, watch)
            for actor, last in enumerate(self._wait("report", watch.ask())):
                watch.note(actor, last)
        return [session for play in chosen for session in parts.streams[play.index].sessions]

    def load(self, weights: WeightsRef) -> None:
        """Serve a version on every engine and check it there.

        Raises:
            SyncError: an engine refused a bucket, or its logprobs are not those of the version; or the transfer failed
                while engines were loading, and these are held.
            EngineError: an actor died or its engine failed.
            DeadlineError: an actor took longer than `cluster.deadline_s`.
        """
        self._take_turn()
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

    def sleep(self) -> None:
        """Leave the GPUs: weights go to main memory, the key-value cache is dropped, requests are kept.

        Raises:
            EngineError: an actor died or its engine failed.
            DeadlineError: an actor took longer than `cluster.deadline_s`.
        """
        self._wait("sleep", [handle.sleep.remote() for handle in self.handles])

    def wake(self) -> None:
        """Come back to the GPUs, with the weights that were there.

        Raises:
            EngineError, DeadlineError: as `sleep`.
        """
        self._wait("wake", [handle.wake.remote() for handle in self.handles])

    def save(self, folder: Path, *, earlier: Path | None) -> None:
        """Write all lanes into a checkpoint; call it only between two collections. Each actor writes its own.

        Args:
            folder: an existing, empty folder.
            earlier: such a folder of the run's latest checkpoint; what has not changed since is linked to it.

        Raises:
            ConfigError: the folder can't be written, or the driver does not see there what an actor wrote.
        """
        folder = folder.absolute()
        before = None if earlier is None else earlier.absolute()
        written = self._wait("save", [handle.save.remote(folder, before) for handle in self.handles])
        for actor, files in enumerate(written):
            for name, size in files.items():
                path = folder / name
                found = path.stat().st_size if path.is_file() else None
                if found != size:
                    raise ConfigError(
                        f"{path}: {RULE}, but rollout actor {actor} wrote {size} bytes there and the driver finds "
                        f"{'no file' if found is None else found}; {REMEDY}"
                    )

    def restore(self, folder: Path) -> None:
        """Put every lane back to its position in a checkpoint, of which this is the folder that `save` filled.

        Raises:
            ConfigError: the checkpoint has another number of actors or lanes, or other streams.
        """
        folder = folder.absolute()
        found = saved_actors(folder)
        if found != set(range(len(self.handles))):
            raise ConfigError(
                f"resume: the checkpoint has lanes of {len(found)} actors, rollout.actors is {len(self.handles)}; set "
                "it as it was"
            )
        self._wait("restore", [handle.restore.remote(folder) for handle in self.handles])

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

    def _wait_for_steps(self, call: str, answers: "Sequence[ObjectRef[Result]]", watch: Watch) -> list[Result]:
        limit = self._settings.deadline_s + REPORT_S  # so that an actor that is late can say so itself
        return wait(call, answers, deadline_s=limit, meanwhile=watch.look)

    def _wait(
        self, call: str, answers: "Sequence[ObjectRef[Result]]", *, deadline_s: float | None = None
    ) -> list[Result]:
        limit = self._settings.deadline_s if deadline_s is None else deadline_s
        return wait(call, answers, deadline_s=limit, meanwhile=None)


def _rest(play: Play, part: Part | None) -> Play:
    """What is left to play of a stream, of which a part may be played."""
    if part is None:
        return play
    return replace(play, begun=part.state) if part.state is not None else replace(play, sessions=0)
