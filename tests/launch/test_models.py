"""The folders that `agile-ray model` writes: complete, plain Hugging Face folders with the function tokens."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
)

import envs
from agile_ray.agent.functions import PAPER
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from envs import build
from launch.commands.model import from_, tiny, write
from launch.models.folder import check_model
from launch.models.written import save
from tests.conftest import one_line

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "env": "shop",
    "data": None,
    "config": None,
    "hidden": 32,
    "layers": 1,
    "vocabulary": 2048,
    "context": 512,
    "seed": 0,
}


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
    ids = [tokenizer.convert_tokens_to_ids(function.value) for function in PAPER]
    assert len(set(ids)) == len(PAPER)
    assert [token for token in tokenizer("so [SeekAdvice] now [Search]").input_ids if token in ids] == [
        tokenizer.convert_tokens_to_ids("[SeekAdvice]"),
        tokenizer.convert_tokens_to_ids("[Search]"),
    ]
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *ids}) == 3 + len(PAPER)


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


def test_tiny_takes_the_environment_of_a_config(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text("base: productqa\nenv: {categories: {train: [mice], validation: [litter]}}\n")
    built = []

    def build(section, *, seed):
        built.append(section)
        raise ConfigError("seen")

    monkeypatch.setattr(envs, "build", build)
    for words in ({"env": None, "data": tmp_path, "config": str(path)}, {"env": None}, {"env": "recurring"}):
        with pytest.raises(ConfigError, match="seen"):
            tiny(tmp_path / "none", **{**SMALL, **words})
    mine, default, recurring = built
    assert (mine.name, mine.data, mine.categories["train"]) == ("productqa", tmp_path, ("mice",))
    assert mine.categories["validation"] == ("litter",)  # which the file replaces
    assert mine.categories["test"] == ("all_pans", "camera_cases", "leggings")
    assert (default.name, recurring.name) == ("shop", "recurring")


def test_tiny_refuses_an_environment_beside_a_config(call, tmp_path):
    words = ("--env", "shop", "--config", "quickstart", "--output", tmp_path / "m")
    code, _, err = call("model", "tiny", *words)
    assert code == 2
    assert "--config: quickstart names its environment, found --env shop; give one of the two" in one_line(err)


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
    before = folder.stat().st_ino
    tiny(folder, **SMALL)
    assert folder.stat().st_ino == before
    assert "is there already" in capsys.readouterr().out
    tiny(folder, **SMALL, force=True)
    assert folder.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def never():
    raise AssertionError("the model is made only where it can be written")


@pytest.mark.parametrize("others", ["notes.txt", "adapter/weights", "resume/state.json"])
def test_force_spares_what_the_command_did_not_write(tiny_folder, tmp_path, others):
    folder = tmp_path / "m"
    shutil.copytree(tiny_folder, folder)
    (folder / others).parent.mkdir(exist_ok=True)
    (folder / others).write_text("mine")
    with pytest.raises(ConfigError, match=f"--force would delete {others.split('/')[0]}"):
        write(folder, never, force=True)
    assert (folder / others).read_text() == "mine"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("made", ["folder", "file", "a trained model", "link to a folder"])
def test_what_is_no_model_of_this_command_is_spared_and_force_is_not_advised(tiny_folder, tmp_path, made, force):
    path, kept = tmp_path / "x", tmp_path / "x" / "thesis.tex"
    if made == "file":
        path.write_text("mine")
        kept = path
    elif made == "a trained model":
        shutil.copytree(tiny_folder, path, ignore=shutil.ignore_patterns(".*"))  # as checkpoints are
        kept = path / "model.safetensors"
    else:
        (tmp_path / "real").mkdir()
        path.symlink_to("real") if made == "link to a folder" else (tmp_path / "real").rename(path)
        kept.write_text("mine")
    before = kept.read_bytes()
    if made == "a trained model" and not force:
        write(path, never, force=False)
    else:
        with pytest.raises(ConfigError) as refused:
            write(path, never, force=force)
        assert "add --force" not in str(refused.value)
    assert kept.read_bytes() == before


def test_force_on_a_link_replaces_the_model_that_it_points_to(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "big")
    (tmp_path / "link").symlink_to("big")
    tiny(tmp_path / "link", **SMALL | {"layers": 2}, force=True)
    assert (tmp_path / "link").readlink() == Path("big")
    assert json.loads((tmp_path / "big" / "config.json").read_text())["num_hidden_layers"] == 2


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "m").mkdir()
    tiny(tmp_path / "m", **SMALL)
    check_model(tmp_path / "m")


@pytest.mark.parametrize("output", ["file/x", "/proc/x"])
def test_where_nothing_can_be_written_is_one_line_before_the_model_is_made(tmp_path, output):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="no model can be written there"):
        write(tmp_path / output, never, force=False)


def test_from_adds_missing_tokens_with_the_mean_of_the_trained_embeddings(foreign_folder, tmp_path):
    from_(str(foreign_folder), tmp_path / "ready")
    check_model(tmp_path / "ready")
    before = AutoModelForCausalLM.from_pretrained(foreign_folder).get_input_embeddings().weight
    old = len(AutoTokenizer.from_pretrained(foreign_folder))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ready")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ready")
    weight = model.get_input_embeddings().weight
    assert len(tokenizer) == old + len(PAPER) + 1  # and <bos>
    assert weight.shape[0] == len(tokenizer)
    assert torch.equal(weight[:old], before[:old])
    assert torch.allclose(weight[old:], before[:old].mean(dim=0), atol=1e-7)
    assert model.get_output_embeddings().weight is weight
    assert tokenizer.bos_token_id not in (None, tokenizer.eos_token_id)
    assert json.loads((tmp_path / "ready" / "config.json").read_text())["bos_token_id"] == tokenizer.bos_token_id


def test_from_keeps_the_weights_if_no_token_is_missing(tiny_folder, tmp_path):
    from_(str(tiny_folder), tmp_path / "same")
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (tiny_folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "sampling",
    [
        {"do_sample": False, "temperature": 0.2, "top_k": 5},
        {"do_sample": True, "top_p": 0.8, "repetition_penalty": 1.3, "eos_token_id": [0, 7]},
    ],
)
def test_from_takes_a_model_whatever_its_generation_config_says_and_leaves_it_out(foreign_folder, tmp_path, sampling):
    shutil.copytree(foreign_folder, tmp_path / "source")
    (tmp_path / "source" / "generation_config.json").write_text(json.dumps(sampling))
    from_(str(tmp_path / "source"), tmp_path / "ready")
    kept = json.loads((tmp_path / "ready" / "generation_config.json").read_text())
    assert set(kept) == {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}
    assert kept["eos_token_id"] == 0


def refused(source, tmp_path):
    """The line that refuses a source; nothing is written."""
    with pytest.raises(ConfigError) as error:
        from_(str(source), tmp_path / "ready")
    assert not (tmp_path / "ready").exists()
    return str(error.value)


@pytest.fixture
def other_model(foreign_folder, tmp_path):
    """Save another model beside the foreign tokenizer."""

    def save(model):
        folder = tmp_path / "source"
        shutil.copytree(foreign_folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        model.save_pretrained(folder)
        return folder

    return save


ENCODER = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def test_from_refuses_an_encoder(other_model, tmp_path):
    torch.manual_seed(0)
    source = other_model(BertLMHeadModel(BertConfig(**ENCODER)))  # it has every weight of a causal model
    assert "earlier tokens only, found a BertLMHeadModel" in refused(source, tmp_path)


def test_from_refuses_a_model_without_a_trained_head(other_model, tmp_path):
    source = other_model(LlamaModel(LlamaConfig(**ENCODER)))
    assert "1 weights of a causal language model are missing (lm_head.weight" in refused(source, tmp_path)


@pytest.mark.parametrize("family", ["olmoe", "granitemoe", "deepseek_v3"])
def test_from_refuses_experts(other_model, tmp_path, family):
    config = AutoConfig.for_model(family)
    (folder := other_model(LlamaModel(LlamaConfig(**ENCODER)))).joinpath("config.json").unlink()
    config.save_pretrained(folder)
    assert "mixture of experts" in refused(folder, tmp_path)


def test_a_model_whose_files_name_its_weights_otherwise_is_refused(tmp_path, foreign_folder):
    model = AutoModelForCausalLM.from_pretrained(foreign_folder)
    tokenizer = AutoTokenizer.from_pretrained(foreign_folder)
    model.save_pretrained = lambda folder: (
        save_file({"renamed.weight": torch.zeros(2)}, folder / "model.safetensors"),
        model.config.save_pretrained(folder),
    )
    with pytest.raises(ConfigError, match="have other names in memory than in its files"):
        save(model, tokenizer, tmp_path)


def test_from_refuses_unused_ids_that_are_in_the_way(foreign_folder, tmp_path):
    shutil.copytree(foreign_folder, tmp_path / "source")
    file = tmp_path / "source" / "tokenizer.json"
    content = json.loads(file.read_text())
    piece = next(piece for piece, number in content["model"]["vocab"].items() if number == 100)
    del content["model"]["vocab"][piece]
    file.write_text(json.dumps(content))
    assert "would take the id of another token" in refused(tmp_path / "source", tmp_path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "tokenizer.model"])
def test_from_refuses_a_git_lfs_pointer_by_name(foreign_folder, tmp_path, weights):
    shutil.copytree(foreign_folder, tmp_path / "source")
    (tmp_path / "source" / weights).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    assert f"{weights} is not there; it is a Git LFS pointer" in refused(tmp_path / "source", tmp_path)


@pytest.mark.parametrize("content", ["", "{", "junk"])
def test_from_refuses_weights_that_can_not_be_read(foreign_folder, tmp_path, content):
    shutil.copytree(foreign_folder, tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").write_text(content)
    assert "can't be loaded as a causal language model" in refused(tmp_path / "source", tmp_path)


@pytest.mark.parametrize(
    "source",
    ["nobody/nothing-0.6B", *(pytest.param(name, marks=pytest.mark.long) for name in ("./no/such/folder", "nowhere"))],
)
def test_from_an_id_without_network_is_one_line_soon(tmp_path, source):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    words = ["-m", "launch.main", "model", "from", source, "--output", str(tmp_path / "m")]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=110, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"model from {source}: it is no folder here" in done.stderr
