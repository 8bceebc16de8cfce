"""Losses against slow versions, token by token."""

import math

import pytest
import torch

from learner import losses
from learner.losses import entropies, token_logprobs


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def test_logprobs_and_entropies_are_those_of_the_softmax_at_the_temperature():
    logits, actions = draw(5, 7), torch.tensor([0, 6, 3, 3, 1])
    logprobs = token_logprobs(logits, actions, temperature=0.5)
    found = entropies(logits, temperature=0.5)
    for row, action in enumerate(actions.tolist()):
        weights = [math.exp(logit / 0.5) for logit in logits[row].tolist()]
        probabilities = [weight / sum(weights) for weight in weights]
        assert logprobs[row].item() == pytest.approx(math.log(probabilities[action]), abs=1e-5)
        assert found[row].item() == pytest.approx(-sum(p * math.log(p) for p in probabilities), abs=1e-5)


def test_logprobs_of_low_precision_logits_are_computed_in_float32():
    logits = draw(3, 9).bfloat16()
    found = token_logprobs(logits, torch.tensor([1, 2, 3]), temperature=1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, token_logprobs(logits.float(), torch.tensor([1, 2, 3]), temperature=1.0))


def test_policy_loss_is_the_pessimistic_surrogate_token_by_token():
    new, old, advantages = (draw(40, seed=seed, scale=0.4) for seed in range(3))
    importance_weights = draw(40, seed=3).exp()
    found = losses.clipped_policy_loss(
        new, old_logprobs_A=old, importance_weights_A=importance_weights, advantages_A=advantages, clip=0.2
    )
    total, clipped, deviation = 0.0, 0, 0.0
    for n, o, w, a in zip(new.tolist(), old.tolist(), importance_weights.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(n - o)
        bounded = min(max(ratio, 0.8), 1.2)
        total -= w * min(ratio * a, bounded * a)
        clipped += bounded * a < ratio * a
        deviation += abs(ratio - 1)
    assert found.loss.item() == pytest.approx(total, abs=1e-4)
    assert found.clipped.item() == clipped > 0
    assert found.deviation.item() == pytest.approx(deviation, abs=1e-4)


def test_the_estimate_of_the_update_kl_is_unbiased_and_never_negative():
    now, old = (draw(6, seed=seed).double().log_softmax(-1) for seed in range(2))

    def estimate(tokens: slice) -> float:
        ones = torch.ones_like(now[tokens])
        found = losses.clipped_policy_loss(
            now[tokens], old_logprobs_A=old[tokens], importance_weights_A=ones, advantages_A=ones, clip=0.2
        )
        return found.update_kl.item()

    each = [estimate(slice(token, token + 1)) for token in range(6)]
    assert min(each) >= 0
    mean = sum(old[token].exp().item() * each[token] for token in range(6))  # over tokens that the old policy samples
    assert mean == pytest.approx((old.exp() * (old - now)).sum().item())
    assert estimate(slice(0, 6)) == pytest.approx(sum(each))


def test_binary_kl_is_the_kl_of_a_token_against_all_others_and_has_its_gradient():
    now, old = (draw(50, 6, seed=seed, scale=3).double().log_softmax(-1) for seed in range(2))
    for here, before in ((now[:, 0], old[:, 0]), (now[:, 0], now[:, 0])):
        logprobs = here.clone().requires_grad_()
        found = losses.binary_kl(logprobs, old_logprobs_A=before)
        found.backward()
        p, o = here.exp(), before.exp()
        slow = p * (p / o).log() + (1 - p) * ((1 - p) / (1 - o)).log()
        assert (slow >= 0).all()
        assert found.item() == pytest.approx(slow.sum().item())
        torch.testing.assert_close(logprobs.grad, p * (p.logit() - o.logit()))  # times p: the gradient in log p
    whole = (now.exp() * (now - old)).sum().item()
    assert 0 < losses.binary_kl(now[:, 0], old_logprobs_A=old[:, 0]).item() < whole


def test_binary_kl_is_finite_where_a_probability_rounds_to_zero_or_one():
    now, old = torch.tensor([0.0, -1e-9, -60.0, 0.0]).requires_grad_(), torch.tensor([0.0, -60.0, 0.0, -1e-3])
    found = losses.binary_kl(now, old_logprobs_A=old)
    found.backward()
    assert math.isfinite(found.item())
    assert now.grad is not None
    assert now.grad.isfinite().all()
    assert now.grad[0] == 0


def test_binary_kl_bounds_a_policy_that_the_clip_does_not_bound():
    old = torch.tensor([0.999, 0.001]).log()

    def probability_after(*, coefficient: float) -> float:
        logits = old.clone().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(200):
            now = logits.log_softmax(-1)[:1]
            ones = torch.ones(1)
            surrogate = losses.clipped_policy_loss(
                now, old_logprobs_A=old[:1], importance_weights_A=ones, advantages_A=-0.5 * ones, clip=0.3
            )
            optimizer.zero_grad()
            (surrogate.loss + coefficient * losses.binary_kl(now, old_logprobs_A=old[:1])).backward()
            optimizer.step()
        return logits.softmax(-1)[0].item()

    assert probability_after(coefficient=0.0) < 0.7
    assert probability_after(coefficient=0.25) == pytest.approx(
        torch.sigmoid(torch.tensor(math.log(999) - 2)).item(), abs=1e-3
    )


def test_the_entropy_bonus_and_its_gradient_cover_function_tokens_only():
    logits = draw(4, 5).requires_grad_()
    actions, functions = torch.tensor([3, 0, 4, 1]), torch.tensor([3, 4])
    found = losses.function_entropy(logits, torch.isin(actions, functions), temperature=0.5)
    slow = 0.0
    for row in (0, 2):
        weights = [math.exp(logit / 0.5) for logit in logits[row].tolist()]
        slow -= sum(weight / sum(weights) * math.log(weight / sum(weights)) for weight in weights)
    assert found.item() == pytest.approx(slow, abs=1e-5)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(-1).gt(0).tolist() == [True, False, True, False]


def test_the_clipped_value_loss_takes_the_larger_of_the_errors_with_and_without_the_clip():
    values, old, returns = (draw(40, seed=seed) for seed in range(3))
    found = losses.clipped_value_loss(values, old_values_A=old, returns_A=returns)
    total = 0.0
    for v, o, r in zip(values.tolist(), old.tolist(), returns.tolist(), strict=True):
        bounded = o + min(max(v - o, -0.2), 0.2)
        total += 0.5 * max((v - r) ** 2, (bounded - r) ** 2)
    assert found.item() == pytest.approx(total, abs=1e-4)


def test_the_write_loss_is_the_cross_entropy_of_the_label_and_has_its_gradient():
    logits = torch.tensor([0.0, 2.0, -1.0, 100.0, 100.0], requires_grad=True)
    wrote = [1.0, 0.0, 0.0, 1.0, 0.0]
    found = losses.write_loss(logits, wrote_A=torch.tensor(wrote))
    probabilities = [1 / (1 + math.exp(-logit)) for logit in logits.tolist()]
    slow = [-math.log(p if label else 1 - p) for p, label in zip(probabilities[:4], wrote, strict=False)]
    assert found.item() == pytest.approx(sum(slow) + 100.0, rel=1e-6)  # large logits stay finite
    found.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([p - label for p, label in zip(probabilities, wrote, strict=True)])


def test_k3_has_the_gradient_of_the_divergence_from_the_reference_to_the_policy():
    logits = draw(6).double().requires_grad_()
    reference = draw(6, seed=1).double().log_softmax(-1)
    policy = logits.log_softmax(-1)
    # The mean over tokens that the policy samples, the tokens held fixed.
    mean = sum(
        policy[token].exp().detach()
        * losses.k3(policy[token : token + 1], reference_logprobs_A=reference[token : token + 1])
        for token in range(6)
    )
    (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
    divergence = (reference.exp() * (reference - policy)).sum()
    (expected,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    torch.testing.assert_close(found, expected)
    other = (policy.exp() * (policy - reference)).sum()
    assert not torch.allclose(found, torch.autograd.grad(other, logits)[0])
    assert mean.item() == pytest.approx(other.item())  # its value estimates the other direction


def test_k3_is_linear_where_the_policy_is_far_from_the_reference():
    policy = torch.tensor([-2.0, -12.0], dtype=torch.float64, requires_grad=True)
    found = losses.k3(policy, reference_logprobs_A=torch.zeros(2, dtype=torch.float64))
    (slopes,) = torch.autograd.grad(found, policy)
    assert slopes.tolist() == pytest.approx([1.0 - math.exp(2.0), 1.0 - 10.0])
    tangent = 10.0 - 1.0 - math.log(10.0) + 9.0 * (12.0 - math.log(10.0))
    assert found.item() == pytest.approx(math.exp(2.0) - 1.0 - 2.0 + tangent)
