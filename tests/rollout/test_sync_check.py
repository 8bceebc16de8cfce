import numpy as np
import pytest

from agile_ray.errors import SyncError
from agile_ray.types import Float32
from rollout.weights.sync_check import Gap, SyncCheck, flat

TOKENS = 400


def logprobs(seed: int) -> Float32:
    return -np.random.default_rng(seed).exponential(2.0, TOKENS).astype(np.float32)


def noisy(clean: Float32, scale: float, seed: int = 9) -> Float32:
    return (clean + scale * np.random.default_rng(seed).standard_normal(len(clean))).astype(np.float32)


def test_gap_is_the_mean_and_largest_difference() -> None:
    gap = Gap.between(np.array([0.0, -1.0], np.float32), np.array([0.0, -4.0], np.float32))
    assert (gap.mean, gap.largest) == (1.5, 3.0)


def test_a_logprob_of_nan_counts_as_an_infinite_difference() -> None:
    assert Gap.between(np.array([np.nan], np.float32), np.array([-1.0], np.float32)).largest == np.inf


def test_flat_leaves_out_the_first_token_of_every_sequence() -> None:
    assert flat([np.array([0, -1, -2], np.float32), np.array([0, -3], np.float32)]).tolist() == [-1, -2, -3]


def test_in_float32_one_wrong_token_is_enough_to_refuse_a_version() -> None:
    new = logprobs(1)
    after = new.copy()
    after[17] += 2e-3
    check = SyncCheck(exact=True)
    check.check(1, before=logprobs(0), after=new, learner=new)
    with pytest.raises(SyncError, match=r"version 2 .* 0\.002 nats from the learner's, the limit is 0\.001"):
        check.check(2, before=new, after=after, learner=new)


def test_the_same_weights_can_be_loaded_twice() -> None:
    for exact in (True, False):
        check = SyncCheck(exact=exact)
        for version in (1, 1, 2):
            check.check(version, before=logprobs(0), after=logprobs(0), learner=logprobs(0))


def test_in_bfloat16_the_gap_may_grow_by_half_and_no_more() -> None:
    first, second, third = logprobs(1), logprobs(2), logprobs(3)
    check = SyncCheck(exact=False)
    start = check.check(1, before=logprobs(0), after=noisy(first, 0.05), learner=first).gap.mean
    assert start == pytest.approx(0.04, rel=0.2)
    check.check(2, before=noisy(first, 0.05), after=noisy(second, 0.07), learner=second)
    with pytest.raises(SyncError, match="from the learner's"):
        check.check(3, before=noisy(second, 0.07), after=noisy(third, 0.08), learner=third)


def test_in_bfloat16_the_first_version_has_a_limit_too() -> None:
    new = logprobs(1)
    with pytest.raises(SyncError, match="the limit is 0.15"):
        SyncCheck(exact=False).check(1, before=logprobs(0), after=noisy(new, 0.4), learner=new)


def test_a_stale_engine_is_refused_when_the_step_exceeds_the_noise() -> None:
    for exact in (True, False):
        check = SyncCheck(exact=exact)
        old, new = logprobs(1), logprobs(2)
        check.check(1, before=logprobs(0), after=noisy(old, 1e-4), learner=old)
        with pytest.raises(SyncError):
            check.check(2, before=noisy(old, 1e-4), after=noisy(old, 1e-4), learner=new)


def test_an_engine_nearer_to_the_old_weights_is_refused_even_within_the_limit() -> None:
    check = SyncCheck(exact=False)
    check._start = 0.05
    old = logprobs(1)
    new, between = (old + 0.11).astype(np.float32), (old + 0.05).astype(np.float32)
    with pytest.raises(SyncError, match="nearer to the old weights"):
        check.check(2, before=old, after=between, learner=new)
