"""What a checkpoint holds of the lanes: it grows with what has changed, and restores them alone."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agile_ray.agent.lane import LaneState
from agile_ray.agent.memory import QA, Entry, HashedEmbedder, Memory, Moment
from agile_ray.errors import ConfigError
from rollout.fleet import messages
from rollout.fleet.lane_files import LaneFiles
from rollout.fleet.lanes import Lanes
from rollout.fleet.messages import LanePosition
from tests.fakes.stored import ONE

LANES = 3
EMBEDDER = HashedEmbedder()


def memory() -> Memory:
    return Memory(EMBEDDER, capacity=100_000)


class Played:
    """Lanes whose memories a test writes to; a batch is one session of each."""

    def __init__(self, total: int = LANES) -> None:
        self.lanes = lanes_of(total)
        self.memories = {number: memory() for number in range(total)}
        self.moments: dict[int, Moment | None] = dict.fromkeys(range(total))
        self.rounds = dict.fromkeys(range(total), 0)
        self.place = 0
        self.begin()

    def begin(self) -> None:
        self.lanes.open(0)
        self.epochs = {number: self.lanes.lease(number, 0).epoch for number in self.memories}

    def batch(self) -> None:
        """Every lane plays a session."""
        self.place += 1
        self.lanes.want()
        for number, one in self.memories.items():
            state = LaneState(
                stream=f"s{self.rounds[number]}", position=self.place, memory=one.change(self.moments[number])
            )
            after = LanePosition(number=number, round=self.rounds[number], state=state)
            played = messages.Played(number=number, epoch=self.epochs[number], session=ONE, position=after)
            assert self.lanes.take(played)
            self.moments[number] = one.moment
        self.lanes.collect()

    def save(self, files: LaneFiles, folder: Path, *, earlier: Path | None) -> None:
        """After another batch, while the lanes play the next one."""
        folder.mkdir(exist_ok=True, parents=True)
        self.batch()
        files.save(self.lanes, folder, earlier=earlier)

    def next_stream(self, number: int) -> None:
        self.rounds[number] += 1
        self.memories[number], self.moments[number] = memory(), None

    @classmethod
    def restored(cls, folder: Path) -> "tuple[Played, LaneFiles]":
        """Go on from a checkpoint."""
        one, files = cls(), LaneFiles()
        one.lanes = lanes_of(LANES)
        files.restore(one.lanes, folder)
        for position in one.lanes.changes(whole=True):
            number = position.number
            one.rounds[number], one.place = position.round, position.state.position
            one.memories[number] = Memory.restore(position.state.memory, EMBEDDER, capacity=100_000)
            one.moments[number] = one.memories[number].moment
        one.begin()
        return one, files


def lanes_of(total: int) -> Lanes:
    return Lanes(total=total, sessions=1, max_age=0, batches=10**6, actors=1)


def write(played: Played, lane: int, texts: list[str], *, writer: int) -> None:
    for text in texts:
        played.memories[lane].write(Entry(kind=QA, scope="p", key=text, text=f"{text} yes", writer=writer))


def contents(played: Played) -> list[tuple[object, ...]]:
    """All that a checkpoint must restore."""
    found: list[tuple[object, ...]] = []
    for number, one in played.memories.items():
        held = one.change()
        found.append((number, played.rounds[number], played.place, held.entries, held.vectors.tolist()))
    return found


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
        one = Played()
        files, latest, saves = LaneFiles(), None, 0
        for event, *details in [*events, ("save",)]:
            match event, *details:
                case "write", int(lane), int(writer), list(texts):
                    write(one, lane, texts, writer=writer)
                case "forget", int(lane), int(writer):
                    one.memories[lane].forget(writer)
                case "next stream", int(lane):
                    one.next_stream(lane)
                case "save", *_:
                    folder = Path(name) / str(saves)
                    one.save(files, folder, earlier=latest)
                    if latest is not None:
                        shutil.rmtree(latest)
                    latest, saves = folder, saves + 1
                    assert contents(Played.restored(latest)[0]) == contents(one)
                case "resume", *_ if latest is not None:
                    one, files = Played.restored(latest)
                case "lost", *_ if latest is not None and any(latest.iterdir()):  # and so written anew
                    next(latest.iterdir()).write_bytes(b"")
                    folder = Path(name) / f"{saves} after a loss"
                    one.save(files, folder, earlier=latest)
                    latest, saves = folder, saves + 1
                    assert contents(Played.restored(latest)[0]) == contents(one)
                case _:
                    pass


def grown(folder: Path, *, before: int, after: int) -> int:
    """Bytes that a checkpoint adds if each lane wrote `after` entries since one with `before` entries."""
    one = Played()
    files = LaneFiles()
    for lane in range(LANES):
        write(one, lane, [f"question {number:05d}" for number in range(before)], writer=1)
    one.save(files, folder / "first", earlier=None)
    for lane in range(LANES):
        write(one, lane, [f"question {number:05d}" for number in range(90_000, 90_000 + after)], writer=2)
    one.save(files, folder / "second", earlier=folder / "first")
    assert contents(Played.restored(folder / "second")[0]) == contents(one)
    return added(folder / "second", folder / "first")


def test_a_checkpoint_writes_as_much_as_memories_have_grown_however_large_they_are(tmp_path: Path) -> None:
    small, large = (grown(tmp_path / str(n), before=n, after=8) for n in (10, 800))
    assert small == large
    nothing = grown(tmp_path / "nothing", before=800, after=0)
    twice = grown(tmp_path / "twice", before=800, after=16)
    assert twice - nothing == pytest.approx(2 * (large - nothing), rel=0.1)
    assert nothing < LANES * 1_000


def test_files_are_left_out_once_every_lane_has_begun_another_stream(tmp_path: Path) -> None:
    one = Played()
    files, earlier, counts = LaneFiles(), None, []
    for lane in (None, None, 0, 1, 2, None):
        if lane is not None:
            one.next_stream(lane)
        for each in range(LANES):
            write(one, each, [f"{len(counts)}"], writer=len(counts))
        folder = tmp_path / str(len(counts))
        one.save(files, folder, earlier=earlier)
        counts.append(len(list(folder.iterdir())))
        earlier = folder
    assert counts == [1, 2, 3, 4, 3, 4]  # the fifth is the first one without the streams of the beginning


def test_a_save_that_fails_leaves_earlier_checkpoints_and_the_next_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Played()
    files, folders = LaneFiles(), [tmp_path / str(number) for number in range(3)]
    write(one, 0, ["a"], writer=0)
    one.save(files, folders[0], earlier=None)
    before = contents(one)
    write(one, 1, ["b"], writer=1)
    with monkeypatch.context() as patch:
        patch.setattr("pickle.dump", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(OSError, match="No space"):
            one.save(files, folders[1], earlier=folders[0])
    assert list(folders[1].iterdir()) == []
    assert contents(Played.restored(folders[0])[0]) == before
    one.save(files, folders[2], earlier=folders[0])
    assert contents(Played.restored(folders[2])[0]) == contents(one)


def test_what_the_earlier_checkpoint_does_not_have_is_written(tmp_path: Path) -> None:
    one = Played()
    files, folders = LaneFiles(), [tmp_path / str(number) for number in range(4)]
    for lane in range(LANES):
        write(one, lane, ["a"], writer=0)
    one.save(files, folders[0], earlier=None)
    write(one, 0, ["b"], writer=1)
    one.save(files, folders[1], earlier=folders[0])
    one.save(files, folders[2], earlier=folders[0])  # the second one was damaged, so the driver names the first
    assert contents(Played.restored(folders[2])[0]) == contents(one)
    one.save(files, folders[3], earlier=tmp_path / "gone")
    for folder in folders[2:]:
        assert added(folder, folders[0]) == sum(path.stat().st_size for path in folder.iterdir())
    assert contents(Played.restored(folders[3])[0]) == contents(one)


def test_lanes_of_another_number_are_refused(tmp_path: Path) -> None:
    Played().save(LaneFiles(), tmp_path / "one", earlier=None)
    with pytest.raises(ConfigError, match=r"the checkpoint has 3 lanes, loop\.lanes is 2; set it as it was"):
        LaneFiles().restore(lanes_of(2), tmp_path / "one")


def test_a_checkpoint_holds_the_lanes_at_the_start_of_the_slice_that_they_play(tmp_path: Path) -> None:
    one, files = Played(), LaneFiles()
    write(one, 1, ["before"], writer=0)
    one.batch()
    before = contents(one)
    write(one, 1, ["beyond"], writer=1)
    state = LaneState(stream="s0", position=2, memory=one.memories[1].change(one.moments[1]))
    after = LanePosition(number=1, round=0, state=state)
    assert one.lanes.take(messages.Played(number=1, epoch=one.epochs[1], session=ONE, position=after))
    (tmp_path / "one").mkdir()
    files.save(one.lanes, tmp_path / "one", earlier=None)
    assert contents(Played.restored(tmp_path / "one")[0]) == before
