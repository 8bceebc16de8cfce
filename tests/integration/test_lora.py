"""LoRA on real Ray and DeepSpeed: ranks agree, a run resumes to the bit, and a small training ends and is replayed."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from agile_ray.errors import LearnerError
from agile_ray.types import Float32
from learner.group import LearnerGroup
from tests.integration.conftest import BIN, environment
from tests.integration.test_learner import demonstrations, distance, fetch, folder, group, rows, segments

__all__ = ["folder"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

LORA = {"lora_rank": 4, "micro_batch_tokens": 64}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=24, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def imitated(learners: LearnerGroup) -> None:
    for step in range(3):
        learners.imitate(demonstrations(20, step), step=step, steps=10)


def learned(learners: LearnerGroup) -> dict[str, Float32]:
    learners.learn(rows(learners, segments(20, 9)), seed=1, progress=0.0)
    return fetch(learners.publish(2))


@pytest.mark.long
def test_adapters_learn_alike_on_any_number_of_ranks_and_resume_to_the_bit(folder: Path, tmp_path: Path):
    sft, state, later = (tmp_path / name for name in ("sft", "state", "later"))
    for path in (sft, state, later):
        path.mkdir()
    with group(folder, ranks=1, **LORA) as learners:
        start = fetch(learners.publish(0))
        imitated(learners)
        one = fetch(learners.publish(1))
        assert distance(start, one) > 1e-4
        learners.export(sft)
        learners.set_reference(sft)
        for row in rows(learners, segments(20, 9)):
            np.testing.assert_array_equal(row.scores.logprobs, row.scores.reference_logprobs)
        learners.save(state)
        first = learned(learners)
        assert distance(one, first) > 1e-4
        learners.save(later)
        second = learned(learners)
    frozen = {name for name in start if "embed" not in name and "head" not in name and "proj" not in name}
    assert frozen
    assert all(np.array_equal(start[name], second[name]) for name in frozen)
    written = sum(file.stat().st_size for file in state.rglob("*"))
    assert written < 40 * sum(one.size for one in start.values()) / 4  # much less than weights, gradients and moments
    with group(folder, ranks=1, **LORA) as learners:
        learners.set_reference(sft)
        learners.load(state)
        assert distance(learned(learners), first) == 0
        learners.load(later)
        assert distance(learned(learners), second) == 0
    settings = {"ranks": 2, "zero_stage": 2, "gradient_checkpointing": True}
    with group(folder, **LORA, **settings) as learners:
        imitated(learners)
        assert distance(fetch(learners.publish(1)), one) < 1e-5
        learners.set_reference(sft)
        assert distance(learned(learners), first) < 1e-5
    with group(sft, ranks=1, **LORA) as learners, pytest.raises(LearnerError, match=r"weights in model\.path"):
        learners.load(state)


@pytest.mark.long
def test_a_small_training_ends_and_is_replayed(tmp_path: Path):
    model = tmp_path / "model"
    words = {
        "agile-ray model tiny": ("--hidden", "64", "--layers", "2", "--output", str(model)),
        "agile-ray train quickstart": (
            *("run.name=lora", f"run.folder={tmp_path}", f"model.path={model}", "rollout.kv_cache_gib=0.25"),
            *("learner.lora_rank=4", "learner.ranks=1", "ppo.dtype=bfloat16", "rollout.dtype=bfloat16"),
            *("agent.turns=4", "imitation.sessions=64", "imitation.batch=16", "loop.lanes=4"),
            *("loop.sessions_per_lane=4", "loop.iterations=2", "loop.evaluate_every=2", "evaluate.sessions=24"),
            *("ppo.minibatches=2", "evaluate.validation_sessions=24"),
        ),
        "agile-ray replay": (str(tmp_path / "lora"),),
    }
    for command, more in words.items():
        name, *first = command.split()
        done = subprocess.run(
            [str(BIN / name), *first, *more], capture_output=True, text=True, env=environment(), check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "lora" / "report.json").is_file()
    adapter = tmp_path / "lora" / "sft" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
    assert not list((tmp_path / "lora" / "sft" / "resume").rglob("*.safetensors"))
