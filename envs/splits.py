"""The rule that keeps training, validation and test apart."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from agile_ray.errors import ConfigError


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
