"""How data are divided into splits, which stay apart, and where the rounds of training begin."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from agile_ray.errors import ConfigError
from agile_ray.seeds import derive

TRAINING = ("train", "imitation")
"""Splits that go on beyond their last stream, in further rounds."""
GOLDEN_RATIO = 0.6180339887498949  # the first n multiples modulo 1 are spread evenly, for every n


def check_apart(splits: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Refuse splits that share a category.

    Args:
        splits: the name of each, with its categories.

    Raises:
        ConfigError: names the two keys and the categories.
    """
    for (first, names), (second, others) in combinations(splits, 2):
        shared = sorted({*names} & {*others})
        if shared:
            raise ConfigError(
                f"env.categories.{first}, env.categories.{second}: a category is in one split only, found "
                f"{', '.join(shared)} in both; set both keys, since a split that is left out has the environment's own"
            )


def round_offset(number: int, *, length: int) -> int:
    """The question at which a stream begins in a round of training.

    Args:
        number: of the round, from 0.
        length: of the stream, questions.
    """
    return int(GOLDEN_RATIO * number % 1.0 * length)


def share(id: str, *, of: int) -> int:
    """The part of a data set that a row belongs to, from 0 to `of` - 1: by its id alone, so the same in every file."""
    return derive(0, "share", id) % of
