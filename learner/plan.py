"""Plans which rank computes which rows: a pure function from lengths to micro-batches of similar length.

Example, 5 rows in 1 minibatch for 2 ranks:
    lengths 9 3 9 4 8  ->  rank 0: [9 9 8], rank 1: [4 3]
    processed 27 + 8 tokens, of which 33 are real: 6 % padding

Every rank gets the same number of micro-batches, some of them empty: under ZeRO 2 and 3 each backward pass is a
collective operation, and a rank that skipped one would leave the others waiting.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.errors import ContractError
from agile_ray.types import Int64

WASTE = 0.03
"""Share of processed tokens that may be padding."""
OVERHEAD = 48
"""Fixed cost of one pass, in tokens: about 4 ms on a CPU core that processes 12,000 tokens/s."""

MicroBatches = tuple[Int64, ...]
"""Row numbers of each pass of one rank; an empty array is a pass without rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniBatch:
    """The rows of one optimizer step, as micro-batches of every rank."""

    by_rank: tuple[MicroBatches, ...]  # the same number of micro-batches for every rank
    tokens: int  # without padding
    processed: int  # with padding

    @property
    def rows(self) -> Int64:
        """Every row number, in no particular order."""
        return np.concatenate([rows for micro_batches in self.by_rank for rows in micro_batches])


def plan(lengths: Int64, *, seed: int, minibatches: int, ranks: int, micro_batch_tokens: int) -> tuple[MiniBatch, ...]:
    """Shuffle rows into minibatches and cut each into micro-batches.

    Args:
        lengths: int64 [B], tokens of each row.
        seed: determines which rows share a minibatch, whatever the number of ranks.
        minibatches: optimizer steps to split the rows into; fewer if there are fewer rows.
        ranks: number of ranks that share each minibatch.
        micro_batch_tokens: most tokens of one pass, including padding.

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


def padding(minibatches: Sequence[MiniBatch]) -> float:
    """Share of processed tokens that is padding."""
    processed = sum(minibatch.processed for minibatch in minibatches)
    return 1.0 - sum(minibatch.tokens for minibatch in minibatches) / processed if processed else 0.0


def _mini_batch(rows: Int64, lengths: Int64, *, ranks: int, limit: int) -> MiniBatch:
    rows = rows[np.lexsort((rows, -lengths[rows]))]  # longest first; row numbers break ties
    total = int(lengths[rows].sum())
    best: tuple[tuple[bool, float], MiniBatch] | None = None
    for cuts in _candidates(lengths[rows], total=total, ranks=ranks, limit=limit):
        chunks = [rows[start:end] for start, end in itertools.pairwise(cuts)]
        costs = [int(lengths[chunk[0]]) * len(chunk) for chunk in chunks]
        shares = _distribute(costs, ranks)
        slowest = max(sum(costs[index] + OVERHEAD for index in share if index is not None) for share in shares)
        waste = 1.0 - total / sum(costs)
        badness = (waste > WASTE, waste if waste > WASTE else float(slowest))
        if best is None or badness < best[0]:
            by_rank = tuple(tuple(rows[:0] if index is None else chunks[index] for index in share) for share in shares)
            best = badness, MiniBatch(by_rank=by_rank, tokens=total, processed=sum(costs))
    assert best is not None
    return best[1]


def _candidates(lengths: Int64, *, total: int, ranks: int, limit: int) -> Iterator[list[int]]:
    """Yield ways to cut: a higher cost per pass makes fewer chunks, a lower token limit makes more even ones."""
    longest = int(lengths[0])
    limits = {max(longest, min(limit, -(-total // (ranks * rounds)))) for rounds in range(1, 9)}
    for bound in sorted({*limits, limit}):
        for cost in (2 * OVERHEAD, OVERHEAD // 2, 4):
            yield _cut(lengths, limit=bound, cost=cost)


def _cut(lengths: Int64, *, limit: int, cost: int) -> list[int]:
    """Cut descending lengths into runs with the lowest total cost: processed tokens plus `cost` per run.

    Returns:
        indices of the cuts, including 0 and len(lengths).
    """
    count = len(lengths)
    best = np.zeros(count + 1, dtype=np.int64)  # best[i]: lowest cost of row i and all later rows
    ends = np.zeros(count + 1, dtype=np.int64)
    widths = lengths.tolist()
    steps = np.arange(1, count + 1, dtype=np.int64)
    for start in range(count - 1, -1, -1):
        width = widths[start]  # of every row of the run after padding: the first one is the longest
        most = min(count - start, limit // width)
        costs = steps[:most] * width + best[start + 1 : start + 1 + most]
        pick = int(costs.argmin())
        best[start] = int(costs[pick]) + cost
        ends[start] = start + pick + 1
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(int(ends[cuts[-1]]))
    return cuts


def _distribute(costs: list[int], ranks: int) -> list[list[int | None]]:
    """Give chunks to ranks, the most expensive first, in rounds of one each; the rank with the least work picks first.

    Returns:
        for each rank the indices of its chunks, None for an empty one; equally many for every rank.
    """
    falling = sorted(range(len(costs)), key=lambda index: -costs[index])
    order: list[int | None] = [*falling, *[None] * (-len(costs) % ranks)]
    shares: list[list[int | None]] = [[] for _ in range(ranks)]
    work = [0] * ranks
    for start in range(0, len(order), ranks):
        by_work = sorted(range(ranks), key=lambda rank: work[rank])
        for rank, index in zip(by_work, order[start : start + ranks], strict=True):
            shares[rank].append(index)
            work[rank] += costs[index] + OVERHEAD if index is not None else 0
    return shares
