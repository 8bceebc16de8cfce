"""The policy with its critic, on a tiny Llama: logits are computed, and trained, at action tokens only."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, OPTConfig, OPTForCausalLM

from agile_ray.errors import ConfigError
from learner import losses
from learner.losses import token_logprobs
from learner.micro_batch import make_micro_batch
from learner.model import (
    DetachedHead,
    PolicyWithValue,
    checkpoint_activations,
    load_language_model,
    silence_dropout,
)
from learner.ragged import lay_out
from learner.rank import LearnerRank
from tests.fakes.tiny_policy import CPU, LOGIT_POSITIONS, SEGMENTS, SIZES, WholeEngine, policy, segment, tiny


def test_predictions_equal_those_of_each_row_alone_with_all_logits_computed():
    language_model = tiny()
    slow = tiny()
    model = policy(language_model)
    ragged = lay_out(SEGMENTS)
    batch = make_micro_batch(ragged, np.array([2, 0, 1]), CPU)
    found = model(batch.token_ids, batch.logit_positions)
    expected, actions = [], []
    for row in (2, 0, 1):
        ids = torch.from_numpy(SEGMENTS[row].token_ids.astype(np.int64))
        expected.append(slow(input_ids=ids[None], use_cache=False).logits[0, LOGIT_POSITIONS[row]])
        actions.extend(ids[SEGMENTS[row].action_mask].tolist())
    torch.testing.assert_close(found.logits, torch.cat(expected))
    assert batch.actions.tolist() == actions
    assert batch.indices.tolist() == [4, 5, 0, 1, 2, 3]


def test_logits_are_capped_where_the_model_caps_them():
    torch.manual_seed(0)
    config = Gemma2Config(
        **SIZES, num_attention_heads=2, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.1
    )
    gemma = Gemma2ForCausalLM(config).eval()
    ids = torch.tensor([[1, 5, 2, 7]])
    expected = gemma(input_ids=ids, use_cache=False).logits[0, 2:3].detach()
    found = PolicyWithValue(gemma)(ids, torch.tensor([2])).logits
    assert expected.abs().max() <= 0.1
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("what", ["imitate", "policy", "value"])
def test_hidden_states_that_predict_observations_get_no_gradient(what):
    model = policy(tiny())
    kept: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    model.language_model.model.norm.register_forward_hook(keep)
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    predictions = model(batch.token_ids, batch.logit_positions)
    logprobs = token_logprobs(predictions.logits, batch.actions, temperature=1.0)
    ones = torch.ones(len(logprobs))
    loss = {
        "imitate": lambda: losses.cross_entropy(logprobs),
        "policy": lambda: (
            losses.clipped_policy_loss(
                logprobs,
                old_logprobs_A=logprobs.detach(),
                importance_weights_A=ones,
                advantages_A=ones,
                clip=0.2,
            ).loss
        ),
        "value": lambda: losses.value_loss(predictions.auxiliary_values, returns_A=9 * ones),
    }[what]()
    loss.backward()
    gradient = kept[0].grad
    assert gradient is not None
    for row, logit_positions in enumerate(LOGIT_POSITIONS):
        for position in range(gradient.shape[1]):
            touched = bool((gradient[row, position] != 0).any())
            assert touched == (position in logit_positions), (row, position)


def test_the_ids_in_the_padding_change_nothing():
    model = policy(tiny())
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    filled = batch.token_ids.clone()
    filled[1, 3:] = 7
    filled[2, 4:] = 10
    for one, other in zip(
        model(batch.token_ids, batch.logit_positions), model(filled, batch.logit_positions), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_auxiliary_head_ignores_the_norm_of_its_weight_and_trains_the_trunk():
    model = PolicyWithValue(tiny())
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    before = model(batch.token_ids, batch.logit_positions).auxiliary_values
    assert before.abs().max() > 0
    with torch.no_grad():
        model.auxiliary_head.weight *= 7.0
    torch.testing.assert_close(model(batch.token_ids, batch.logit_positions).auxiliary_values, before)
    model(batch.token_ids, batch.logit_positions).auxiliary_values.sum().backward()
    assert model.language_model.model.embed_tokens.weight.grad.abs().sum() > 0


def test_the_critic_initially_equals_the_auxiliary_head():
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    found = PolicyWithValue(tiny())(batch.token_ids, batch.logit_positions)
    torch.testing.assert_close(found.own_values, found.auxiliary_values, rtol=0, atol=0)


def test_the_critic_corrects_the_auxiliary_head_while_the_trunk_is_unchanged():
    model = policy(tiny())
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    returns = model(batch.token_ids, batch.logit_positions).own_values.detach()
    model.critic_head = DetachedHead(SIZES["hidden_size"], torch.float32)
    optimizer = torch.optim.Adam(model.critic_head.parameters(), lr=0.05)
    errors = []
    for _ in range(500):
        optimizer.zero_grad()
        found = model(batch.token_ids, batch.logit_positions)
        error = losses.value_loss(found.own_values, returns_A=returns)
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 1e-4 * errors[0]
    others = (*model.language_model.parameters(), *model.auxiliary_head.parameters())
    assert all(parameter.grad is None for parameter in others)


def test_the_heads_read_the_last_hidden_state_before_the_token():
    model = policy(tiny())
    kept: list[torch.Tensor] = []
    model.language_model.model.norm.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    found = model(batch.token_ids, batch.logit_positions)
    hidden = torch.stack([kept[0][row, at] for row, positions in enumerate(LOGIT_POSITIONS) for at in positions])
    head = model.auxiliary_head
    direction = head.weight[0] / head.weight[0].norm()
    slow = torch.stack([0.1 * (one @ direction) + head.bias[0] for one in hidden])
    torch.testing.assert_close(found.auxiliary_values, slow)
    slow = slow + torch.stack([one @ model.critic_head.weight[0] + model.critic_head.bias[0] for one in hidden])
    torch.testing.assert_close(found.own_values, slow)
    slow = torch.stack([one @ model.write_head.weight[0] + model.write_head.bias[0] for one in hidden])
    torch.testing.assert_close(found.write_logits, slow)


def test_a_segment_whose_only_action_is_its_last_token_is_scored_before_that_token():
    model = policy(tiny())
    found = model(torch.tensor([[1, 5, 2, 7]]), torch.tensor([2]))
    other = segment([1, 5, 2, 9], [3])  # the last token itself is not read
    batch = make_micro_batch(lay_out([SEGMENTS[0], other]), np.arange(2), CPU)
    scored = model(batch.token_ids, batch.logit_positions)
    for one, two in zip(found, scored, strict=True):
        torch.testing.assert_close(two[-1:], one)


def test_the_initial_probability_of_a_write_is_one_half():
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    found = PolicyWithValue(tiny())(batch.token_ids, batch.logit_positions)
    assert (found.write_logits.sigmoid() == 0.5).all()


def test_the_write_loss_does_not_reach_the_trunk():
    model = policy(tiny())
    batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
    found = model(batch.token_ids, batch.logit_positions)
    losses.write_loss(found.write_logits, wrote_A=torch.ones(len(found.write_logits))).backward()
    assert all(parameter.grad is None for parameter in model.language_model.parameters())
    assert model.write_head.weight.grad.abs().sum() > 0


def test_every_parameter_belongs_to_either_the_language_model_or_a_head():
    model = policy(tiny())
    language, heads, every = (
        [id(parameter) for parameter in parameters]
        for parameters in (model.language_model.parameters(), model.head_parameters(), model.parameters())
    )
    assert sorted([*language, *heads]) == sorted(every)
    assert len(heads) == 6


def test_a_pass_without_rows_gives_every_parameter_a_gradient_of_zero():
    model = policy(tiny())
    batch = make_micro_batch(lay_out(SEGMENTS), np.array([], np.int64), CPU)
    predictions = model(batch.token_ids, batch.logit_positions)
    logprobs = token_logprobs(predictions.logits, batch.actions, temperature=1.0)
    none = torch.zeros(0)
    total = losses.cross_entropy(logprobs) + losses.value_loss(predictions.own_values, returns_A=none)
    total = total + losses.value_loss(predictions.auxiliary_values, returns_A=none)
    (total + losses.write_loss(predictions.write_logits, wrote_A=none)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name


def test_dropout_is_off_even_if_the_folder_sets_it(tmp_path):
    tiny(attention_dropout=0.5).save_pretrained(tmp_path)
    model = load_language_model(tmp_path, dtype=torch.float32, attention="eager").train()
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(model(ids).logits, model(ids).logits, rtol=0, atol=0)


class Nested(LlamaConfig):
    """Keeps another configuration inside, as a model of text and images does."""

    model_type = "nested_llama"


def test_dropout_is_off_in_layers_and_by_every_name(tmp_path):
    shape = {"vocab_size": 11, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig(**shape, word_embed_proj_dim=16, dropout=0.5, layerdrop=0.5)).save_pretrained(tmp_path)
    model = load_language_model(tmp_path, dtype=torch.float32, attention="eager").train()
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(model(ids).logits, model(ids).logits, rtol=0, atol=0)


def test_dropout_is_off_in_a_configuration_inside_another():
    config = Nested(attention_dropout=0.5)
    config.text_config = LlamaConfig(attention_dropout=0.25)
    silence_dropout(config)
    assert (config.attention_dropout, config.text_config.attention_dropout) == (0.0, 0.0)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_checkpointed_activations_are_computed_again_and_change_no_bit(tmp_path, family):
    torch.manual_seed(0)
    if family == "llama":
        tiny(attention_dropout=0.5).save_pretrained(tmp_path)
    else:
        config = Gemma2Config(**SIZES, num_attention_heads=2, num_key_value_heads=2, head_dim=8, attention_dropout=0.5)
        Gemma2ForCausalLM(config).save_pretrained(tmp_path)

    def computed(*, again):
        """Attention passes after the forward and the backward pass, the logits and all gradients."""
        language_model = load_language_model(tmp_path, dtype=torch.float32, attention="eager")
        if again:
            checkpoint_activations(language_model)
        passes = []
        for layer in language_model.model.layers:
            layer.self_attn.register_forward_hook(lambda *_: passes.append(1))
        model = PolicyWithValue(language_model)
        batch = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)
        predictions = model(batch.token_ids, batch.logit_positions)
        forward = len(passes)
        losses.cross_entropy(token_logprobs(predictions.logits, batch.actions, temperature=1.0)).backward()
        gradients = [one.grad for one in language_model.parameters()]
        return forward, len(passes), [predictions.logits.detach(), *gradients]

    *plain, expected = computed(again=False)
    *counted, found = computed(again=True)
    assert plain == [2, 2]
    assert counted == [2, 4]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_an_export_leaves_out_how_the_base_was_sampled(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    tiny().save_pretrained(source)
    sampling = {"do_sample": False, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05, "eos_token_id": [2, 3]}
    (source / "generation_config.json").write_text(json.dumps(sampling))
    (source / "tokenizer.json").write_text("{}")
    (source / ".hidden").write_text("")
    model = policy(load_language_model(source, dtype=torch.float32, attention="eager"))
    settings = SimpleNamespace(folder=source, temperature=1.0, function_ids=(3,), matmul_dtype="float32")
    target.mkdir()
    LearnerRank(WholeEngine(model), settings).export(target)
    kept = json.loads((target / "generation_config.json").read_text())
    assert {key: value for key, value in kept.items() if key != "transformers_version"} == {"eos_token_id": [2, 3]}
    assert (target / "tokenizer.json").exists()
    assert not (target / ".hidden").exists()
    again = load_language_model(target, dtype=torch.float32, attention="eager")
    for name, parameter in model.language_model.state_dict().items():
        assert torch.equal(again.state_dict()[name], parameter), name


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_language_model(tmp_path, dtype=torch.float32, attention="sdpa")
