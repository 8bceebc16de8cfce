"""LoRA on a tiny Llama: what learns, what is published and saved, and the reference that shares the weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from agile_ray.config import PPO, Learner
from agile_ray.errors import LearnerError
from launch.models.folder import check_same_network
from learner import losses
from learner.lora import Adapter
from learner.losses import token_logprobs
from learner.messages import PPOStep
from learner.micro_batch import make_micro_batch
from learner.model import checkpoint_activations, load_language_model
from learner.objectives import ppo_loss
from learner.ragged import lay_out
from learner.rank import LearnerRank
from learner.targets import Targets
from learner.weights.rank_weights import RankWeights
from tests.fakes.tiny_policy import CPU, SEGMENTS, SIZES, WholeEngine, policy, segment, tiny

FUNCTIONS = (3, 7)
BATCH = make_micro_batch(lay_out(SEGMENTS), np.arange(3), CPU)


def adapted(model, *, drawn=True, rank=2):
    """A policy with an adapter; `drawn`: whose values are random, as after some training."""
    torch.manual_seed(5)
    adapter = Adapter(model, rank=rank, token_ids=FUNCTIONS)
    if drawn:
        with torch.no_grad():
            for parameter in adapter.trained().values():
                parameter += 0.3 * torch.randn_like(parameter)
    return policy(model, adapter), adapter


def family(name, *, tied):
    if name == "llama":
        return tiny(tie_word_embeddings=tied, attention_bias=True)
    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, num_attention_heads=2, num_key_value_heads=2, head_dim=8, tie_word_embeddings=tied)
    return Gemma2ForCausalLM(config)


def logits(model):
    return model(BATCH.token_ids, BATCH.logit_positions).logits


def plain(model):
    return model(input_ids=BATCH.token_ids, use_cache=False).logits.flatten(0, 1)[BATCH.logit_positions]


def export(model, adapter, source, target):
    target.mkdir()
    settings = SimpleNamespace(folder=source, temperature=1.0, function_ids=FUNCTIONS, matmul_dtype="float32")
    LearnerRank(WholeEngine(model, adapter), settings).export(target)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_an_export_is_a_plain_model_that_predicts_what_the_policy_does(tmp_path, name, tied):
    family(name, tied=tied).save_pretrained(tmp_path / "base")
    model, adapter = adapted(load_language_model(tmp_path / "base", dtype=torch.float32, attention="eager"))
    export(model, adapter, tmp_path / "base", tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    torch.testing.assert_close(plain(again), logits(model), rtol=1e-5, atol=1e-5)
    base = family(name, tied=tied).eval()
    assert (plain(base) - plain(again)).abs().max() > 0.01
    kept = (load_file(tmp_path / folder / "model.safetensors") for folder in ("base", "out"))
    before, after = kept
    assert before.keys() == after.keys()
    check_same_network(tmp_path / "base", tmp_path / "out")  # so the run can be resumed
    rows = [row for row in range(SIZES["vocab_size"]) if row not in FUNCTIONS]
    assert torch.equal(before["model.embed_tokens.weight"][rows], after["model.embed_tokens.weight"][rows])
    matrices = adapter.trained()
    for key in before:
        part = [matrices.get(f"base_model.model.{key.removesuffix('weight')}lora_{ab}.weight") for ab in "AB"]
        if part[0] is not None:
            torch.testing.assert_close(after[key], before[key] + 2 * part[1] @ part[0])
        elif not key.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(after[key], before[key])


@pytest.mark.parametrize("tied", [True, False])
def test_peft_reads_the_exported_adapter(tmp_path, tied):
    family("llama", tied=tied).save_pretrained(tmp_path / "base")
    model, adapter = adapted(load_language_model(tmp_path / "base", dtype=torch.float32, attention="eager"))
    export(model, adapter, tmp_path / "base", tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager").eval()
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "out" / "adapter"))
    torch.testing.assert_close(plain(loaded), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_engines_get_the_weights_of_the_export(tmp_path, tied):
    base = family("llama", tied=tied)
    names = {name for name, _ in base.named_parameters(remove_duplicate=False)}
    base.save_pretrained(tmp_path / "base")
    model, adapter = adapted(load_language_model(tmp_path / "base", dtype=torch.float32, attention="eager"))
    export(model, adapter, tmp_path / "base", tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    weights = RankWeights(WholeEngine(model, adapter), torch.float32)
    found = {}
    for plan, bucket in zip(weights.plans, weights.buckets(), strict=True):
        for spec in plan.tensors:
            count = int(np.prod(spec.shape))
            found[spec.name] = bucket[spec.offset_bytes :].view(np.float32)[:count].reshape(spec.shape)
    assert found.keys() == names == {name for name, _ in weights.parameters()}
    for name, value in found.items():
        known = exported.get(name, exported["model.embed_tokens.weight"])
        np.testing.assert_array_equal(value, known.numpy(), err_msg=name)


def test_an_adapter_changes_nothing_at_first_and_only_it_and_the_heads_learn():
    model, adapter = adapted(tiny(), drawn=False)
    torch.testing.assert_close(logits(model), logits(policy(tiny())), rtol=0, atol=1e-6)
    learning = {id(one) for one in model.parameters() if one.requires_grad}
    assert learning == {id(one) for one in (*adapter.trained().values(), *model.head_parameters())}


def one_step(model):
    drawn = np.random.default_rng(0).normal(size=(7, len(BATCH.indices))).astype(np.float32)
    targets = Targets(
        old_logprobs=drawn[0] - 3,
        importance_weights=np.abs(drawn[1]),
        reference_logprobs=drawn[2] - 3,
        advantages=drawn[3],
        own_values=drawn[4],
        own_returns=drawn[5],
        wrote=(drawn[6] > 0).astype(np.float32),
    )
    step = PPOStep(actions=len(BATCH.indices), learning_rate=0.1, kl_coefficient=0.1, ppo=PPO())
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    loss, _ = ppo_loss(
        model(BATCH.token_ids, BATCH.logit_positions),
        BATCH,
        targets,
        step,
        function_ids=torch.tensor(FUNCTIONS),
        temperature=1.0,
    )
    loss.backward()
    optimizer.step()


def test_a_step_of_ppo_changes_every_part_of_the_adapter_and_no_other_weight():
    model, adapter = adapted(tiny(tie_word_embeddings=False))
    own = {id(one) for one in adapter.trained().values()}
    before = {name: one.detach().clone() for name, one in model.language_model.named_parameters()}
    learned = {name: one.detach().clone() for name, one in adapter.trained().items()}
    one_step(model)
    for name, parameter in model.language_model.named_parameters():
        if id(parameter) not in own:
            assert torch.equal(parameter, before[name]), name
    for name, parameter in adapter.trained().items():
        assert not torch.equal(parameter, learned[name]), name


def test_functions_that_begin_with_equal_embeddings_are_told_apart():
    base = tiny(tie_word_embeddings=True)
    with torch.no_grad():
        base.model.embed_tokens.weight[list(FUNCTIONS)] = base.model.embed_tokens.weight.mean(0)
    model, _ = adapted(base, drawn=False)
    same = logits(model)[:, list(FUNCTIONS)]
    torch.testing.assert_close(same[:, 0], same[:, 1])
    rows = [segment([1, 5, 3], [2]), segment([1, 6, 7], [2]), segment([1, 3, 7], [2]), segment([1, 7, 3], [2])]
    batch = make_micro_batch(lay_out(rows), np.arange(4), CPU)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        predicted = model(batch.token_ids, batch.logit_positions).logits
        losses.cross_entropy(token_logprobs(predicted, batch.actions, temperature=1.0)).backward()
        optimizer.step()
    assert predicted.argmax(-1).tolist() == [3, 7, 7, 3]


def test_the_reference_is_the_policy_of_the_export_and_the_policy_learns_on(tmp_path):
    base = tiny(tie_word_embeddings=True)
    model, adapter = adapted(base)
    adapter.save(tmp_path / "adapter")
    exported = logits(model).detach()
    values = adapter.read(tmp_path / "adapter")
    with torch.no_grad(), adapter.holding(values):
        torch.testing.assert_close(logits(model), exported, rtol=0, atol=0)
    one_step(model)
    after = logits(model).detach()
    assert (after - exported).abs().max() > 1e-3
    with torch.no_grad(), adapter.holding(values):
        torch.testing.assert_close(logits(model), exported, rtol=0, atol=0)
    torch.testing.assert_close(logits(model).detach(), after, rtol=0, atol=0)


@pytest.mark.parametrize("fault", ["none", "another base", "another rank", "cut off"])
def test_an_adapter_that_is_not_of_this_model_is_an_error_that_names_the_folder(tmp_path, fault):
    base = tiny(tie_word_embeddings=True)
    if fault == "another base":
        with torch.no_grad():
            base.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    if fault != "none":
        _, other = adapted(base, rank=3 if fault == "another rank" else 2)
        other.save(tmp_path / "adapter")
    if fault == "cut off":
        file = tmp_path / "adapter" / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-9])
    _, adapter = adapted(tiny(tie_word_embeddings=True))
    with pytest.raises(LearnerError, match=f"learner.set_reference: {tmp_path}/adapter must hold an adapter of"):
        adapter.read(tmp_path / "adapter")


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_activations_of_a_frozen_model_are_computed_again_with_the_same_gradients(tmp_path, products):
    tiny(tie_word_embeddings=True).save_pretrained(tmp_path)
    found = []
    for again in (False, True):
        language_model = load_language_model(tmp_path, dtype=torch.float32, attention="eager")
        model, adapter = adapted(language_model)
        if again:
            checkpoint_activations(language_model)
        predictions = model(BATCH.token_ids, BATCH.logit_positions, products)
        losses.cross_entropy(token_logprobs(predictions.logits, BATCH.actions, temperature=1.0)).backward()
        found.append([one.grad for one in adapter.trained().values()])
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_products_in_bfloat16_are_near_those_in_float32():
    model, _ = adapted(tiny(tie_word_embeddings=True))
    exact, rounded = (
        model(BATCH.token_ids, BATCH.logit_positions, products).logits.float().log_softmax(-1)
        for products in (torch.float32, torch.bfloat16)
    )
    apart = (exact - rounded).abs().max().item()
    assert 0 < apart < 0.2


def test_weights_of_zero_3_are_refused_by_name():
    with pytest.raises(ValueError, match="zero_stage 3 shards weights, but with lora_rank"):
        Learner(lora_rank=8, zero_stage=3)
    assert Learner(lora_rank=8).zero_stage == 2


def test_the_folder_says_which_layers_have_adapters(tmp_path):
    _, adapter = adapted(tiny(tie_word_embeddings=True))
    adapter.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    parts = {name.rpartition(".")[2] for name in config["target_modules"]}
    assert parts == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert (config["r"], config["lora_alpha"]) == (2, 4)
