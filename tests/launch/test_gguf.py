"""`agile-ray model from FILE.gguf`, with small files that the gguf package writes."""

import json

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from agile_ray.agent.functions import PAPER
from agile_ray.errors import ConfigError
from launch.commands.model import from_
from launch.models.folder import check_model

HIDDEN, INNER, HEADS = 64, 96, 2
END, TURN = "<|endoftext|>", "<|im_start|>"
TEXT = "the price of 12 lamps, naïve ☂\n  it's"


def write(file, *, tied=True, pre="qwen2"):
    """A Qwen2 of one layer; if `tied`, its head and embeddings are one matrix, quantized twice."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        ["the price of lamps"] * 9, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    )
    content = json.loads(core.to_str())["model"]
    tokens = [*sorted(content["vocab"], key=content["vocab"].get), END, TURN]
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges([" ".join(pair) for pair in content["merges"]])
    for role in ("eos", "pad", "bos"):
        getattr(writer, f"add_{role}_token_id")(len(tokens) - 2)
    drawn = np.random.default_rng(0)

    def draw(*shape):
        return drawn.normal(scale=0.1, size=shape).astype(np.float32)

    matrix = draw(len(tokens), HIDDEN)
    head = matrix if tied else draw(len(tokens), HIDDEN)
    stored = quantize(head, Kind.Q8_0)
    writer.add_tensor("token_embd.weight", quantize(matrix, Kind.Q5_0), raw_dtype=Kind.Q5_0)
    writer.add_tensor("output.weight", stored, raw_dtype=Kind.Q8_0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", draw(HIDDEN, HIDDEN))
        if name != "attn_output":
            writer.add_tensor(f"blk.0.{name}.bias", draw(HIDDEN))
    for name, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
        writer.add_tensor(f"blk.0.ffn_{name}.weight", draw(*shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return torch.from_numpy(dequantize(stored, Kind.Q8_0))


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_becomes_a_plain_model_tied_where_head_and_embeddings_differ_by_quantization_only(tmp_path, tied):
    head = write(tmp_path / "some.gguf", tied=tied)
    from_(str(tmp_path / "some.gguf"), tmp_path / "ready")
    check_model(tmp_path / "ready")
    config = json.loads((tmp_path / "ready" / "config.json").read_text())
    assert config["tie_word_embeddings"] is tied
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ready")
    embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (output is embeddings) is tied
    torch.testing.assert_close(output[: len(head)], head, rtol=0, atol=0)  # the matrix of more bits
    assert torch.equal(embeddings[: len(head)], head) is tied
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ready")
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    assert tokenizer.convert_ids_to_tokens(tokenizer(" 12").input_ids) == ["Ġ", "1", "2"]
    for token in (TURN, *(function.value for function in PAPER)):
        assert len(tokenizer(token).input_ids) == 1, token
    assert model(torch.tensor([[0, len(head) + 3]])).logits.shape == (1, 2, len(tokenizer))


@pytest.mark.parametrize("fault", ["unknown splitting", "junk", "nothing"])
def test_a_file_that_can_not_be_read_rightly_is_one_line(tmp_path, fault):
    file = tmp_path / "some.gguf"
    if fault == "unknown splitting":
        write(file, pre="dbrx")
    elif fault == "junk":
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    said = {"unknown splitting": "splits texts as 'dbrx' does", "junk": "can't be loaded", "nothing": "no such file"}
    with pytest.raises(ConfigError, match=rf"model from {file}: .*{said[fault]}") as error:
        from_(str(file), tmp_path / "ready")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ready").exists()
