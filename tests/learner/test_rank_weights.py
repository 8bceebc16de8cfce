"""What one rank publishes: its buckets and its probes."""

import numpy as np
import torch

from learner.weights.rank_weights import RankWeights
from tests.fakes.tiny_policy import WholeEngine, policy, tiny

IDS = np.array([1, 5, 2, 7], np.int32)


def test_buckets_hold_every_parameter_of_the_language_model_and_tied_ones_twice():
    language_model = tiny(tie_word_embeddings=True)
    weights = RankWeights(WholeEngine(policy(language_model)), torch.float32)
    found = {}
    for plan, bucket in zip(weights.plans, weights.buckets(), strict=True):
        assert len(bucket) == plan.size_bytes
        for spec in plan.tensors:
            count = int(np.prod(spec.shape))
            found[spec.name] = bucket[spec.offset_bytes :].view(np.float32)[:count].reshape(spec.shape)
    expected = {name: one.detach().numpy() for name, one in language_model.named_parameters(remove_duplicate=False)}
    assert found.keys() == expected.keys() >= {"lm_head.weight", "model.embed_tokens.weight"}
    for name, one in expected.items():
        np.testing.assert_array_equal(found[name], one, err_msg=name)
    assert [name for name, _ in weights.parameters()] == list(expected)


def test_probes_are_scored_as_the_plain_model_scores_them():
    weights = RankWeights(WholeEngine(policy(tiny())), torch.float32)
    (probe,) = weights.probe([IDS])
    logprobs = tiny()(torch.from_numpy(IDS.astype(np.int64))[None]).logits[0].log_softmax(-1)
    slow = [0.0, *(logprobs[position, token].item() for position, token in enumerate(IDS[1:].tolist()))]
    np.testing.assert_allclose(probe.logprobs, slow, atol=1e-6)
    assert probe.ids is IDS
