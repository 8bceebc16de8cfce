"""Flat arrays of segments, scores and sums of ranks, targets, learning rates, and packed parameters."""

import numpy as np
import pytest
import torch

from agile_ray.config import PPO, Imitation
from agile_ray.types import Demonstration, Segment, TokenScores, TrainingRow
from learner.messages import RankScores, Sums, add, merge_scores
from learner.micro_batch import make_micro_batch
from learner.plan import plan
from learner.ragged import join, join_scores, lay_out, split, split_scores
from learner.steps import imitation_rate, ppo_rate
from learner.targets import effective_share, make_demonstration_targets, make_targets
from learner.weights import buckets
from tests.fakes.worlds import changed


def row(
    position: int,
    index: int,
    *,
    rewards: list[float],
    values: list[float],
    last: bool,
    credit: float = 0.0,
    credit_baseline: float = 0.0,
    decided_after: int | None = None,
    wrote: bool = False,
):
    """A row whose every second token is an action."""
    count = len(rewards)
    mask = np.arange(2 * count) % 2 == 1
    spread = np.zeros(2 * count, np.float32)
    spread[mask] = rewards
    segment = Segment(
        stream="s",
        position=position,
        index=index,
        token_ids=np.arange(2 * count, dtype=np.int32),
        action_mask=mask,
        turn_ids=np.where(mask, 0, -1).astype(np.int32),
        behavior_logprobs=np.where(mask, -1, 0).astype(np.float32),
        versions=np.where(mask, 0, -1).astype(np.int32),
        rewards=spread,
        ask_probabilities=np.full(2 * count, np.nan, np.float32),
        last=last,
    )
    scores = TokenScores(
        logprobs=np.full(count, -1.5, np.float32),
        reference_logprobs=np.full(count, -2, np.float32),
        own_values=np.array(values, np.float32),
        write_probabilities=np.full(count, 0.5, np.float32),
    )
    decided_after = count if decided_after is None else decided_after
    return TrainingRow(
        segment=segment,
        scores=scores,
        credit=credit,
        credit_baseline=credit_baseline,
        decided_after=decided_after,
        wrote=wrote,
    )


def test_segments_are_concatenated_with_the_positions_of_their_actions():
    rows = [row(0, 0, rewards=[0, 0], values=[0, 0], last=True), row(1, 0, rewards=[1], values=[0], last=True)]
    ragged = lay_out([one.segment for one in rows])
    assert ragged.token_ids.tolist() == [0, 1, 2, 3, 0, 1]
    assert ragged.starts.tolist() == [0, 4, 6]
    assert ragged.positions.tolist() == [1, 3, 1]
    assert ragged.action_starts.tolist() == [0, 2, 3]


def test_splitting_and_joining_scores_changes_nothing():
    scores = join_scores([row(0, 0, rewards=[0, 0], values=[1, 2], last=True).scores])
    parts = split_scores(scores, np.array([0, 0, 2]))
    assert [part.own_values.tolist() for part in parts] == [[], [1, 2]]
    for name in TokenScores.__slots__:
        np.testing.assert_array_equal(getattr(join_scores(parts), name), getattr(scores, name))


def test_values_of_rows_are_returned_in_the_order_of_the_rows():
    counts, order = [2, 0, 1, 3], [2, 0, 3, 1]  # action tokens of each row; row 2 was laid out first
    starts = np.cumsum([0, *(counts[number] for number in order)])
    laid_out = join([np.full(counts[number], number, np.float32) for number in order], np.float32)
    found = split(laid_out, starts, order)
    assert [values.tolist() for values in found] == [[0, 0], [], [2], [3, 3, 3]]


def test_the_scores_of_all_ranks_are_merged_in_the_order_of_the_tokens():
    scores = TokenScores(
        **{name: np.arange(5, dtype=np.float32) + 10 * k for k, name in enumerate(TokenScores.__slots__)}  # all differ
    )
    parts = [
        RankScores(
            indices=indices,
            scores=TokenScores(**{name: getattr(scores, name)[indices] for name in TokenScores.__slots__}),
        )
        for indices in (np.array([3, 1]), np.array([], np.int64), np.array([4, 0, 2]))
    ]
    for name in TokenScores.__slots__:
        np.testing.assert_array_equal(getattr(merge_scores(parts), name), getattr(scores, name))


def test_sums_add_up_field_by_field_except_the_norm():
    parts = [Sums(loss=1.0, write=2.0, gradient_norm=9.0), Sums(loss=0.5, value=4.0, write=1.0)]
    total = add(parts, gradient_norm=3.0)
    assert total == Sums(loss=1.5, value=4.0, write=3.0, gradient_norm=3.0)


def test_segments_of_one_session_are_chained_and_credit_lands_on_the_last_action():
    rows = [
        row(0, 0, rewards=[0, -0.3], values=[0.5, 0.5], last=False),
        row(0, 1, rewards=[0, 1], values=[0.5, 0.5], last=True, credit=0.1),
        row(1, 0, rewards=[0.25], values=[0.5], last=True),
    ]
    targets, metrics = make_targets(rows, PPO(gae_lambda=1.0))
    np.testing.assert_allclose(targets.own_returns, [0.7, 0.7, 1.0, 1.0, 0.25], atol=1e-6)
    assert targets.advantages.mean() == pytest.approx(0, abs=1e-6)
    assert metrics["advantage_mean"] == pytest.approx(np.mean([0.3, 0.3, 0.6, 0.6, -0.25]))
    assert metrics["behavior_gap_nats"] == pytest.approx(0.5)


def test_importance_weights_are_capped_at_two_and_the_effective_share_is_reported():
    one = row(0, 0, rewards=[0, 0, 0], values=[0, 0, 0], last=True)
    old = np.array([-1 + np.log(0.5), -1, 7], np.float32)  # the engine's were all -1
    targets, metrics = make_targets([changed(one, scores=changed(one.scores, logprobs=old))], PPO())
    np.testing.assert_allclose(targets.importance_weights, [0.5, 1.0, 2.0], rtol=1e-6)
    assert metrics["effective_share"] == pytest.approx(3.5**2 / (3 * (0.25 + 1 + 4)))
    assert effective_share(np.full(4, 0.3, np.float32)) == pytest.approx(1)
    assert effective_share(np.array([1, 0, 0, 0], np.float32)) == pytest.approx(1 / 4)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("micro_batch_tokens", [8, 64])
def test_advantages_are_whitened_over_the_whole_update_for_any_ranks_and_micro_batches(ranks, micro_batch_tokens):
    draw = np.random.default_rng(0)
    rows = [
        row(k, 0, rewards=draw.normal(k, 1, count).tolist(), values=[0.0] * count, last=True)
        for k, count in enumerate([1, 4, 2, 3, 2])
    ]
    targets, _ = make_targets(rows, PPO(gae_lambda=1.0))
    earned = [np.cumsum(one.segment.rewards[one.segment.action_mask][::-1])[::-1] for one in rows]
    slow = (np.concatenate(earned) - np.concatenate(earned).mean()) / np.concatenate(earned).std()

    ragged = lay_out([one.segment for one in rows])
    used = np.full(len(slow), np.nan)
    for minibatch in plan(ragged.lengths, seed=1, minibatches=2, ranks=ranks, micro_batch_tokens=micro_batch_tokens):
        for rows_of_pass in (rows for micro_batches in minibatch.by_rank for rows in micro_batches):
            batch = make_micro_batch(ragged, rows_of_pass, torch.device("cpu"))
            used[batch.indices] = batch.select(targets.advantages)
    np.testing.assert_allclose(used, slow, rtol=1e-5, atol=1e-6)


def test_advantages_are_gae_of_own_rewards_and_of_credit_minus_its_baseline():
    rows = [
        row(0, 0, rewards=[0, -0.3], values=[0.5, 0.4], last=False, wrote=True),
        row(
            0,
            1,
            rewards=[0, 0, 1],
            values=[0.3, 0.6, 0.7],
            last=True,
            credit=0.5,
            credit_baseline=0.3,
            decided_after=2,
            wrote=True,
        ),
        row(1, 0, rewards=[1], values=[0.5], last=True, credit=0.6, credit_baseline=0.1, wrote=True),
        row(2, 0, rewards=[0, 1], values=[0.5, 0.5], last=True, credit_baseline=0.3, decided_after=1),
    ]
    targets, metrics = make_targets(rows, PPO(gae_lambda=0.5))

    def slow(rewards, values):
        td_errors = [r + after - now for r, now, after in zip(rewards, values, [*values[1:], 0], strict=True)]
        return [sum(0.5 ** (k - t) * td_errors[k] for k in range(t, len(rewards))) for t in range(len(rewards))]

    # Credit minus its baseline is a reward of the token that decides it.
    advantages = np.array(
        [
            *slow([0, -0.3, 0, 0.2, 1], [0.5, 0.4, 0.3, 0.6, 0.7]),
            *slow([1 + 0.5], [0.5]),
            *slow([-0.3, 1], [0.5, 0.5]),
        ]
    )
    np.testing.assert_allclose(targets.advantages, (advantages - advantages.mean()) / advantages.std(), atol=1e-5)
    assert metrics["advantage_mean"] == pytest.approx(advantages.mean(), abs=1e-6)


def test_every_action_of_a_session_is_labelled_with_whether_it_wrote():
    rows = [
        row(0, 0, rewards=[0, 0], values=[0, 0], last=True),
        row(1, 0, rewards=[1], values=[0], last=True, credit=1, wrote=True),
    ]
    assert make_targets(rows, PPO())[0].wrote.tolist() == [0, 0, 1]
    demonstrations = [
        Demonstration(segment=one.segment, returns=np.ones(one.segment.actions, np.float32), wrote=one.wrote)
        for one in rows
    ]
    targets = make_demonstration_targets(demonstrations)
    assert targets.wrote.tolist() == [0, 0, 1]
    assert targets.returns.tolist() == [1, 1, 1]


def test_the_imitation_rate_warms_up_for_a_twentieth_of_the_steps_and_decays_to_a_tenth():
    config = Imitation(learning_rate=1.0)
    rates = [imitation_rate(config, step=step, steps=40) for step in range(40)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[39] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in zip(rates[1:], rates[2:], strict=False))
    assert imitation_rate(config, step=0, steps=1) == 1.0


def test_the_ppo_rate_decays_linearly_to_a_tenth():
    config = PPO(learning_rate=2.0)
    assert [ppo_rate(config, done) for done in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([2.0, 1.1, 0.2, 0.2])


def test_packed_parameters_are_restored_bit_for_bit_in_the_published_dtype():
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7)}
    (plan,) = buckets.plan_buckets(((name, tuple(one.shape)) for name, one in tensors.items()), torch.bfloat16)
    content = buckets.pack(plan, list(tensors.values()), torch.bfloat16)
    assert plan.size_bytes == len(content) == 2 * 22
    for spec in plan.tensors:
        size = 2 * tensors[spec.name].numel()
        bits = torch.from_numpy(content[spec.offset_bytes : spec.offset_bytes + size]).view(torch.bfloat16)
        assert torch.equal(bits.view(spec.shape), tensors[spec.name].bfloat16())


def test_only_the_last_bucket_is_small():
    mebi = 2**18  # float32 numbers in a MiB
    plans = buckets.plan_buckets([("a", (20 * mebi,)), ("b", (20 * mebi,)), ("c", (mebi,))], torch.float32)
    assert [[spec.name for spec in plan.tensors] for plan in plans] == [["a", "b"], ["c"]]
    assert [plan.size_bytes >> 20 for plan in plans] == [40, 1]
    assert [spec.offset_bytes >> 20 for spec in plans[0].tensors] == [0, 20]
