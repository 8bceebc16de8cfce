"""Order of a frontier: where advice costs more, a policy should not ask more often."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Violations:
    """Pairs of prices at which the dearer one is asked at more often."""

    violated: int
    pairs: int  # of different prices

    def __add__(self, other: "Violations") -> "Violations":
        return Violations(violated=self.violated + other.violated, pairs=self.pairs + other.pairs)


def violations(prices: Sequence[float], shares: Sequence[float]) -> Violations:
    """Count the pairs out of order: the concordant pairs of Kendall's tau (1938) between price and asked share.

    Args:
        prices: of one ask.
        shares: of sessions that asked, at each price.
    """
    pairs = [pair for pair in combinations(zip(prices, shares, strict=True), 2) if pair[0][0] != pair[1][0]]
    violated = sum((first[0] - second[0]) * (first[1] - second[1]) > 0 for first, second in pairs)
    return Violations(violated=violated, pairs=len(pairs))
