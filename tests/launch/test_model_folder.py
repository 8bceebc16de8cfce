"""What is refused of a model folder before anything starts, from small files and headers alone."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from agile_ray.errors import ConfigError
from agile_ray.record.folder import CheckpointFolder, RunFolder
from launch.models.folder import check_model, check_same_tokenizer
from launch.run.preflight import check_engines, check_resumed
from launch.run.shipped_configs import read
from rollout.weights.files import INDEX, SINGLE, weight_shapes
from tests.fakes.model_folder import write_model_folder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture
def folder(tmp_path):
    return write_model_folder(tmp_path / "model")


def shard(folder, *, also=()):
    """Split the weights into two files; the index also lists other names, in the second."""
    (folder / SINGLE).unlink()
    save_file(
        {"model.embed_tokens.weight": np.zeros((300, 2), np.float32)}, folder / "model-00001-of-00002.safetensors"
    )
    save_file({"model.norm.weight": np.ones(2, np.float32)}, folder / "model-00002-of-00002.safetensors")
    listed = {"model.embed_tokens.weight": 1} | dict.fromkeys(("model.norm.weight", *also), 2)
    names = {name: f"model-0000{number}-of-00002.safetensors" for name, number in listed.items()}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


def change(folder, file, **values):
    """Set keys of a JSON file."""
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | values))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_whole_folder_passes_in_one_file_and_in_shards(folder):
    check_model(folder, session_tokens=2047)
    whole = weight_shapes(folder)
    shard(folder)
    check_model(folder, session_tokens=2047)
    assert weight_shapes(folder) == whole == {"model.embed_tokens.weight": (300, 2), "model.norm.weight": (2,)}


SHARD = "model-00002-of-00002.safetensors"
SPOILT = {
    "no shard": (lambda f: [shard(f), (f / SHARD).unlink()], f"{SHARD} is missing"),
    "a shard is a pointer": (lambda f: [shard(f), (f / SHARD).write_text(POINTER)], "git lfs pull"),
    "a shard is cut": (lambda f: [shard(f), cut(f / SHARD)], f"{SHARD} is no complete safetensors file"),
    "a listed weight is nowhere": (
        lambda f: shard(f, also=["lm_head.weight"]),
        "lacks? .*lm_head.weight|lm_head.weight",
    ),
    "an index without weights": (lambda f: [shard(f), (f / INDEX).write_text("{}")], "lists no weights"),
    "an index that is a pointer": (lambda f: [shard(f), (f / INDEX).write_text(POINTER)], "git lfs pull"),
    "no index": (lambda f: [shard(f), (f / INDEX).unlink()], f"neither {SINGLE} nor {INDEX}"),
    "weights twice": (lambda f: (f / INDEX).write_text("{}"), "weights twice"),
    "cut": (lambda f: cut(f / SINGLE), "no complete safetensors file"),
    "empty": (lambda f: (f / SINGLE).write_bytes(b""), "no complete safetensors file"),
    "a config of no object": (lambda f: (f / "config.json").write_text("[]"), "must hold a JSON object"),
    "a config that is cut": (lambda f: cut(f / "config.json"), "config.json is not readable JSON"),
    "a config without type": (lambda f: (f / "config.json").write_text("{}"), "no model_type"),
    "an encoder": (
        lambda f: change(f, "config.json", architectures=["RobertaForMaskedLM"]),
        "causal .*RobertaForMaskedLM",
    ),
    "a translator": (lambda f: change(f, "config.json", is_encoder_decoder=True), "must be a causal language model"),
    "experts": (lambda f: change(f, "config.json", text_config={"n_routed_experts": 64}), "n_routed_experts 64"),
    "a tokenizer that is a pointer": (lambda f: (f / "tokenizer.json").write_text(POINTER), "git lfs pull"),
    "another tokenizer's embeddings": (
        lambda f: save_file({"model.embed_tokens.weight": np.zeros((200, 2), np.float32)}, f / SINGLE),
        "embeddings of 200 tokens",
    ),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_folder_is_refused_in_a_line_that_says_why(folder, spoil):
    do, said = SPOILT[spoil]
    do(folder)
    with pytest.raises(ConfigError, match=said):
        check_model(folder)


@pytest.mark.parametrize(
    "config",
    [{"max_position_embeddings": 512}, {"n_positions": 512}, {"text_config": {"max_position_embeddings": 512}}],
)
def test_sessions_must_be_shorter_than_the_models_positions(tmp_path, config):
    folder = write_model_folder(tmp_path / "m", **config)
    check_model(folder, session_tokens=511)
    with pytest.raises(ConfigError, match=r"agent.session_tokens \(512\) reaches the model's limit of 512"):
        check_model(folder, session_tokens=512)


def tokenizer_change(part):
    def swap(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return {
        "model": swap,
        "normalizer": lambda folder: change(folder, "tokenizer.json", normalizer={"type": "Lowercase"}),
        "eos_token": lambda folder: change(folder, "tokenizer_config.json", eos_token="<s>"),
    }[part]


@pytest.mark.parametrize("part", ["model", "normalizer", "eos_token"])
@pytest.mark.parametrize("kept", ["sft", "checkpoints/imitation-00200", "checkpoints/iteration-00004"])
def test_a_run_resumes_with_the_tokenizer_it_began_with_only(tmp_path, part, kept):
    config = read("quickstart", [f"model.path={tmp_path / 'model'}", f"run.folder={tmp_path / 'runs'}"])
    write_model_folder(config.model.path)
    checkpoint = write_model_folder(RunFolder.of(config).path / kept)
    (checkpoint / "resume").mkdir()
    (checkpoint / "resume" / "state.json").write_text("{}")
    check_resumed(config)
    tokenizer_change(part)(config.model.path)
    with pytest.raises(ConfigError, match=f"tokenizer in .*{kept}, and the one in .* has another {part}"):
        check_resumed(config)


def test_a_tokenizer_that_is_only_laid_out_otherwise_is_the_same(folder, tmp_path):
    other = write_model_folder(tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    content["truncation"] = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (other / "tokenizer.json").write_text(json.dumps(dict(reversed(content.items())), indent=1))
    change(other, "tokenizer_config.json", eos_token="</s>", model_max_length=8)
    check_same_tokenizer(folder, other)


@pytest.mark.parametrize(
    ("value", "said"),
    [({"hidden_size": 4}, "hidden_size 4, not 2;"), ({"rope": {"theta": 1.0}}, "rope {'theta': 1.0}")],
)
def test_a_run_does_not_resume_with_another_network(tmp_path, value, said):
    began = {"hidden_size": 2, "rope": {"theta": 1e4}, "transformers_version": "5.0", "dtype": "float32"}
    config = read("quickstart", [f"run.folder={tmp_path}", "run.name=r", f"model.path={tmp_path / 'model'}"])
    folder, run = write_model_folder(tmp_path / "model", **began), RunFolder.of(config)
    write_model_folder(run.sft.path, **began)
    broken = CheckpointFolder(run.checkpoints / "iteration-00002")
    shutil.copytree(folder, broken.path)
    broken.learners.mkdir(parents=True)
    broken.state.touch()
    (broken.path / "config.json").write_text("")  # it is skipped, so that it is not compared
    change(folder, "config.json", transformers_version="6.1", dtype="bfloat16", new_key=1)
    check_resumed(config)
    change(folder, "config.json", **value)
    with pytest.raises(ConfigError, match=rf"^model\.path: the run began with .*/r/sft, .* has {re.escape(said)}"):
        check_resumed(config)


def test_engines_on_a_gpu_must_compute_in_bfloat16():
    check_engines(read("quickstart", []))
    check_engines(read("quickstart", ["cluster.device=gpu", "rollout.dtype=bfloat16"]))
    with pytest.raises(ConfigError, match=r"^rollout\.dtype: .* found float32; set rollout\.dtype=bfloat16"):
        check_engines(read("quickstart", ["cluster.device=gpu"]))
