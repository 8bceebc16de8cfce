"""Which rank computes which rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agile_ray.errors import ContractError
from learner.plan import WASTE, padding, plan


def members(minibatches) -> list[list[int]]:
    return [sorted(minibatch.rows.tolist()) for minibatch in minibatches]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=60),
    minibatches=st.integers(1, 5),
    ranks=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_every_row_is_planned_once_within_the_limit_and_ranks_get_equal_numbers_of_passes(
    lengths, minibatches, ranks, seed
):
    lengths = np.array(lengths)
    batches = plan(lengths, seed=seed, minibatches=minibatches, ranks=ranks, micro_batch_tokens=240)
    assert sorted(row for rows in members(batches) for row in rows) == list(range(len(lengths)))
    assert len(batches) == min(minibatches, len(lengths))
    for batch in batches:
        assert len(batch.by_rank) == ranks
        assert len({len(passes) for passes in batch.by_rank}) == 1
        sizes = [int(lengths[rows].max()) * len(rows) for passes in batch.by_rank for rows in passes if len(rows)]
        assert max(sizes) <= 240
        assert sum(sizes) == batch.processed
        assert int(lengths[batch.rows].sum()) == batch.tokens


def test_which_rows_share_a_minibatch_depends_on_the_seed_and_not_on_ranks_or_limits():
    lengths = np.random.default_rng(0).integers(40, 121, 200)
    one = plan(lengths, seed=3, minibatches=4, ranks=1, micro_batch_tokens=4096)
    assert members(one) == members(plan(lengths, seed=3, minibatches=4, ranks=3, micro_batch_tokens=256))
    assert members(one) != members(plan(lengths, seed=4, minibatches=4, ranks=1, micro_batch_tokens=4096))


@pytest.mark.parametrize("rows", [128, 256, 512])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_sessions_of_40_to_120_tokens_waste_little_and_load_the_ranks_evenly(rows, ranks):
    lengths = np.random.default_rng(rows).integers(40, 121, rows)
    batches = plan(lengths, seed=0, minibatches=1, ranks=ranks, micro_batch_tokens=4096)
    assert padding(batches) <= WASTE
    loads = [sum(int(lengths[rows].max()) * len(rows) for rows in passes if len(rows)) for passes in batches[0].by_rank]
    assert max(loads) <= 1.05 * np.mean(loads)


def test_fewer_rows_than_ranks_leave_empty_micro_batches():
    (batch,) = plan(np.array([5]), seed=0, minibatches=3, ranks=2, micro_batch_tokens=16)
    assert [[rows.tolist() for rows in passes] for passes in batch.by_rank] == [[[0]], [[]]]


def test_a_row_longer_than_the_limit_is_refused():
    with pytest.raises(ContractError, match="a row of 9 tokens"):
        plan(np.array([3, 9]), seed=0, minibatches=1, ranks=1, micro_batch_tokens=8)
