"""What a checkpoint writes of an actor's lanes, and what it needs to restore them."""

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout.lane_files import LaneFiles

from agile_ray.agent.memory import QA, Entry
from agile_ray.config import Agent, Memory
from agile_ray.errors import ConfigError
from agile_ray.record.checkpoints import FolderCheckpoints
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import RunState, Session
from envs.recurring import LENGTH, Recurring
from rollout import pool as pool_module
from rollout.actor import RolloutActor
from rollout.engine_policy import Seating
from rollout.player import Player
from rollout.pool import RolloutPool
from tests.fakes.checkpoint import export
from tests.fakes.engine import FakeEngine
from tests.fakes.streams import script_rules

WORLD = Recurring(seed=0)
RULES = script_rules(WORLD, agent=Agent(), memory=Memory(capacity=100_000))
LANES = 3


class Scripted(Player):
    """Lanes that a script plays, which asks every question and so fills their memories."""

    def _seating(self, *, seats: int, greedy: bool) -> Seating:
        del seats, greedy
        policy = reference("always_ask", WORLD, Habits())
        return SimpleNamespace(seat=lambda _: policy, leave=lambda _: None)  # pyright: ignore[reportReturnType]


def player(*, lanes: int = LANES, first: int = 0) -> Player:
    return Scripted(
        engine=FakeEngine(),
        environment=WORLD,
        rules=RULES,
        numbers=range(first, first + lanes),
        total=2 * LANES,
        temperature=1.0,
        seed=None,
        bought=lambda _: None,
        deadline_s=60.0,
    )


def write(player: Player, lane: int, texts: list[str], *, writer: int) -> None:
    for text in texts:
        player._lanes[lane].memory.write(Entry(kind=QA, scope="p", key=text, text=f"{text} yes", writer=writer))


def contents(player: Player) -> list[tuple[object, ...]]:
    """All that a checkpoint must restore."""
    return [
        (
            one.number,
            one.round,
            one.state.stream,
            one.state.position,
            one.state.receipts,
            one.state.memory.entries,
            one.state.memory.vectors.tolist(),
        )
        for one in player.positions()
    ]


def restored(folder: Path, *, actor: int = 0) -> tuple[Player, LaneFiles]:
    fresh = player()
    files = LaneFiles(fresh, actor=actor)
    files.restore(folder)
    return fresh, files


def added(folder: Path, earlier: Path | None) -> int:
    """Bytes of the files that are not in an earlier checkpoint."""
    known = {path.stat().st_ino for path in earlier.iterdir()} if earlier else set()
    return sum(path.stat().st_size for path in folder.iterdir() if path.stat().st_ino not in known)


@contextmanager
def disk(*, links: bool) -> Iterator[None]:
    """A disk with hard links or without."""
    with pytest.MonkeyPatch.context() as patch:
        if not links:
            error = OSError(errno.EOPNOTSUPP, "Operation not supported")
            patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(error))
        yield


LANE = st.integers(0, LANES - 1)
EVENTS = st.one_of(
    st.tuples(st.just("write"), LANE, st.integers(0, 5), st.lists(st.sampled_from("abcdefgh"), max_size=4)),
    st.tuples(st.just("forget"), LANE, st.integers(0, 5)),
    st.tuples(st.just("next stream"), LANE),
    st.tuples(st.just("save")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("lost")),
)


@settings(max_examples=60, deadline=None)
@given(events=st.lists(EVENTS, max_size=30), links=st.booleans())
def test_the_latest_checkpoint_alone_restores_the_lanes_whatever_happened(
    events: list[tuple[object, ...]], links: bool
) -> None:
    with TemporaryDirectory() as name, disk(links=links):
        one = player()
        files, latest, saves = LaneFiles(one, actor=0), None, 0
        for event, *details in [*events, ("save",)]:
            match event, *details:
                case "write", int(lane), int(writer), list(texts):
                    write(one, lane, texts, writer=writer)
                case "forget", int(lane), int(writer):
                    one._lanes[lane].memory.forget(writer)
                case "next stream", int(lane):
                    one._rounds[lane] += 1
                    one._lanes[lane] = one._open(lane)
                case "save", *_:
                    folder = Path(name) / str(saves)
                    folder.mkdir()
                    sizes = files.save(folder, earlier=latest)
                    assert sizes == {path.name: path.stat().st_size for path in folder.iterdir()}
                    if latest is not None:
                        shutil.rmtree(latest)
                    latest, saves = folder, saves + 1
                    assert contents(restored(latest)[0]) == contents(one)
                case "resume", *_ if latest is not None:
                    one, files = restored(latest)
                case "lost", *_ if latest is not None and any(latest.iterdir()):  # and so written anew
                    next(latest.iterdir()).write_bytes(b"")
                    folder = Path(name) / f"{saves} after a loss"
                    folder.mkdir()
                    files.save(folder, earlier=latest)
                    latest, saves = folder, saves + 1
                    assert contents(restored(latest)[0]) == contents(one)
                case _:
                    pass


def grown(folder: Path, *, before: int, after: int) -> int:
    """Bytes that a checkpoint adds if each lane wrote `after` entries since one with `before` entries."""
    one = player()
    files = LaneFiles(one, actor=0)
    for lane in range(LANES):
        write(one, lane, [f"question {number:05d}" for number in range(before)], writer=1)
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
    files.save(folder / "first", earlier=None)
    for lane in range(LANES):
        write(one, lane, [f"question {number:05d}" for number in range(90_000, 90_000 + after)], writer=2)
    files.save(folder / "second", earlier=folder / "first")
    assert contents(restored(folder / "second")[0]) == contents(one)
    return added(folder / "second", folder / "first")


def test_a_checkpoint_writes_as_much_as_memories_have_grown_however_large_they_are(tmp_path: Path) -> None:
    small, large = (grown(tmp_path / str(n), before=n, after=8) for n in (10, 800))
    assert small == large
    nothing = grown(tmp_path / "nothing", before=800, after=0)
    twice = grown(tmp_path / "twice", before=800, after=16)
    assert twice - nothing == pytest.approx(2 * (large - nothing), rel=0.1)
    assert nothing < LANES * 1_000


def test_files_are_left_out_once_every_lane_has_begun_another_stream(tmp_path: Path) -> None:
    one = player()
    files, earlier, counts = LaneFiles(one, actor=0), None, []
    for lane in (None, None, 0, 1, 2, None):
        if lane is not None:
            one._rounds[lane] += 1
            one._lanes[lane] = one._open(lane)
        for each in range(LANES):
            write(one, each, [f"{len(counts)}"], writer=len(counts))
        folder = tmp_path / str(len(counts))
        folder.mkdir()
        files.save(folder, earlier=earlier)
        counts.append(len(list(folder.iterdir())))
        earlier = folder
    assert counts == [1, 2, 3, 4, 3, 4]  # the fifth is the first one without the streams of the beginning


def test_a_save_that_fails_leaves_earlier_checkpoints_and_the_next_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = player()
    files, folders = LaneFiles(one, actor=0), [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    write(one, 0, ["a"], writer=0)
    files.save(folders[0], earlier=None)
    before = contents(one)
    write(one, 1, ["b"], writer=1)
    with monkeypatch.context() as patch:
        patch.setattr("pickle.dump", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(OSError, match="No space"):
            files.save(folders[1], earlier=folders[0])
    assert list(folders[1].iterdir()) == []
    assert contents(restored(folders[0])[0]) == before
    files.save(folders[2], earlier=folders[0])
    assert contents(restored(folders[2])[0]) == contents(one)


def test_what_the_earlier_checkpoint_does_not_have_is_written(tmp_path: Path) -> None:
    one = player()
    files, folders = LaneFiles(one, actor=0), [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    for lane in range(LANES):
        write(one, lane, ["a"], writer=0)
    files.save(folders[0], earlier=None)
    write(one, 0, ["b"], writer=1)
    files.save(folders[1], earlier=folders[0])
    files.save(folders[2], earlier=folders[0])  # the second one was damaged, so the driver names the first
    files.save(folders[3], earlier=tmp_path / "gone")
    for folder in folders[2:]:
        assert added(folder, folders[0]) == sum(path.stat().st_size for path in folder.iterdir())
        assert contents(restored(folder)[0]) == contents(one)


def test_lanes_of_another_number_are_refused(tmp_path: Path) -> None:
    LaneFiles(player(), actor=0).save(tmp_path, earlier=None)
    with pytest.raises(
        ConfigError, match="has 3 lanes for an actor that plays 2; set rollout.actors and rollout.lanes"
    ):
        LaneFiles(player(lanes=2), actor=0).restore(tmp_path)


# With a whole run.


def pool_of(monkeypatch: pytest.MonkeyPatch, *actors: LaneFiles) -> RolloutPool:
    """A pool whose actors save and restore these lanes."""
    monkeypatch.setattr(pool_module, "wait", lambda _, answers, **__: answers)

    def handle(files: LaneFiles) -> SimpleNamespace:
        actor = RolloutActor(SimpleNamespace())  # pyright: ignore[reportArgumentType]
        actor._opened_files = files
        save = SimpleNamespace(remote=lambda folder, earlier: asyncio.run(actor.save(folder, earlier)))
        restore = SimpleNamespace(remote=lambda folder: asyncio.run(actor.restore(folder)))
        return SimpleNamespace(save=save, restore=restore)

    pool = RolloutPool.__new__(RolloutPool)
    pool.handles = [handle(files) for files in actors]  # pyright: ignore[reportAttributeAccessIssue]
    pool._settings = SimpleNamespace(deadline_s=1.0)  # pyright: ignore[reportAttributeAccessIssue]
    return pool


class NoLearners:
    """Learners without a state."""

    def export(self, folder: Path) -> None:
        export(folder)

    def save(self, folder: Path) -> None:
        (folder / "nothing").touch()

    def load(self, folder: Path) -> None:
        pass


class NoCredit:
    """Credit without a memory."""

    def state(self) -> bytes:
        return b"none"

    def restore(self, state: bytes) -> None:
        pass


def open_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[FolderCheckpoints, list[Player]]:
    players = [player(), player(first=LANES)]
    run = RunFolder(folder)
    checkpoints = FolderCheckpoints(
        run,
        keep=1,
        learners=NoLearners(),
        lanes=pool_of(monkeypatch, *(LaneFiles(one, actor=actor) for actor, one in enumerate(players))),
        credit=NoCredit(),
        resumed=lambda _: None,
        sft=run.sft,
    )
    return checkpoints, players


def outcome(session: Session) -> tuple[object, ...]:
    found = session.hindsight
    prompts = [turn.prompt_ids.tolist() for turn in session.turns]
    return session.stream, session.position, session.answer, session.reads, found.memory_sizes, prompts


@pytest.mark.parametrize(("stops", "links"), [({1, 4}, True), ({2, 3}, False)])
def test_a_run_that_is_resumed_plays_what_an_uninterrupted_one_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: set[int], links: bool
) -> None:
    def run(folder: Path, stops: set[int]) -> list[tuple[object, ...]]:
        played: list[tuple[object, ...]] = []
        checkpoints, players = open_run(monkeypatch, folder)
        for iteration in range(1, 7):
            for one in players:
                played += map(outcome, asyncio.run(one.collect(LENGTH // 2 - 1)))
            checkpoints.save(RunState(imitation_steps=0, iteration=iteration, version=iteration), score=None)
            if iteration in stops:
                for one in players:
                    asyncio.run(one.collect(3))  # is lost
                checkpoints, players = open_run(monkeypatch, folder)
                assert checkpoints.restore().iteration == iteration
        return played

    with disk(links=links):
        assert run(tmp_path / "resumed", stops) == run(tmp_path / "whole", set())
        assert len(list((tmp_path / "resumed" / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"cut")])
def test_a_checkpoint_without_one_of_its_lane_files_is_not_whole(tmp_path: Path, monkeypatch, damage) -> None:
    checkpoints, players = open_run(monkeypatch, tmp_path)
    states = [RunState(imitation_steps=0, iteration=iteration, version=iteration) for iteration in (1, 2)]
    for state in states:
        for one in players:
            asyncio.run(one.collect(2))
        checkpoints.save(state, score=None)
    path = next(RunFolder(tmp_path).checkpoint(states[1]).lanes.glob("1.*"))
    damage(path)
    with pytest.raises(ConfigError, match=f"needs a whole checkpoint, found none .*resume/lanes/{path.name}"):
        open_run(monkeypatch, tmp_path)[0].restore()


def test_an_actor_whose_files_the_driver_does_not_see_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(LaneFiles):
        def save(self, folder: Path, *, earlier: Path | None) -> dict[str, int]:
            del earlier
            other = tmp_path / "elsewhere"
            other.mkdir()
            return super().save(other, earlier=None)

    pool = pool_of(monkeypatch, LaneFiles(player(), actor=0), Elsewhere(player(first=LANES), actor=1))
    (tmp_path / "lanes").mkdir()
    with pytest.raises(ConfigError, match=r"must be one folder on every node, but rollout actor 1 wrote .* no file"):
        pool.save(tmp_path / "lanes", earlier=None)


def test_a_checkpoint_of_another_number_of_actors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = pool_of(monkeypatch, LaneFiles(player(), actor=0), LaneFiles(player(first=LANES), actor=1))
    two.save(tmp_path, earlier=None)
    two.restore(tmp_path)
    with pytest.raises(ConfigError, match=r"has lanes of 2 actors, rollout\.actors is 1; set"):
        pool_of(monkeypatch, LaneFiles(player(), actor=0)).restore(tmp_path)
