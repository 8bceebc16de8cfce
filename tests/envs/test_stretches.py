"""Episodes that are cut from longer streams."""

import pytest

import envs
from agile_ray.agent.environment import Submission
from agile_ray.agent.functions import Function
from agile_ray.config import Env, Imitation, RunConfig
from agile_ray.evaluation.plays import plays
from agile_ray.scripted import demonstrations
from agile_ray.scripted.played import FIRST_STREAM
from agile_ray.scripted.references import Habits
from envs.recurring import Recurring
from envs.shop import Shop
from envs.wrappers.stretches import Stretches
from launch.commands.evaluate import play
from launch.run import final_comparison
from tests.fakes.streams import script_rules
from tests.fakes.worlds import SmallStream, question


class Files:
    """A split has one stream per length; in training, further rounds begin elsewhere in the same questions."""

    search_function = Function.SEARCH_PRODUCT

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def streams(self, split: str) -> int:
        return len(self.lengths)

    def stream(self, *, split: str, index: int) -> SmallStream:
        around, place = divmod(index, len(self.lengths))
        if around and split != "train":
            raise IndexError(index)
        asked = [question(number, f"question {number}") for number in range(self.lengths[place])]
        stream = SmallStream(*asked[around:], *asked[:around])
        stream.id = f"files/{split}/{place}/{index}"
        return stream

    def texts(self) -> tuple[str, ...]:
        return ("yes",)


def episodes(world: Stretches, split: str, count: int) -> dict[str, list[int]]:
    """Numbers of the questions of the first episodes, by id."""
    streams = [world.stream(split=split, index=index) for index in range(count)]
    found = {stream.id: [int(question.id[1:]) for question in stream.questions] for stream in streams}
    assert len(found) == count
    return found


def test_an_evaluation_plays_whole_streams_or_as_much_of_each_as_it_is_told():
    world = Stretches(Files(7, 3, 8), sessions=4)
    assert world.streams("test") == 3
    assert episodes(world, "test", 3) == {
        "files/test/0/0": list(range(7)),
        "files/test/1/1": [0, 1, 2],
        "files/test/2/2": list(range(8)),
    }
    with pytest.raises(IndexError):
        world.stream(split="test", index=3)
    assert [one.sessions for one in plays(world, split="test", sessions=None)] == [7, 3, 8]
    assert [one.sessions for one in plays(world, split="test", sessions=13)] == [5, 3, 5]


def test_training_episodes_of_long_streams_all_have_the_same_length_in_every_round():
    world = Stretches(Files(7, 3, 8), sessions=4)
    assert world.streams("train") == 4
    rounds = episodes(world, "train", 8)
    assert list(rounds.items())[:4] == [
        ("files/train/0/0/0-3", [0, 1, 2, 3]),
        ("files/train/1/1", [0, 1, 2]),
        ("files/train/2/2/0-3", [0, 1, 2, 3]),
        ("files/train/2/2/4-7", [4, 5, 6, 7]),
    ]
    assert rounds["files/train/0/3/0-3"] == [1, 2, 3, 4]  # what the first round leaves out has its turn later
    assert rounds["files/train/2/5/4-7"] == [5, 6, 7, 0]


@pytest.mark.parametrize("sessions", [8, 9, 1000])
def test_streams_that_are_short_enough_stay_as_they_are(sessions: int):
    files = Files(7, 3, 8)
    world = Stretches(files, sessions=sessions)
    for split in ("train", "validation"):
        whole = [files.stream(split=split, index=index) for index in range(3)]
        assert world.streams(split) == 3
        assert episodes(world, split, 3) == {one.id: list(range(len(one.questions))) for one in whole}


@pytest.mark.parametrize(("name", "whole"), [("shop", Shop(seed=3)), ("recurring", Recurring(seed=3))])
def test_drawn_streams_are_cut_to_their_first_questions(name: str, whole: Shop | Recurring):
    world = envs.build(Env(name=name, stream_sessions=10), seed=3)
    assert world.streams("train") is None
    for index in (0, 1, FIRST_STREAM):
        stream, original = world.stream(split="train", index=index), whole.stream(split="train", index=index)
        assert stream.id == f"{original.id}/0-9"
        assert tuple(stream.questions) == original.questions[:10]
    assert (world.texts(), world.search_function) == (whole.texts(), whole.search_function)
    assert envs.build(Env(name=name), seed=3).stream(split="test", index=0).id == whole.stream(split="test", index=0).id


def test_tool_and_judge_are_those_of_the_whole_stream():
    stream = envs.build(Env(name="shop", stream_sessions=30), seed=0).stream(split="test", index=0)
    searched = next(question for question in stream.questions if question.query)
    found = stream.search(searched.query)
    assert found.rows
    assert stream.judge(searched, Submission(text=found.text, rows=found.rows))
    assert not stream.judge(searched, Submission(text="no such row", rows=None))


def config(*, sessions: int | None) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"name": "r"},
            "model": {"path": "m"},
            "env": {"name": "recurring", "stream_sessions": sessions},
            "evaluate": {"sessions": 48, "validation_sessions": 24},
        }
    )


@pytest.mark.parametrize(("sessions", "length"), [(None, 24), (6, 6)])
def test_evaluation_references_teacher_and_credit_end_where_the_episode_ends(sessions: int | None, length: int):
    settings = config(sessions=sessions)
    world = envs.build(settings.env, seed=0)
    played = play(settings, world, "oracle", Habits(), split="test")
    assert len(played) == 48
    assert {session.stream_length for session in played} == {length}
    for session in played:  # the oracle asks if the item comes again, and is right about it
        questions = next(
            world.stream(split="test", index=index).questions
            for index in range(48)
            if world.stream(split="test", index=index).id == session.stream
        )
        item = questions[session.position].item
        left = sum(question.item == item for question in questions[session.position :])
        known = any(question.item == item for question in questions[: session.position]) and session.hindsight.known
        assert bool(session.asks) == (not known and 1000 * left * 0.5 > settings.env.price)
        assert session.hindsight.same_item == tuple(
            position for position, question in enumerate(questions) if question.item == item
        )
    rules = script_rules(world, agent=settings.agent, memory=settings.memory)
    for sessions_of in final_comparison.references(settings, world, rules, trained=played).values():
        assert {session.stream_length for session in sessions_of} == {length}
    learned = demonstrations.lessons(
        Imitation(sessions=64, batch=64, warm_share=0.5), world, rules, seed=0, progress=lambda _: None
    )
    positions = {one.segment.position for batch in learned.batches for one in batch}
    assert max(positions) == min(length, 2) - 1  # 64 / 32 of each


@pytest.mark.parametrize("sessions", [0, 1, -3, 2.5])
def test_an_episode_in_which_nothing_can_be_remembered_is_refused(sessions: float):
    with pytest.raises(ValueError, match="stream_sessions"):
        Env.model_validate({"name": "shop", "stream_sessions": sessions})
