"""The folders that `agile-ray model` writes: complete, plain Hugging Face folders with the function tokens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agile_ray.agent.functions import Function
from agile_ray.config import Env
from envs import build
from launch.commands.model import from_, tiny
from launch.run.preflight import check_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"env": "shop", "data": None, "hidden": 32, "layers": 1, "vocabulary": 2048, "context": 512, "seed": 0}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny(folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory):
    """A model from elsewhere: no function tokens, no BOS, no PAD, padded and tied embeddings."""
    folder = tmp_path_factory.mktemp("models") / "foreign"
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(["some words"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer) + 5, tie_word_embeddings=True, eos_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_tiny_gives_every_function_one_token_of_its_own(tiny_folder):
    check_model(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ids = [tokenizer.convert_tokens_to_ids(function.value) for function in Function]
    assert len(set(ids)) == len(Function)
    assert [token for token in tokenizer("so [SeekAdvice] now [Search]").input_ids if token in ids] == [
        tokenizer.convert_tokens_to_ids("[SeekAdvice]"),
        tokenizer.convert_tokens_to_ids("[Search]"),
    ]
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *ids}) == 3 + len(Function)


def test_tiny_reads_and_writes_any_text_without_loss(tiny_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for text in ("which lamp costs 45.50 ?\n", "  SELECT id FROM `x` WHERE a = 'b'", "naïve ☂ 东京"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_tiny_knows_the_words_of_its_environment_and_splits_numbers_into_digits(tiny_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    texts = build(Env(name="shop"), seed=1).texts()[:400]
    words = {word for text in texts for word in text.split() if word.isalpha()}
    assert {word for word in words if min(len(tokenizer(space + word).input_ids) for space in ("", " ")) > 1} == set()
    assert tokenizer.convert_ids_to_tokens(tokenizer(" 407").input_ids) == ["Ġ4", "0", "7"]


def test_tiny_loads_as_a_plain_model_of_its_vocabulary(tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    size = len(AutoTokenizer.from_pretrained(tiny_folder))
    assert model.dtype == torch.float32
    assert model.config.max_position_embeddings == 512
    assert model(torch.tensor([[0, 5]])).logits.shape == (1, 2, size)
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight


def test_tiny_starts_with_attention_that_finds_and_copies_similar_tokens(tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    for layer in model.model.layers:
        q, k, v, o = (getattr(layer.self_attn, f"{name}_proj").weight.flatten() for name in "qkvo")
        mirror = layer.self_attn.v_proj.weight.T.flatten()
        for one, other in ((q, k), (o, mirror)):
            assert torch.corrcoef(torch.stack([one, other]))[0, 1].item() == pytest.approx(0.5**0.5, abs=0.05)
            assert one.std().item() == pytest.approx(other.std().item(), rel=0.05)
        assert torch.corrcoef(torch.stack([q, v]))[0, 1].item() == pytest.approx(0.0, abs=0.05)


def test_tiny_is_the_same_for_the_same_seed(tiny_folder, tmp_path):
    tiny(tmp_path / "again", **SMALL)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tiny_folder / name).read_bytes()


@pytest.mark.integration
def test_tiny_prints_one_line_about_the_model(tmp_path):
    words = ["-m", "launch.main", "model", "tiny", "--hidden", "32", "--layers", "1", "--output", str(tmp_path / "m")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=110, check=True, cwd=ROOT)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)


def test_a_complete_folder_is_kept_unless_forced(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "m"
    tiny(folder, **SMALL)
    (folder / "note").write_text("mine")
    tiny(folder, **SMALL)
    assert (folder / "note").exists()
    assert "is there already" in capsys.readouterr().out
    tiny(folder, **SMALL, force=True)
    assert not (folder / "note").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_from_adds_missing_tokens_with_the_mean_of_the_trained_embeddings(foreign_folder, tmp_path):
    from_(str(foreign_folder), tmp_path / "ready")
    check_model(tmp_path / "ready")
    before = AutoModelForCausalLM.from_pretrained(foreign_folder).get_input_embeddings().weight
    old = len(AutoTokenizer.from_pretrained(foreign_folder))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ready")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ready")
    weight = model.get_input_embeddings().weight
    assert len(tokenizer) == old + len(Function) + 1  # and <bos>
    assert weight.shape[0] == len(tokenizer)
    assert torch.equal(weight[:old], before[:old])
    assert torch.allclose(weight[old:], before[:old].mean(dim=0), atol=1e-7)
    assert model.get_output_embeddings().weight is weight
    assert tokenizer.bos_token_id not in (None, tokenizer.eos_token_id)
    assert json.loads((tmp_path / "ready" / "config.json").read_text())["bos_token_id"] == tokenizer.bos_token_id


def test_from_keeps_the_weights_if_no_token_is_missing(tiny_folder, tmp_path):
    from_(str(tiny_folder), tmp_path / "same")
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (tiny_folder / "model.safetensors").read_bytes()
