"""Who computes what: a pure function from lengths to micro-batches of like length, dealt to ranks.

Example, 5 rows in 1 minibatch for 2 ranks:
    lengths 9 3 9 4 8  ->  rank 0: [9 9 8], rank 1: [4 3]
    processed 27 + 8 tokens, of which 33 are real: 6 % padding

Every rank gets the same number of micro-batches (empty ones fill up): each backward pass is a meeting of all
ranks under ZeRO 2 and 3, and a rank that misses one leaves the others waiting.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agile_ray.errors import ContractError

Int64 = NDArray[np.int64]

WASTE = 0.03
"""Share of processed tokens that may be padding."""
OVERHEAD = 48
"""What one more pass costs beside its tokens, in tokens (measured on one CPU core: 4 ms at 6k to 12k tokens/s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniBatch:
    """The rows of one optimizer step, as micro-batches of every rank."""

    ranks: tuple[tuple[Int64, ...], ...]  # [rank][micro-batch] -> row numbers; equally many for every rank
    tokens: int  # real tokens
    processed: int  # real tokens and padding

    @property
    def rows(self) -> Int64:
        """Every row number, in no particular order."""
        return np.concatenate([rows for rank in self.ranks for rows in rank])


def plan(lengths: Int64, *, seed: int, minibatches: int, ranks: int, micro_batch_tokens: int) -> tuple[MiniBatch, ...]:
    """Shuffle rows into minibatches and cut each into micro-batches.

    Args:
        lengths: int64 [B], tokens of each row.
        seed: sets which rows share a minibatch; the number of ranks does not.
        minibatches: optimizer steps to split the rows into; fewer if there are fewer rows.
        ranks: how many share each minibatch.
        micro_batch_tokens: most tokens of one pass, padding included.

    Raises:
        ContractError: a row is longer than `micro_batch_tokens`.
    """
    if len(lengths) and int(lengths.max()) > micro_batch_tokens:
        raise ContractError(
            f"plan: a row of {int(lengths.max())} tokens does not fit into learner.micro_batch_tokens "
            f"({micro_batch_tokens})"
        )
    order = np.random.default_rng(seed).permutation(len(lengths))
    parts = [part for part in np.array_split(order, minibatches) if len(part)]
    return tuple(_mini_batch(rows, lengths, ranks=ranks, limit=micro_batch_tokens) for rows in parts)


def padding(batches: Sequence[MiniBatch]) -> float:
    """Share of processed tokens that is padding."""
    processed = sum(batch.processed for batch in batches)
    return 1.0 - sum(batch.tokens for batch in batches) / processed if processed else 0.0


def _mini_batch(rows: Int64, lengths: Int64, *, ranks: int, limit: int) -> MiniBatch:
    rows = rows[np.lexsort((rows, -lengths[rows]))]  # longest first; row numbers break ties
    total = int(lengths[rows].sum())
    best: tuple[tuple[bool, float], MiniBatch] | None = None
    for cuts in _candidates(lengths[rows], total=total, ranks=ranks, limit=limit):
        chunks = [rows[start:end] for start, end in itertools.pairwise(cuts)]
        works = [int(lengths[chunk[0]]) * len(chunk) for chunk in chunks]
        dealt = _deal(works, ranks)
        slowest = max(sum(works[index] + OVERHEAD for index in hand if index is not None) for hand in dealt)
        waste = 1.0 - total / sum(works)
        rank = (waste > WASTE, waste if waste > WASTE else float(slowest))
        if best is None or rank < best[0]:
            hands = tuple(tuple(rows[:0] if index is None else chunks[index] for index in hand) for hand in dealt)
            best = rank, MiniBatch(ranks=hands, tokens=total, processed=sum(works))
    assert best is not None
    return best[1]


def _candidates(lengths: Int64, *, total: int, ranks: int, limit: int) -> Iterator[list[int]]:
    """Yield ways to cut: dearer passes make them fewer, a lower limit makes them more even."""
    longest = int(lengths[0])
    limits = {max(longest, min(limit, -(-total // (ranks * rounds)))) for rounds in range(1, 9)}
    for bound in sorted({*limits, limit}):
        for cost in (2 * OVERHEAD, OVERHEAD // 2, 4):
            yield _cut(lengths, limit=bound, cost=cost)


def _cut(lengths: Int64, *, limit: int, cost: int) -> list[int]:
    """Cut descending lengths into runs so that processed tokens plus `cost` per run are fewest.

    Returns:
        places of the cuts, 0 and len(lengths) included.
    """
    count = len(lengths)
    best = np.zeros(count + 1, dtype=np.int64)  # best[i]: cheapest way to run rows i and after
    ends = np.zeros(count + 1, dtype=np.int64)
    widths = lengths.tolist()
    steps = np.arange(1, count + 1, dtype=np.int64)
    for start in range(count - 1, -1, -1):
        width = widths[start]  # of the whole run: its first row is the longest
        most = min(count - start, limit // width)
        costs = steps[:most] * width + best[start + 1 : start + 1 + most]
        pick = int(costs.argmin())
        best[start] = int(costs[pick]) + cost
        ends[start] = start + pick + 1
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(int(ends[cuts[-1]]))
    return cuts


def _deal(works: list[int], ranks: int) -> list[list[int | None]]:
    """Deal the largest first, in rounds of one to each rank, the least burdened rank choosing first."""
    falling = sorted(range(len(works)), key=lambda index: -works[index])
    order: list[int | None] = [*falling, *[None] * (-len(works) % ranks)]
    hands: list[list[int | None]] = [[] for _ in range(ranks)]
    burdens = [0] * ranks
    for start in range(0, len(order), ranks):
        turn = sorted(range(ranks), key=lambda rank: burdens[rank])
        for rank, index in zip(turn, order[start : start + ranks], strict=True):
            hands[rank].append(index)
            burdens[rank] += works[index] + OVERHEAD if index is not None else 0
    return hands
