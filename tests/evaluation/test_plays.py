import pytest

from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import plays
from tests.fakes.worlds import SmallStream, question


class Lengths:
    """An environment whose streams have these lengths; an endless one repeats the last length."""

    def __init__(self, *lengths, endless=False):
        self.lengths, self.endless = lengths, endless

    def streams(self, split):
        return None if self.endless else len(self.lengths)

    def stream(self, *, split, index):
        return SmallStream(*[question(i, "?") for i in range(self.lengths[min(index, len(self.lengths) - 1)])])


@pytest.mark.parametrize(
    ("environment", "sessions", "expected"),
    [
        (Lengths(3, 2), None, [(0, 3), (1, 2)]),
        (Lengths(3, 2), 4, [(0, 3), (1, 1)]),
        (Lengths(3, 2), 3, [(0, 3)]),
        (Lengths(3, 2), 99, [(0, 3), (1, 2)]),
        (Lengths(2, endless=True), 5, [(0, 2), (1, 2), (2, 1)]),
    ],
)
def test_plays_takes_whole_streams_and_cuts_only_the_last(environment, sessions, expected):
    chosen = plays(environment, split="test", sessions=sessions)
    assert [(play.index, play.sessions) for play in chosen] == expected


def test_a_split_without_a_last_stream_needs_a_number_of_sessions():
    with pytest.raises(ConfigError, match="never end"):
        plays(Lengths(2, endless=True), split="test", sessions=None)
