"""The driver's side of the rollout actors. Play goes on in the background while the loop learns.

call        waits for                                          produces                          unblocked by
start       every engine to serve its first weights            -                                 the engines; START_S
spread      every lane's first memory to be grown              lanes inside their streams        every actor
collect     slice k of every lane                              batch k; lanes play on, as far    the slowest lane
                                                               as `loop.max_age` allows
load        every engine that serves to load and check it      the version is live: more slices  the slowest engine;
                                                               may begin                         nccl: learners too
evaluate    the sessions that are being played; every stream   sessions, in parts; no lane       the longest stream
            to be played                                       plays, versions are held
sleep       actors that are being replaced; every engine to    GPUs for the learners             every engine
            leave its GPU
wake        every engine to come back to its GPU               engines; lost actors are          every engine
                                                               replaced again
save        nothing                                            lanes at the start of slice k     the disk
restore     nothing                                            lanes as `save` wrote them        the disk
reopen      the sessions that are being played                 other lanes on the same engines   every actor
shutdown    every engine to end; then the actors are killed    -                                 STOP_S

A batch, a slice, an age: rollout/fleet/lanes.py. Who plays which lane, and what happens when an actor dies or hangs:
rollout/fleet/dispatch.py. What goes wrong in a session: rollout/player.py.

No call is late because much is to be played. Every step of a session is bounded by cluster.deadline_s inside its actor,
every call into vLLM too. An actor hangs if it does not report, or does not carry out its orders, for HEARTBEAT_S. Such
an actor, and one that dies or whose engine fails, is replaced. The fresh one loads the live weights and is checked
before it plays.
"""

import asyncio
import concurrent.futures
import secrets
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import ray

import envs
from agile_ray.errors import AgileError, RankLostError, SyncError
from agile_ray.evaluation.plays import Part, Play, balanced, plays
from agile_ray.record.evaluations import PlayedParts
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import read_journals
from agile_ray.record.roll_call import RollCall
from agile_ray.scripted.guided import Guide
from agile_ray.scripted.head_start import AskingShares
from agile_ray.types import Session
from agile_ray.weights import WeightsRef
from rollout.actor import RolloutActor
from rollout.fleet.dispatch import Fleet, Worker
from rollout.fleet.lane_files import LaneFiles
from rollout.fleet.lanes import Lanes
from rollout.fleet.messages import Errand
from rollout.fleet.ray_worker import RayWorker
from rollout.garbage import look_rarely
from rollout.settings import ActorSettings, RolloutSettings
from rollout.waiting import wait

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

STOP_S = 15.0
"""Longest wait for the engines to end, seconds."""
SHOW_S = 0.5
"""Time between two looks at what has been played, seconds."""

Result = TypeVar("Result")


class Show(Protocol):
    """Takes the number of finished sessions, and of those that wait for a slow expert."""

    def __call__(self, done: int, asking: int = 0, /) -> None: ...


class Bar(Protocol):
    """Shows the progress of a call."""

    def __call__(self, title: str, total: int, /) -> AbstractContextManager[Show]: ...


def no_bar(title: str, total: int, /) -> AbstractContextManager[Show]:
    """Show no progress."""
    del title, total
    return nullcontext(_show_nothing)


def _show_nothing(done: int, asking: int = 0, /) -> None:
    del done, asking


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
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin to start the actors; call `wait_until_ready` before any other method.

        Args:
            model: Hugging Face folder, readable on every node.
            logs: folder for the engines' logs.
            roll_call: of the run's folder, into which the actors write receipts; None if they only play.
            places: where each actor runs; None: wherever Ray finds room.
            take_turn: called before the engines compute, who then have the GPUs.
            say: called with a line about every actor that is replaced, from a thread of the pool's.
        """
        self._settings = settings
        self._bar = bar
        self._environment = envs.build(settings.env, seed=settings.seed)
        self._take_turn = take_turn
        self._places = places
        self._kind = ray.remote(num_cpus=1, num_gpus=settings.gpu_share * settings.rollout.tensor_parallel)(
            RolloutActor
        )
        self._model, self._logs = model.absolute(), logs.absolute()
        self._start = secrets.token_hex(4)
        self._roll_call = roll_call
        self._connect: Callable[[list[ActorHandle]], None] | None = None
        self._connected: list[ActorHandle] = []
        self._files = LaneFiles()
        self._played = Background()
        self._fleet = Fleet(
            self._hire,
            actors=settings.rollout.actors,
            lanes=_lanes(settings),
            lockstep=settings.rollout.deterministic,
            brings=settings.rollout.transport != "nccl",
            say=say,
        )
        self._starting = self._played.begin(self._fleet.start())

    def _hire(self, index: int, hired: int) -> Worker:
        """Create the process of an actor, in the place of the one before."""
        log = self._logs / f"engine-{index}.log"
        one = ActorSettings(
            common=self._settings, index=index, hired=hired, start=self._start, model=self._model, log=log
        )
        place = "DEFAULT" if self._places is None else self._places[index]
        handle = cast("ActorHandle", self._kind.options(scheduling_strategy=place).remote(one))
        return RayWorker(handle, one, roll_call=None if hired else self._roll_call)

    @property
    def _workers(self) -> list[RayWorker]:
        return [cast("RayWorker", worker) for worker in self._fleet.workers]

    @property
    def handles(self) -> "list[ActorHandle]":
        """Of the actors' present processes."""
        return [worker.handle for worker in self._workers]

    def wait_until_ready(self) -> None:
        """Wait until every engine serves the model; if one does not start, shut all of them down.

        Raises:
            ConfigError: model, environment or embedder do not fit the settings; or an actor's node does not share the
                run's folder.
            EngineError: an engine does not start.
            DeadlineError: an engine takes longer than `START_S`.
        """
        try:
            self._played.wait(self._starting)
        except BaseException:
            self.shutdown()
            raise
        look_rarely()

    def connect(self, connect: "Callable[[list[ActorHandle]], None]") -> None:
        """Open the nccl transport from the learners to the actors, and again whenever an actor is replaced.

        Call it again when the learners were replaced.

        Args:
            connect: opens it to these actors.
        """
        self._connect, self._connected = connect, []
        self._reconnect()

    def _reconnect(self) -> None:
        """Open the nccl transport if an actor was replaced since it was opened."""
        self._run(self._fleet.until_started())
        if self._connect is not None and self._connected != self.handles:
            self._connect(self.handles)
            self._connected = self.handles

    def reopen(self, settings: RolloutSettings, *, bar: Bar = no_bar) -> None:
        """Open lanes with other settings on the running engines, each at the start of its first stream.

        Args:
            settings: equal to the previous ones in `rollout`, `seats`, `device`, `exact` and `agent.session_tokens`,
                and in which asks carry words.

        Raises:
            ConfigError: environment or embedder do not fit the settings.
        """
        self._settings, self._bar = settings, bar
        self._environment = envs.build(settings.env, seed=settings.seed)
        self._reopen()

    def _reopen(self) -> None:
        for worker in self._workers:
            worker.common = self._settings
        self._run(self._fleet.reopen(_lanes(self._settings), lockstep=self._settings.rollout.deterministic))
        self._files = LaneFiles()

    def spread(self, shares: AskingShares) -> None:
        """Move every lane to the place where it begins in its first stream; call it before any session is collected.

        Args:
            shares: of the starting policy's sessions that asked; memories are grown by them.

        Raises:
            EngineError: actors die again and again.
        """
        self._take_turn()
        self._run(self._fleet.spread(shares))

    def collect(self) -> list[Session]:
        """The sessions of the next batch: `settings.sessions` of every lane.

        Returns:
            Lane by lane, each lane's sessions in stream order.

        Raises:
            EngineError: actors die or hang again and again; the message has the commonest reason.
            ConfigError: an actor can't write down what it buys.
        """
        self._take_turn()
        fleet = self._fleet
        if not fleet.lanes.is_open:
            found = read_journals(RunFolder(self._settings.run_folder).journals())
            fleet.counts["unsure_asks"] += len(found.unsure)
            self._run(_done(lambda: fleet.open(found.receipts)))
        self._run(_done(fleet.want))
        with self._bar("collect", self._settings.sessions * len(fleet.lanes)) as show:
            self._run(fleet.until_complete(), meanwhile=lambda: show(fleet.lanes.progress, fleet.asking))
            while fleet.needs_weights and fleet.weights is not None:
                self._load_together(fleet.weights)
                self._run(fleet.until_complete(), meanwhile=lambda: show(fleet.lanes.progress, fleet.asking))
        return self._run(fleet.collect())

    def counts(self) -> Mapping[str, int]:
        """What happened to the actors since the last call, by the names in `Fleet.counts`."""
        found = dict(self._fleet.counts)
        self._fleet.counts.clear()
        return found

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
            EngineError: as `collect`.
        """
        self._take_turn()
        parts = PlayedParts(None) if parts is None else parts
        chosen = plays(self._environment, split=split, sessions=sessions)
        before = parts.sessions
        shares = balanced(_left(chosen, parts), shares=self._settings.rollout.actors)
        errand = Errand(plays=(), split=split, greedy=greedy, keeps=parts.keeps, guide=guide)
        evaluation = self._fleet.evaluate(lambda index: _left(shares[index], parts), errand, take=parts.add)
        with self._bar(f"evaluate {split}", sum(play.sessions for play in chosen)) as show:
            self._run(evaluation, meanwhile=lambda: show(before + self._fleet.evaluated, self._fleet.asking))
        return [session for play in chosen for session in parts.streams[play.index].sessions]

    def load(self, weights: WeightsRef) -> None:
        """Serve a version on every engine and check it there.

        Raises:
            SyncError: an engine refused a bucket, or its logprobs are not those of the version; or the transfer failed
                while engines were loading, and these are held.
            EngineError: as `collect`; with a transfer, also if an actor died.
            DeadlineError: with a transfer, an actor took longer than `cluster.deadline_s`.
        """
        self._take_turn()
        if weights.transfer is None:
            self._run(self._fleet.load(weights))
        else:
            self._load_together(weights)

    def _load_together(self, weights: WeightsRef) -> None:
        """Load a version that the learner sends to all engines at once (nccl)."""
        assert weights.transfer is not None
        self._reconnect()
        announced = replace(weights, transfer=None)
        try:
            self._wait("prepare", [handle.prepare.remote(announced) for handle in self.handles])
            weights.transfer()
            self._wait("serve", [handle.serve.remote(announced) for handle in self.handles])
        except AgileError as error:
            self._give_up(error)
            raise
        self._run(_done(lambda: self._fleet.served(weights)))

    def _give_up(self, error: AgileError) -> None:
        """End a transfer that failed: engines whose model is untouched serve the old version again.

        Raises:
            SyncError: an engine is held; the message names it. Not if a rank was lost: fresh ones send a whole version.
        """
        calls = [handle.give_up.remote(str(error)) for handle in self.handles]
        try:
            held = self._wait("give_up", calls, deadline_s=STOP_S)
        except AgileError:  # an actor that is dead or late: the first error says more
            return
        reasons = [f"actor {index}: {reason}" for index, reason in enumerate(held) if reason is not None]
        if reasons and not isinstance(error, RankLostError):
            raise SyncError(f"rollout.load: {'; '.join(reasons)}") from error

    def sleep(self) -> None:
        """Leave the GPUs: weights go to main memory, the key-value cache is dropped, requests are kept.

        An actor whose engine does not leave is killed, and replaced after `wake`, as those are that are lost meanwhile.

        Raises:
            EngineError: actors die again and again.
            DeadlineError: an engine does not leave, and its actor can't be killed.
        """
        self._run(self._fleet.sleep())

    def wake(self) -> None:
        """Come back to the GPUs, with the weights that were there.

        Raises:
            EngineError, DeadlineError: as `sleep`.
        """
        self._run(self._fleet.wake())

    def save(self, folder: Path, *, earlier: Path | None) -> None:
        """Write all lanes into a checkpoint, as they were at the end of the batch that was collected last.

        Args:
            folder: an existing, empty folder.
            earlier: such a folder of the run's latest checkpoint; what has not changed since is linked to it.

        Raises:
            ConfigError: the folder can't be written.
        """
        self._run(_done(lambda: self._files.save(self._fleet.lanes, folder, earlier=earlier)))

    def restore(self, folder: Path) -> None:
        """Put every lane back to its position in a checkpoint, of which this is the folder that `save` filled.

        What the lanes have bought after it is read from the run's books when they play again.

        Raises:
            ConfigError: the checkpoint has another number of lanes.
        """
        if self._fleet.lanes.is_open:
            self._reopen()
        self._run(_done(lambda: self._files.restore(self._fleet.lanes, folder)))

    def shutdown(self) -> None:
        """End engines and actors. It raises nothing, since it also runs after a failure; a second call does nothing.

        An actor whose engine is still starting can't answer, and is killed at once.
        """
        if self._played.is_closed:
            return
        self._played.close(self._fleet.close())
        self._end_workers()

    def _end_workers(self) -> None:
        calls: list[ObjectRef[None]] = [
            worker.handle.shutdown.remote() for worker in self._workers if worker.is_started
        ]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=STOP_S)
        for handle in self.handles:
            ray.kill(handle)

    def _run(self, work: Coroutine[None, None, Result], *, meanwhile: Callable[[], None] = lambda: None) -> Result:
        return self._played.wait(self._played.begin(work), meanwhile=meanwhile)

    def _wait(
        self, call: str, answers: "Sequence[ObjectRef[Result]]", *, deadline_s: float | None = None
    ) -> list[Result]:
        limit = self._settings.deadline_s if deadline_s is None else deadline_s
        return wait(call, answers, deadline_s=limit, meanwhile=None)


class Background:
    """An event loop in a thread of its own, on which the fleet lives."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()
        self.is_closed = False

    def begin(self, work: Coroutine[None, None, Result]) -> "concurrent.futures.Future[Result]":
        """Run a coroutine; `wait` waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(
        self, future: "concurrent.futures.Future[Result]", *, meanwhile: Callable[[], None] = lambda: None
    ) -> Result:
        """Wait for what `begin` returned; an exception that comes meanwhile, such as an interrupt, cancels it.

        Args:
            meanwhile: is called about every `SHOW_S` seconds.
        """
        try:
            while True:
                done, _ = concurrent.futures.wait([future], timeout=SHOW_S)
                meanwhile()
                if done:
                    return future.result(timeout=0)
        finally:
            future.cancel()

    def close(self, last: Coroutine[None, None, None]) -> None:
        """Run a last coroutine and end the thread; what still runs is cancelled."""
        self.is_closed = True
        concurrent.futures.wait([self.begin(last)], timeout=STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)


def _lanes(settings: RolloutSettings) -> Lanes:
    return Lanes(
        total=settings.lanes,
        sessions=settings.sessions,
        max_age=settings.max_age,
        batches=settings.iterations,
        actors=settings.rollout.actors,
    )


async def _done(call: Callable[[], Result]) -> Result:
    """Call something on the event loop."""
    return call()


def _left(chosen: Sequence[Play], parts: PlayedParts) -> list[Play]:
    """What is left to play of streams, of which parts may be played."""
    rests = (_rest(play, parts.streams.get(play.index)) for play in chosen)
    return [play for play in rests if play.left]


def _rest(play: Play, part: Part | None) -> Play:
    """What is left to play of a stream, of which a part may be played."""
    if part is None:
        return play
    return replace(play, begun=part.state) if part.state is not None else replace(play, begun=None, sessions=0)
