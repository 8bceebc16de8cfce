"""Names and amounts that the command line needs before a config is read, and so without pydantic."""

from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Part = Literal["imitation", "train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The splits, and what only imitation plays."""


def thousandths(amount: float) -> int:
    """Convert an amount of reward to whole thousandths, in which all money is counted.

    Raises:
        ValueError: it is not a whole number of thousandths.
    """
    rounded = round(1000 * amount)
    if abs(1000 * amount - rounded) > 1e-6:  # 0.3 and 0.15 have no exact float
        raise ValueError(f"must be a whole number of thousandths, found {amount:g}")
    return rounded
