import pytest

from agile_ray.agent.lane import LaneState
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import Play, balanced, plays
from tests.fakes.worlds import SmallStream, question


class Lengths:
    """An environment whose streams have these lengths; an endless one repeats the last length."""

    def __init__(self, *lengths, endless=False):
        self.lengths, self.endless = lengths, endless

    def streams(self, split):
        return None if self.endless else len(self.lengths)

    def stream(self, *, split, index):
        return SmallStream(*[question(i, "?") for i in range(self.lengths[min(index, len(self.lengths) - 1)])])


def chosen(environment, sessions):
    return [(play.index, play.sessions) for play in plays(environment, split="test", sessions=sessions)]


@pytest.mark.parametrize(
    ("lengths", "sessions", "expected"),
    [
        ((3, 2), None, [(0, 3), (1, 2)]),
        ((3, 2), 4, [(0, 2), (1, 2)]),
        ((3, 2), 3, [(0, 2), (1, 1)]),
        ((3, 2), 99, [(0, 3), (1, 2)]),
        ((500, 4, 500), 104, [(0, 50), (1, 4), (2, 50)]),
        ((500, 4, 500), 105, [(0, 51), (1, 4), (2, 50)]),
        ((7, 7, 7), 2, [(0, 1), (1, 1)]),
        ((0, 3), 2, [(1, 2)]),
    ],
)
def test_a_split_that_ends_is_shared_among_all_its_streams(lengths, sessions, expected):
    assert chosen(Lengths(*lengths), sessions) == expected


@pytest.mark.parametrize("lengths", [(9,), (1, 1, 1), (2, 9, 4, 4), (6, 1, 6, 2, 30)])
def test_shares_are_equal_as_far_as_lengths_allow(lengths):
    for sessions in range(1, sum(lengths) + 3):
        shares = dict(chosen(Lengths(*lengths), sessions))
        assert sum(shares.values()) == min(sessions, sum(lengths))
        most = max(shares.values())
        for index, length in enumerate(lengths):
            assert shares.get(index, 0) == length or most - 1 <= shares.get(index, 0) <= length


@pytest.mark.parametrize(
    ("lengths", "sessions", "expected"),
    [((2,), 5, [(0, 2), (1, 2), (2, 1)]), ((3, 2), 5, [(0, 3), (1, 2)]), ((4,), 4, [(0, 4)])],
)
def test_streams_that_never_end_are_played_whole_and_only_the_last_is_cut(lengths, sessions, expected):
    assert chosen(Lengths(*lengths, endless=True), sessions) == expected


def test_a_split_without_a_last_stream_needs_a_number_of_sessions():
    with pytest.raises(ConfigError, match="never end"):
        plays(Lengths(2, endless=True), split="test", sessions=None)


def whole(*lengths):
    return [Play(index=index, sessions=length) for index, length in enumerate(lengths)]


def indices(shares):
    return [[play.index for play in share] for share in shares]


@pytest.mark.parametrize(("streams", "shares"), [(7, 3), (4, 4), (2, 5), (0, 2)])
def test_streams_of_equal_length_are_dealt_in_turn(streams, shares):
    found = indices(balanced(whole(*[6] * streams), shares=shares))
    assert found == [list(range(first, streams, shares)) for first in range(shares)]


def test_the_longest_stream_begins_first_and_alone():
    assert indices(balanced(whole(1, 2, 11, 3, 4), shares=2)) == [[2], [4, 3, 1, 0]]


def test_a_stream_that_has_begun_counts_by_what_is_left():
    begun = LaneState(stream="s", position=8, memory=None)
    first = Play(index=0, sessions=10, begun=begun)
    assert first.left == 2
    assert indices(balanced([first, *whole(0, 3, 3)[1:]], shares=2)) == [[1, 0], [2]]
