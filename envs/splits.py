"""The rule that keeps training, validation and test apart."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from agile_ray.errors import ConfigError


def check_apart(categories: Mapping[str, Sequence[str]]) -> None:
    """Refuse splits that share a category.

    Args:
        categories: by split.

    Raises:
        ConfigError: names the two keys and the categories.
    """
    for first, second in combinations(categories, 2):
        shared = sorted({*categories[first]} & {*categories[second]})
        if shared:
            raise ConfigError(
                f"env.categories.{first}, env.categories.{second}: a category is in one split only, found "
                f"{', '.join(shared)} in both; set both keys, since a split that is left out has the environment's own"
            )
