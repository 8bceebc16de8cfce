"""The driver's side of all rollout actors: the only file of this package that waits for Ray.

call        waits for                         bounded by
start       every engine                      START_S
collect     every lane of every actor         cluster.deadline_s
evaluate    every stream that was handed out  cluster.deadline_s
load        every engine's check              cluster.deadline_s
shutdown    nothing longer than               STOP_S
"""

import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol, TypeVar, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

import envs
from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, ConfigError, DeadlineError, EngineError
from agile_ray.evaluation.plays import plays
from agile_ray.record.folder import RunFolder
from agile_ray.types import Session
from agile_ray.weights import WeightsRef
from rollout.actor import Post, RolloutActor
from rollout.player import Place

START_S = 900.0
"""A large model is read from a slow disk in less."""
STOP_S = 15.0
POLL_S = 0.5
"""How often progress is asked for."""

Result = TypeVar("Result")


class Bar(Protocol):
    """Shows how far a call is: yields a function that is told the number of finished sessions."""

    def __call__(self, title: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]: ...


def no_bar(title: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing."""
    del title, total
    return nullcontext(lambda _: None)


class RolloutPool:
    """Implements `agile_ray.protocols.Rollouts` on Ray actors."""

    def __init__(self, config: RunConfig, *, model: Path, logs: Path, bar: Bar = no_bar) -> None:
        """Begin to start the actors; call `wait_until_ready` before anything else.

        Args:
            model: Hugging Face folder, readable on every node.
            logs: folder for what vLLM has to say.
        """
        self._config = config
        self._bar = bar
        self._environment = envs.build(config.env, seed=config.seed)
        gpus = config.rollout.tensor_parallel if config.cluster.device == "gpu" else 0
        kind = ray.remote(num_cpus=1, num_gpus=gpus)(RolloutActor)
        model, logs = model.absolute(), logs.absolute()
        posts = (
            Post(
                config=config,
                index=index,
                model=model,
                log=logs / f"engine-{index}.log",
                asked=_asked(config, index),
            )
            for index in range(config.rollout.actors)
        )
        self.handles: list[ActorHandle] = [cast("ActorHandle", kind.remote(post)) for post in posts]
        self._starts = [handle.start.remote() for handle in self.handles]

    def wait_until_ready(self) -> None:
        """Wait until every engine serves the model; if one does not, end them all.

        Raises:
            ConfigError: an actor can't be what the config says.
            EngineError: an engine does not start, or the cluster has no room for it.
        """
        try:
            self._wait("start", self._starts, limit_s=START_S)
        except AgileError:
            self.shutdown()
            raise

    def reopen(self, config: RunConfig, *, bar: Bar = no_bar) -> None:
        """Play another run on the engines that are up, from the start of its first streams.

        Args:
            config: as the one before in all that the engines were started with.

        Raises:
            ConfigError: environment or embedder are not as the config says.
        """
        self._config, self._bar = config, bar
        self._environment = envs.build(config.env, seed=config.seed)
        calls = [handle.reopen.remote(config, _asked(config, index)) for index, handle in enumerate(self.handles)]
        self._wait("reopen", calls)

    def collect(self) -> list[Session]:
        """Play `loop.sessions_per_lane` sessions on every lane; actor after actor, lane after lane, in stream order.

        Raises:
            EngineError: an actor died or lost its engine; names it.
            DeadlineError: longer than `cluster.deadline_s`.
        """
        sessions, rollout = self._config.loop.sessions_per_lane, self._config.rollout
        references = [handle.collect.remote(sessions) for handle in self.handles]
        return self._sessions("collect", references, total=sessions * rollout.lanes * rollout.actors)

    def evaluate(self, *, split: str, sessions: int | None, greedy: bool) -> list[Session]:
        """Play what `agile_ray.evaluation.plays` names, actor a playing streams a, a + actors, ...; in stream order.

        Raises:
            ConfigError: the split is unknown, or never ends and `sessions` is None.
            EngineError: an actor died or lost its engine; names it.
            DeadlineError: longer than `cluster.deadline_s`.
        """
        chosen = plays(self._environment, split=split, sessions=sessions)
        actors = len(self.handles)
        shares = [chosen[first::actors] for first in range(actors)]
        calls = zip(self.handles, shares, strict=True)
        references = [handle.evaluate.remote(share, split, greedy) for handle, share in calls]
        total = sum(play.sessions for play in chosen)
        played = self._sessions(f"evaluate {split}", references, total=total)
        rest = iter(played)
        by_play = {play.index: [next(rest) for _ in range(play.sessions)] for share in shares for play in share}
        return [session for play in chosen for session in by_play[play.index]]

    def load(self, weights: WeightsRef) -> None:
        """Serve these weights on every engine, and check that it is so.

        Raises:
            SyncError: an engine's logprobs say that it does not.
        """
        self._wait("load", [handle.load.remote(weights) for handle in self.handles])

    def state(self) -> bytes:
        """Lanes and memories, for a checkpoint; only between two calls."""
        shares: list[list[Place]] = self._wait("state", [handle.places.remote() for handle in self.handles])
        return pickle.dumps([place for share in shares for place in share])

    def restore(self, state: bytes) -> None:
        """Put every lane back where it stood.

        Raises:
            ConfigError: the checkpoint has another number of lanes, or other streams.
        """
        places: list[Place] = pickle.loads(state)  # noqa: S301  our own checkpoint
        lanes = self._config.rollout.lanes
        expected = lanes * len(self.handles)
        if [place.number for place in places] != list(range(expected)):
            raise ConfigError(
                f"resume: the checkpoint has {len(places)} lanes, rollout.actors x rollout.lanes is {expected}; set "
                "them as they were"
            )
        shares = [places[first : first + lanes] for first in range(0, expected, lanes)]
        calls = [handle.restore.remote(share) for handle, share in zip(self.handles, shares, strict=True)]
        self._wait("restore", calls)

    def shutdown(self) -> None:
        """End engines and actors. Raises nothing: it also runs after a failure."""
        calls = [handle.shutdown.remote() for handle in self.handles]
        with suppress(RayError):
            ray.get(calls, timeout=STOP_S)
        for handle in self.handles:
            ray.kill(handle)
        self.handles = []

    def _sessions(self, name: str, references: Sequence["ray.ObjectRef[bytes]"], *, total: int) -> list[Session]:
        with self._bar(name, total) as show:
            parts = self._wait(name, references, show=show)
        return [session for part in parts for session in pickle.loads(part)]  # noqa: S301  from our own actors

    def _wait(
        self,
        name: str,
        references: Sequence["ray.ObjectRef[Result]"],
        *,
        limit_s: float | None = None,
        show: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """Wait for one call on every actor; reference k belongs to actor k.

        Raises:
            AgileError: what an actor raised on purpose, as it raised it.
            EngineError: an actor died, or raised something else.
            DeadlineError: names the call.
        """
        limit, rule = (self._config.cluster.deadline_s, " (cluster.deadline_s)") if limit_s is None else (limit_s, "")
        end = time.monotonic() + limit
        results: dict[int, Result] = {}
        pending = {reference: index for index, reference in enumerate(references)}
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_S)
            for reference in ready:
                index = pending.pop(reference)
                results[index] = _result(name, index, reference)
            if pending and time.monotonic() > end:
                late = ", ".join(str(index) for index in pending.values())
                raise DeadlineError(f"rollout.{name}: actors {late} took longer than {limit:g} s{rule}")
            if pending and show is not None:
                self._tell(show)
        return [results[index] for index in range(len(references))]

    def _tell(self, show: Callable[[int], None]) -> None:
        with suppress(RayError):  # a dead actor is reported by the call that waits for it
            show(sum(ray.get([handle.played.remote() for handle in self.handles], timeout=STOP_S)))


def _asked(config: RunConfig, index: int) -> Path:
    return RunFolder(config.run_folder.absolute()).journal(index)


def _result(name: str, index: int, reference: "ray.ObjectRef[Result]") -> Result:
    try:
        return ray.get(reference, timeout=STOP_S)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, AgileError):
            raise cause from None
        message = " ".join(str(cause).split())[-500:]
        raise EngineError(f"rollout.{name}: actor {index} failed: {type(cause).__name__}: {message}") from error
    except (RayActorError, GetTimeoutError) as error:
        message = " ".join(str(error).split())[:500]
        raise EngineError(f"rollout.{name}: actor {index} died: {message}") from error
