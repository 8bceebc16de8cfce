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


def version_two(start: float, gap: float, *, step: float, received: bool, redrawn: bool) -> None:
    """Check version 2, whose learner moved by `step`, after a version 1 with the gap `start`; both are mean gaps."""
    check = SyncCheck(exact=False)
    old = logprobs(1)
    new = noisy(old, step, seed=5)
    scale = np.sqrt(np.pi / 2)  # of a normal distribution whose mean distance from 0 is 1
    before = noisy(old, start * scale)
    check.check(1, before=logprobs(0), after=before, learner=old)
    after = noisy(new, gap * scale, seed=10 if redrawn else 9) if received else before
    check.check(2, before=before, after=after, learner=new)


@pytest.mark.parametrize("redrawn", [True, False], ids=["rounding moves", "rounding stays"])
@pytest.mark.parametrize("step", [0.0, 5e-4, 2e-3, 8e-3, 0.05])
@pytest.mark.parametrize("gaps", [(0.006, 0.013), (0.004, 0.009), (0.009, 0.0185), (0.05, 0.07)])
def test_in_bfloat16_a_healthy_step_is_accepted_however_small(
    gaps: tuple[float, float], step: float, redrawn: bool
) -> None:
    version_two(*gaps, step=step, received=True, redrawn=redrawn)


@pytest.mark.parametrize("gaps", [(0.012, 0.013), (0.0475, 0.0478), (0.001, 0.002)])
@pytest.mark.parametrize("step", [2e-3, 0.01])
def test_in_bfloat16_an_engine_that_received_nothing_is_refused_within_the_limit(
    gaps: tuple[float, float], step: float
) -> None:
    with pytest.raises(SyncError, match="nearer to the old weights"):
        version_two(*gaps, step=step, received=False, redrawn=False)


def test_in_bfloat16_an_engine_that_loaded_a_third_of_the_step_is_refused() -> None:
    check = SyncCheck(exact=False)
    old, noise = logprobs(1), noisy(np.zeros(TOKENS, np.float32), 0.05)
    new = noisy(old, 0.05, seed=5)
    check.check(1, before=logprobs(0), after=old + noise, learner=old)
    part = (old + (new - old) / 3 + noise).astype(np.float32)
    with pytest.raises(SyncError, match="nearer to the old weights"):
        check.check(2, before=old + noise, after=part, learner=new)


def test_an_engine_without_a_version_before_is_checked_by_its_gap_alone() -> None:
    nothing = np.full(TOKENS, np.nan, np.float32)
    for exact in (True, False):
        check = SyncCheck(exact=exact)
        check.check(1, before=logprobs(0), after=logprobs(1), learner=logprobs(1))
        check.check(2, before=nothing, after=logprobs(2), learner=logprobs(2))
        with pytest.raises(SyncError, match="from the learner's"):
            check.check(3, before=nothing, after=logprobs(2), learner=logprobs(3))
