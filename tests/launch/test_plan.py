"""`agile-ray plan`: its arithmetic against real models, the learners' own planner, and figures computed by hand."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import envs
from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Event, Line
from agile_ray.scripted.demonstrations import lessons
from launch.plan import duration, teacher
from launch.plan.batches import batches
from launch.plan.fit import fit
from launch.plan.lengths import Lengths, longest
from launch.plan.light_tokenizer import LightTokenizer
from launch.plan.machines import Actor, Node, actors_of, parse_shape, place
from launch.plan.memory import engine_memory, rank_memory
from launch.plan.network import read_network, shapes
from launch.plan.teacher import Teacher
from launch.run.shipped_configs import read
from learner.plan import plan as deal
from rollout.rules import build_rules
from tests.conftest import one_line
from tests.fakes.model_folder import encoder, write_model_folder

GIB = 2**30
DATA = Path(os.environ.get("AGILE_DATA", "data")).resolve() / "productqa"
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 301,
    "max_position_embeddings": 512,
}
LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49162,
    "tie_word_embeddings": True,
}
MIXED = "imitation.dtype=bfloat16 ppo.dtype=bfloat16"
HALF = "learner.dtype=bfloat16 rollout.dtype=bfloat16"
MEASURED = [
    ("", 5713),
    (MIXED, 5891),
    (HALF, 5370),
    ("learner.lora_rank=16", 2475),
    (f"{MIXED} learner.lora_rank=16", 3268),
    (f"{HALF} learner.zero_stage=2", 5243),
    ("learner.zero_stage=2", 5649),
    ("learner.gradient_checkpointing=true", 5678),
]
"""MiB that benchmarks/rank_memory.py printed for these settings, on CPUs with bfloat16 instructions."""
FAMILIES = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    ("mistral", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 24}),
    ("smollm3", {"pad_token_id": 0}),
    ("granite", {}),
    ("gemma", {"head_dim": 8}),
    ("gemma2", {"head_dim": 8}),
]


def folder(path, config):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def large(tmp_path):
    return read_network(folder(tmp_path / "large", LLAMA_8B))


def quickstart(*overrides):
    return read("quickstart", overrides)


@pytest.mark.parametrize(("kind", "changed"), FAMILIES, ids=lambda value: str(value))
def test_every_parameter_has_the_shape_that_the_real_model_has(tmp_path, kind, changed):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL | changed)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    written = json.loads(config.to_json_string())
    assert shapes(written, where=tmp_path) == expected
    network = read_network(folder(tmp_path / "model", written))
    assert network.parameters == sum(math.prod(shape) for shape in expected.values())
    assert network.tied == ("lm_head.weight" not in expected)


def test_the_parameters_that_lora_trains_are_those_of_the_real_adapter(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from agile_ray.agent.functions import Function
    from learner.lora import Adapter

    config = LlamaConfig(**SMALL | {"tie_word_embeddings": False})
    adapter = Adapter(LlamaForCausalLM(config), rank=5, token_ids=range(len(Function)))
    network = read_network(folder(tmp_path / "model", json.loads(config.to_json_string())))
    assert network.trained(5) == sum(parameter.numel() for parameter in adapter.trained().values())
    assert network.trained(None) == network.parameters


def test_a_known_large_model_has_its_published_number_of_parameters(large):
    assert large.parameters == 8_030_261_248
    assert large.cache_bytes(each=2) == 131_072  # 2 x 32 layers x 8 heads x 128 x 2 bytes


def test_weights_are_counted_before_config_json_is(tmp_path):
    model = write_model_folder(tmp_path / "model", **SMALL | {"model_type": "unheard_of"})
    assert read_network(model).parameters == 300 * 2 + 2
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="the parameters of a unheard_of are counted from its weights, found none"):
        read_network(model)


def test_a_tokenizer_needs_the_call_of_tools_only_for_tasks_that_have_them(tmp_path):
    folder = write_model_folder(tmp_path / "model")
    assert LightTokenizer(folder).function_id(Function.CALL_TOOL) == encoder().token_to_id("[CallTool]")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["content"] != "[CallTool]"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    light = LightTokenizer(folder)
    assert light.function_at(light.function_id(Function.SEEK_ADVICE)) is Function.SEEK_ADVICE
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text().replace("[SeekAdvice]", "[Seek]"))
    with pytest.raises(ConfigError, match=r"lacks the token '\[SeekAdvice\]'"):
        LightTokenizer(folder)


def test_batches_are_those_of_the_learners_planner():
    tokens = np.array([61, 70, 55, 90, 40, 66, 58], np.int64)
    config = quickstart("ppo.minibatches=3", "ppo.epochs=2", "loop.iterations=9", "loop.evaluate_every=4")
    found = batches(config, Lengths(tokens=tokens, action_share=0.5, rows_per_session=1.0, source="here"))
    assert (found.sessions, found.rows) == (32 * 12, 384)
    assert found.tokens == round(384 * tokens.mean())
    assert (found.steps, found.imitation_steps, found.validations) == (6, 1500, 3)
    assert found.all_steps == 1500 + 9 * 6
    dealt = deal(
        np.resize(tokens, 384), seed=0, minibatches=3, ranks=2, micro_batch_tokens=config.learner.micro_batch_tokens
    )
    assert found.micro_batches == max(len(one.by_rank[0]) for one in dealt)


@pytest.fixture
def few_questions(tmp_path):
    """ProductQA, one of whose categories has only its first questions."""
    shutil.copytree(DATA, tmp_path / "productqa", copy_function=os.symlink)
    file = tmp_path / "productqa" / "train" / "blades" / "qa.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.unlink()
    file.write_text("".join(lines[:40]))
    return tmp_path / "productqa"


def assert_imitation_has_the_steps_of_the_run(config, *, left_out):
    environment = envs.build(config.env, seed=config.seed)
    rules = build_rules(
        environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=config.seed
    )
    run = lessons(config.imitation, environment, rules, seed=config.seed, progress=lambda _: None)
    assert [*run.left_out] == left_out
    planned = batches(config, longest(config), imitation_rows=Teacher.of(config).rows())
    assert planned.imitation_steps == len(run.batches)
    assert planned.imitation_rows == sum(len(batch) for batch in run.batches)


@pytest.mark.parametrize(
    ("few", "tokens", "left_out"), [(1, 225, []), (99, 225, []), (99, 64, ["ran out of a budget"])]
)
def test_imitation_of_streams_that_never_end_has_the_steps_of_the_run(monkeypatch, few, tokens, left_out):
    monkeypatch.setattr(teacher, "FEW", few)
    words = [f"agent.session_tokens={tokens}", "imitation.sessions=70", "imitation.batch=3", "model.path=/nowhere"]
    assert_imitation_has_the_steps_of_the_run(quickstart(*words), left_out=left_out)


@pytest.mark.data
def test_imitation_of_questions_that_come_twice_has_the_steps_of_the_run(monkeypatch, few_questions):
    monkeypatch.setattr(teacher, "FEW", 1)
    words = [
        f"env.data={few_questions}", "env.categories.imitation=[blades]", "memory.embedder=hashed",
        "imitation.sessions=64", "imitation.search_rows=30", "imitation.batch=4", "model.path=/nowhere",
    ]  # fmt: skip
    assert_imitation_has_the_steps_of_the_run(
        read("productqa", words),
        left_out=["repeat a question whose answer is learned already", "search rows that would need more questions"],
    )


def test_a_step_of_very_many_rows_is_extrapolated():
    small = quickstart("ppo.minibatches=1", "loop.lanes=64", "loop.sessions_per_lane=64")
    large = quickstart("ppo.minibatches=1", "loop.lanes=2048", "loop.sessions_per_lane=64")
    lengths = Lengths(tokens=np.array([200], np.int64), action_share=0.5, rows_per_session=1.0, source="here")
    assert batches(large, lengths).micro_batches == pytest.approx(32 * batches(small, lengths).micro_batches, rel=0.05)


@pytest.mark.parametrize(("overrides", "measured_mib"), MEASURED, ids=lambda value: str(value))
def test_memory_of_a_rank_is_what_was_measured(tmp_path, overrides, measured_mib):
    network = read_network(folder(tmp_path / "smollm2", SMOLLM2))
    words = (
        "learner.ranks=1",
        "imitation.dtype=float32",
        "agent.session_tokens=512",
        "learner.micro_batch_tokens=1024",
    )
    config = quickstart(*words, *overrides.split())
    total = rank_memory(config, network, action_share=0.5).total
    assert total / 2**20 == pytest.approx(measured_mib, rel=0.15)


def test_memory_of_a_rank_is_sharded_as_zero_does_it(large):
    def rank(*overrides):
        return rank_memory(quickstart("learner.ranks=4", *overrides), large, action_share=0.5)

    count = large.parameters
    one, two, three = (rank(f"learner.zero_stage={stage}", "learner.dtype=bfloat16") for stage in (1, 2, 3))
    assert one.weights == pytest.approx(2 * count, rel=1e-3)
    assert three.weights == pytest.approx(2 * count / 4, rel=1e-3)
    assert one.optimizer == two.optimizer == three.optimizer == pytest.approx(12 * count / 4, rel=1e-3)
    assert one.gradients > 2 * count > two.gradients > count
    assert rank("learner.lora_rank=16").optimizer < one.optimizer / 100
    assert rank("learner.lora_rank=16").reference == 0
    assert rank("learner.gradient_checkpointing=true").activations < one.activations
    assert rank("learner.micro_batch_tokens=2048").activations == pytest.approx(rank().activations / 2, rel=0.01)


def test_the_cache_of_an_engine_is_what_its_share_of_the_gpu_leaves(large):
    config = quickstart("cluster.device=gpu", "rollout.dtype=bfloat16", "rollout.gpu_memory=0.5")
    one = engine_memory(config, large, gpu_bytes=80 * GIB)
    assert one.weights == 2 * large.parameters
    assert 20 * GIB < one.cache < 40 * GIB - one.weights
    assert one.cached_tokens == one.cache // 131_072
    both = quickstart("cluster.device=gpu", "rollout.dtype=bfloat16", "rollout.tensor_parallel=2")
    assert engine_memory(both, large, gpu_bytes=80 * GIB).cached_tokens > 2 * one.cached_tokens
    assert engine_memory(quickstart("rollout.kv_cache_gib=2"), large, gpu_bytes=None).cache == 2 * GIB


@pytest.mark.parametrize(
    ("shape", "nodes", "gpus", "cores", "gib"),
    [("2x8xH100-80", 2, 16, None, None), ("3x16xcpu-64", 3, 0, 48, 192), ("1x4xL4-24+2x8xcpu-32", 3, 4, 16, 64)],
)
def test_a_shape_is_read(shape, nodes, gpus, cores, gib):
    found = parse_shape(shape)
    assert (len(found), sum(node.gpus for node in found)) == (nodes, gpus)
    assert sum(node.cores or 0 for node in found) == (cores or 0)
    assert sum(node.memory_bytes or 0 for node in found) == (gib or 0) * GIB


@pytest.mark.parametrize("shape", ["", "8xH100", "0x8xH100-80", "2x8xH100", "2x8x-80", "2x8xH100-80+"])
def test_a_text_that_is_no_shape_is_refused(shape):
    with pytest.raises(ConfigError, match="a shape is NODESxCOUNTxKIND-GIB, such as 2x8xH100-80"):
        parse_shape(shape)


def test_actors_are_placed_where_they_find_room():
    nodes = (Node(name="a", gpus=2), Node(name="b", gpus=4))
    actors = [
        Actor(name="wide", gpus=4, memory_bytes=0),
        *(Actor(name=f"r{i}", gpus=1, memory_bytes=0) for i in range(3)),
    ]
    placed = place(actors, nodes, count_cores=True)
    assert placed.by_node == {"a": ("r0", "r1"), "b": ("wide",)}
    assert placed.left_out == ("r2",)
    tight = [Actor(name=f"r{i}", gpus=0, memory_bytes=3) for i in range(3)]
    assert place(tight, [Node(name="a", cores=1, memory_bytes=10)], count_cores=True).left_out == ("r1", "r2")
    assert place(tight, [Node(name="a", cores=1, memory_bytes=10)], count_cores=False).left_out == ()


def test_an_engine_and_a_rank_that_share_a_gpu_are_placed_together():
    pairs = quickstart("cluster.device=gpu", "cluster.colocate=true", "rollout.actors=2", "learner.ranks=2")
    actors = actors_of(pairs, rank_bytes=2, engine_bytes=1)
    placed = place(actors, [Node(name="a", gpus=2, cores=4)], count_cores=True)
    assert placed.by_node == {"a": ("engine-0 with rank-0", "engine-1 with rank-1")}
    assert place(actors, [Node(name="a", gpus=2, cores=3)], count_cores=True).left_out == ("engine-1 with rank-1",)
    assert place(actors, [Node(name="a", gpus=1)], count_cores=True).left_out == ("engine-1 with rank-1",)
    cpu = quickstart("cluster.colocate=true", "rollout.actors=2", "learner.ranks=2")
    assert [actor.memory_bytes for actor in actors_of(cpu, rank_bytes=2, engine_bytes=1)] == [3, 3]


GPU = ("cluster.device=gpu", "rollout.dtype=bfloat16", "learner.dtype=bfloat16")


def fitted(network, shape, *overrides):
    return fit(quickstart(*GPU, *overrides), network, parse_shape(shape), action_share=0.5)


START = ("learner.ranks=8", "rollout.actors=8", "learner.zero_stage=1")


def test_what_would_make_a_rank_fit_does_make_it_fit(large):
    found = fitted(large, "2x8xH100-80", *START)
    [problem] = found.problems
    assert problem.startswith("a learner rank takes ")
    changes = [words.split(" (")[0] for words in problem.partition(": ")[2].split("), ")]
    assert changes
    for change in changes if "one of these is enough" in problem else [changes]:
        more = (change,) if isinstance(change, str) else tuple(change)
        assert fitted(large, "3x8xH100-80", *START, *more).problems == ()


@pytest.mark.parametrize(
    ("shape", "overrides", "said"),
    [
        (
            "1x8xH100-80",
            ("learner.ranks=8", "rollout.actors=4", "learner.lora_rank=8"),
            "12 GPUs are needed, one for each of 8 ranks",
        ),
        (
            "4x1xH100-80",
            ("rollout.tensor_parallel=2", "learner.lora_rank=8"),
            "an engine needs 2 GPUs of one node, which has at most 1",
        ),
        (
            "1x8xH100-80",
            ("rollout.tensor_parallel=3", "learner.lora_rank=8"),
            "must divide the model's 32 heads; choose one of 1, 2, 4, 8",
        ),
        (
            "1x1xH100-80",
            ("cluster.colocate=true", "learner.ranks=2", "rollout.actors=2", "learner.lora_rank=8"),
            "2 GPUs are needed, one for each rank and its engine, found 1",
        ),
        ("1x8xT4-16", ("learner.lora_rank=8",), "an engine's weights take 15.0 GiB of each of its GPUs"),
        ("2x1xcpu-8", ("cluster.device=cpu",), "no room: 3 cores and "),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(large, shape, overrides, said):
    assert any(said in problem for problem in fitted(large, shape, *overrides).problems)


def test_a_cache_smaller_than_a_session_is_a_problem_and_one_smaller_than_all_lanes_a_note(large):
    nodes = parse_shape("1x16xcpu-2048")
    small = fit(quickstart("rollout.kv_cache_gib=0.01"), large, nodes, action_share=0.5)
    assert any("rollout.kv_cache_gib: the cache must hold a session of 225 tokens" in one for one in small.problems)
    full = fit(quickstart("rollout.kv_cache_gib=1"), large, nodes, action_share=0.5)
    assert full.problems == ()
    assert "holds 4096 tokens, 18 of its 32 seats" in full.warnings[0]


def line(event, **seconds):
    return Line(
        event=event,
        name="",
        imitation_steps=0,
        iteration=0,
        version=0,
        metrics={},
        counts={},
        dropped=(),
        seconds=seconds,
    )


def test_the_time_scales_with_what_each_phase_does():
    past = quickstart("loop.iterations=2", "loop.evaluate_every=1", "imitation.sessions=3200")
    history = [
        *(line(Event.IMITATION, imitate=2.0) for _ in range(100)),
        *(line(Event.ITERATION, collect=10.0, score=1.0, learn=4.0, publish=1.0) for _ in range(2)),
        *(line(Event.EVALUATION, validate=5.0) for _ in range(2)),
        line(Event.EVALUATION, evaluate=30.0, teach=40.0),
    ]
    planned = quickstart("loop.iterations=6", "loop.sessions_per_lane=24", "loop.evaluate_every=3")
    lengths = longest(past)
    found = duration.estimate(planned, batches(planned, lengths), past, batches(past, lengths), history)
    assert found.teacher == 40 * 48000 / 3200
    assert found.imitation == pytest.approx(200 * 15)
    assert found.ppo == pytest.approx(15 * 2 * 3 * 2 + 1 * 2 * 3)
    assert found.validation == pytest.approx(10)
    assert found.evaluation == 30
    assert found.total == found.teacher + found.imitation + found.ppo + found.validation + found.evaluation


def test_a_plan_is_printed_and_starts_nothing(call, tmp_path):
    model = write_model_folder(tmp_path / "model", **SMALL)
    code, out, err = call("plan", "quickstart", f"model.path={model}", "--cluster", "1x16xcpu-64")
    assert (code, err) == (0, "")
    lines = dict(row.split(None, 1) for row in out.splitlines())
    assert lines["machines"] == "1 x (16 cores, 64 GiB of memory)"
    assert lines["placement"] == "node-0: engine-0, rank-0, rank-1"
    assert lines["iteration"].startswith("384 sessions (32 lanes x 12), 384 rows, ")
    assert "96 sessions of the teacher, played here" in lines["lengths"]
    assert lines["imitation"] == "48000 sessions, 1500 optimizer steps of 32"
    assert lines["fits"] == "yes"


def test_a_plan_of_a_sweep_lists_its_runs_and_one_that_does_not_fit_ends_with_code_2(call, tmp_path):
    model = write_model_folder(tmp_path / "model", **SMALL)
    words = (f"model.path={model}", f"run.folder={tmp_path}", "cluster.device=gpu", "rollout.dtype=bfloat16")
    code, out, err = call("plan", "prices", *words)
    assert code == 2
    assert "sweep       9 runs, 0 finished, 9 left; 3 different imitations" in out
    assert "plan prices: it does not fit: engine-0 and 1 more find no room: 2 GPUs are needed" in one_line(err)


def test_lengths_and_time_come_from_a_finished_run(call, tmp_path):
    model = write_model_folder(tmp_path / "model", **SMALL)
    config = read("quickstart", [f"run.folder={tmp_path}", f"model.path={model}", "loop.iterations=2"])
    run = RunFolder.of(config)
    run.path.mkdir()
    run.config.write_text(config.yaml())
    metrics = {"rows": 380.0, "sessions": 380.0, "tokens_per_session": 77.0, "actions_per_session": 33.0}
    rows = [
        {"event": "imitation", "seconds": {"imitate": 3.0}, "metrics": {}},
        {"event": "iteration", "iteration": 1, "seconds": {"collect": 60.0, "learn": 60.0}, "metrics": metrics},
    ]
    blank = {"name": "", "imitation_steps": 0, "iteration": 0, "version": 0, "counts": {}, "dropped": []}
    run.history.write_text("".join(json.dumps(blank | row) + "\n" for row in rows))
    words = ("plan", "quickstart", f"model.path={model}", "--like", run.path)
    code, _, err = call(*words)
    assert code == 2
    assert "the folder of a finished run is needed" in one_line(err)
    run.report.write_text("{}")
    code, out, _ = call(*words)
    assert code == 0
    assert f"lengths     77 tokens a row, at most 77: iteration 1 of {run.path}" in out
    assert "PPO 56 min" in out  # 28 iterations of two minutes
