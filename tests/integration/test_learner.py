"""Learner ranks on real Ray and DeepSpeed: the update does not depend on how the work is split."""

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from agile_ray.config import PPO, Cluster, Imitation, Learner, Rollout
from agile_ray.errors import ConfigError, DeadlineError, LearnerError
from agile_ray.record import metrics
from agile_ray.types import Demonstration, Float32, Segment, TokenScores, TrainingRow, Update
from agile_ray.weights import WeightsRef
from learner.engine import is_fast_in_bfloat16
from learner.group import LearnerGroup
from tests.fakes.parts_contract import check_learners
from tests.fakes.worlds import changed

pytestmark = pytest.mark.integration
LONG = pytest.mark.long
SPLIT = {"ranks": 2, "zero_stage": 3, "micro_batch_tokens": 64, "gradient_checkpointing": True}
"""The settings that are furthest from one rank that does it all."""

VOCABULARY = 64
PROBE = np.arange(3, 12, dtype=np.int32)
MODEL = f"""
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(vocab_size={VOCABULARY}, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                     num_attention_heads=2, tie_word_embeddings=True)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""
LOGPROBS = """
import sys, json, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = torch.tensor(json.loads(sys.argv[2]))
logprobs = torch.log_softmax(model(ids[None]).logits[0, :-1], -1)
print(json.dumps(logprobs.gather(-1, ids[1:, None])[:, 0].tolist()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with tied embeddings, and a file in place of its tokenizer."""
    path = tmp_path_factory.mktemp("llama")
    subprocess.run([sys.executable, "-c", MODEL, str(path)], check=True, capture_output=True)
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=24, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


PPO_SETTINGS = PPO(
    learning_rate=1e-3,
    epochs=2,
    minibatches=2,
    entropy_coefficient=0.01,
    adaptive_kl_target=0.01,
    value_coefficient=0.5,  # random segments have no values to learn
    update_kl_coefficient=0.0,
)


IMITATION_SETTINGS = Imitation(sessions=60, batch=20)


@contextmanager
def group(
    folder: Path, *, imitation_dtype: str = "float32", deadline_s: float = 300.0, **settings: object
) -> Iterator[LearnerGroup]:
    """Learners whose ranks end with the block."""
    learners = LearnerGroup(
        folder,
        learner=Learner.model_validate({"zero_stage": 1, **settings}),
        ppo=PPO_SETTINGS,
        imitation=IMITATION_SETTINGS.model_copy(update={"dtype": imitation_dtype}),
        rollout=Rollout(temperature=0.8),
        cluster=Cluster(deadline_s=deadline_s),
        function_ids=range(8),
        probes=[PROBE],
        seed=0,
    )
    try:
        yield learners
    finally:
        learners.shutdown()


Begin = Callable[..., LearnerGroup]
"""Takes a PPO section and settings of the learner section."""


@pytest.fixture(scope="module")
def begin(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """Learners with initial weights: ranks with the same settings start once and load the weights for each test."""
    started: dict[str, tuple[LearnerGroup, Path]] = {}
    with ExitStack() as stack:

        def begin(ppo: PPO = PPO_SETTINGS, **settings: object) -> LearnerGroup:
            key = json.dumps(settings, sort_keys=True)
            if key not in started:
                learners = stack.enter_context(group(folder, **settings))
                beginning = tmp_path_factory.mktemp("beginning")
                learners.save(beginning)
                started[key] = learners, beginning
            learners, beginning = started[key]
            learners.reopen(ppo=ppo, imitation=IMITATION_SETTINGS)
            learners.load(beginning)
            return learners

        yield begin


def segments(count: int, seed: int) -> list[Segment]:
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        tokens = int(draw.integers(6, 30))
        mask = draw.random(tokens) < 0.4
        mask[0], mask[-1] = False, True
        found.append(
            Segment(
                stream=f"stream{number // 5}",
                position=number % 5,
                index=0,
                token_ids=draw.integers(0, VOCABULARY, tokens).astype(np.int32),
                action_mask=mask,
                turn_ids=np.where(mask, 0, -1).astype(np.int32),
                behavior_logprobs=np.where(mask, -4.2, 0).astype(np.float32),
                versions=np.where(mask, 0, -1).astype(np.int32),
                rewards=np.where(mask, draw.normal(size=tokens), 0).astype(np.float32),
                ask_probabilities=np.full(tokens, np.nan, np.float32),
                last=True,
            )
        )
    return found


def demonstrations(count: int, seed: int) -> list[Demonstration]:
    return [
        Demonstration(
            segment=one,
            returns=one.rewards[one.action_mask][::-1].cumsum()[::-1].astype(np.float32),
            wrote=bool(one.token_ids[1] % 2),
        )
        for one in segments(count, seed)
    ]


def rows(learners: LearnerGroup, given: list[Segment]) -> list[TrainingRow]:
    scores, _ = learners.score(given, [])
    return [
        TrainingRow(segment=one, scores=score, credit=0.1, credit_baseline=0.0, decided_after=1, wrote=True)
        for one, score in zip(given, scores, strict=True)
    ]


def publish_many(learners: LearnerGroup) -> None:
    for version in range(1000):
        learners.publish(version)


def fetch(weights: WeightsRef) -> dict[str, Float32]:
    found = {}
    for bucket, blob in zip(weights.buckets, weights.blobs, strict=True):
        content = np.asarray(ray.get(blob, timeout=30))  # pyright: ignore[reportArgumentType]
        assert zlib.crc32(content.data) == bucket.checksum
        for spec in bucket.tensors:
            count = int(np.prod(spec.shape))
            found[spec.name] = content[spec.offset_bytes :].view(np.float32)[:count].reshape(spec.shape).copy()
    return found


def distance(one: dict[str, Float32], other: dict[str, Float32]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def agreement(start: dict[str, Float32], one: dict[str, Float32], other: dict[str, Float32]) -> float:
    """Cosine of the angle between two changes of the same weights."""
    first, second = (
        np.concatenate([end[name].ravel() - start[name].ravel() for name in sorted(start)]) for end in (one, other)
    )
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@dataclass(frozen=True)
class Course:
    """The results of three SFT steps and one PPO update."""

    start: dict[str, Float32]
    imitated: dict[str, Float32]
    learned: dict[str, Float32]
    scores: list[TokenScores]
    updates: list[Update]


def course(learners: LearnerGroup, folder: Path) -> Course:
    start = fetch(learners.publish(0))
    updates = [learners.imitate(demonstrations(20, step), step=step, steps=10) for step in range(3)]
    imitated = fetch(learners.publish(1))
    learners.set_reference(folder)
    given = rows(learners, segments(20, 9))
    updates.append(learners.learn(given, seed=1, progress=0.0))
    learned = fetch(learners.publish(2))
    return Course(
        start=start, imitated=imitated, learned=learned, scores=[one.scores for one in given], updates=updates
    )


@pytest.fixture(scope="module")
def alone(begin: Begin, folder: Path) -> Course:
    """One rank, few large micro-batches, ZeRO 1, float32: every other split must give the same results."""
    return course(begin(ranks=1), folder)


def test_one_rank_learns_and_reports_metrics_that_are_defined(alone: Course):
    assert distance(alone.start, alone.imitated) > 1e-4
    assert distance(alone.imitated, alone.learned) > 1e-4
    for update in alone.updates:
        metrics.check_metrics(update.metrics)
        assert np.isfinite(list(update.metrics.values())).all()
    ppo = alone.updates[-1]
    assert ppo.tokens == 2 * sum(len(one.token_ids) for one in segments(20, 9))
    assert ppo.metrics["ratio_deviation"] > 0
    assert ppo.metrics["update_kl_nats"] > 0
    assert ppo.metrics["stopped_share"] == 0
    assert ppo.metrics["kl_coefficient"] == 0.05
    sampled = np.concatenate([one.token_ids[one.action_mask] for one in segments(20, 9)])
    assert (sampled < 8).any()
    assert 0 < ppo.metrics["entropy_nats"] < np.log(VOCABULARY) + 1e-6


def test_the_kl_to_the_policy_before_the_update_shortens_the_update(begin: Begin, folder: Path, alone: Course):
    # These tokens are random, so their probabilities and the gradient of their KL are small.
    learners = begin(PPO_SETTINGS.model_copy(update={"update_kl_coefficient": 1e5}), ranks=1)
    bounded = course(learners, folder).updates[-1]
    free = alone.updates[-1]
    assert bounded.metrics["update_kl_nats"] < 0.8 * free.metrics["update_kl_nats"]


def test_an_update_stops_early_and_the_coefficient_is_saved(begin: Begin, folder: Path, tmp_path: Path):
    learners = begin(PPO_SETTINGS.model_copy(update={"early_stop_kl": 1e-9}), ranks=2)
    learners.set_reference(folder)
    stale = rows(learners, segments(20, 9))
    first = learners.learn(stale, seed=1, progress=0.0)
    assert first.metrics["stopped_share"] == 0.75  # the first step measures rounding at most
    assert first.tokens < 2 * sum(len(one.token_ids) for one in segments(20, 9))
    moved = [row.scores.logprobs for row in rows(learners, segments(20, 9))]
    assert learners.learn(stale, seed=1, progress=0.0).metrics["stopped_share"] == 1.0  # the policy has moved already
    unchanged = [row.scores.logprobs for row in rows(learners, segments(20, 9))]
    assert all(np.array_equal(one, other) for one, other in zip(moved, unchanged, strict=True))
    saved = tmp_path / "lr=[0.1] *?"  # DeepSpeed would take this path for a pattern
    saved.mkdir()
    learners.save(saved)
    second = learners.learn(rows(learners, segments(20, 9)), seed=1, progress=0.0)
    learners.load(saved)
    again = learners.learn(rows(learners, segments(20, 9)), seed=1, progress=0.0)
    learners.reopen(ppo=PPO(), imitation=Imitation())
    fresh = learners.learn(rows(learners, segments(20, 9)), seed=1, progress=0.0)
    coefficients = [update.metrics["kl_coefficient"] for update in (first, second, again, fresh)]
    assert coefficients[1] == coefficients[2] != coefficients[0] == coefficients[3] == 0.05


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"ranks": 1, "micro_batch_tokens": 32}, id="one rank, many micro-batches"),
        pytest.param({"ranks": 2}, id="two ranks"),
        pytest.param({"ranks": 2, "zero_stage": 2, "micro_batch_tokens": 64}, id="two ranks, ZeRO 2", marks=LONG),
        pytest.param(SPLIT, id="two ranks, ZeRO 3, gradient checkpointing"),
    ],
)
def test_updates_do_not_depend_on_how_the_work_is_split(
    alone: Course, begin: Begin, folder: Path, settings: dict[str, object]
):
    other = course(begin(**settings), folder)
    assert distance(alone.start, other.start) == 0
    assert distance(alone.imitated, other.imitated) < 1e-5
    assert distance(alone.learned, other.learned) < 1e-5
    for one, two in zip(alone.scores, other.scores, strict=True):
        for name in TokenScores.__slots__:
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-4, err_msg=name)
    for one, two in zip(alone.updates, other.updates, strict=True):
        for name, value in one.metrics.items():
            assert two.metrics[name] == pytest.approx(value, abs=1e-3), name


@pytest.mark.parametrize("zero_stage", [1, pytest.param(2, marks=LONG)])
def test_learners_that_leave_the_gpus_and_come_back_learn_the_same(
    alone: Course, folder: Path, begin: Begin, zero_stage: int
):
    learners = begin(ranks=1) if zero_stage == 1 else begin(ranks=1, zero_stage=zero_stage)

    class Leaving:
        """Takes every state away and back before each call."""

        def __getattr__(self, name: str) -> object:
            learners.offload()
            learners.reload()
            return getattr(learners, name)

    other = course(Leaving(), folder)  # pyright: ignore[reportArgumentType]
    assert distance(alone.imitated, other.imitated) < 1e-5
    assert distance(alone.learned, other.learned) < 1e-5


@LONG
@pytest.mark.parametrize("zero_stage", [1, 2])
def test_updates_in_bfloat16_are_close_to_those_in_float32(alone: Course, folder: Path, zero_stage: int):
    with group(folder, ranks=2, zero_stage=zero_stage, dtype="bfloat16", micro_batch_tokens=64) as learners:
        other = course(learners, folder)
    for one, two in zip(alone.updates, other.updates, strict=True):
        assert two.metrics["loss"] == pytest.approx(one.metrics["loss"], abs=0.05)
    assert agreement(alone.start, alone.learned, other.learned) > 0.9


@pytest.mark.parametrize("zero_stage", [pytest.param(1, marks=LONG), 3])
def test_imitation_with_matrix_products_in_bfloat16_is_close_to_float32(alone: Course, folder: Path, zero_stage: int):
    with group(folder, ranks=2, zero_stage=zero_stage, imitation_dtype="bfloat16") as learners:
        other = course(learners, folder)
    assert agreement(alone.start, alone.imitated, other.imitated) > 0.9
    rounded = distance(alone.imitated, other.imitated) > 1e-5  # two ranks in float32 differ by less
    assert rounded == is_fast_in_bfloat16(torch.device("cpu"))
    for one, two in zip(alone.updates, other.updates, strict=True):
        assert two.metrics["loss"] == pytest.approx(one.metrics["loss"], abs=0.05)


@pytest.mark.parametrize(
    "settings", [pytest.param({"ranks": 2}, marks=LONG, id="ZeRO 1"), pytest.param(SPLIT, id="ZeRO 3")]
)
def test_a_loaded_group_continues_as_if_it_had_never_stopped(
    alone: Course, begin: Begin, folder: Path, tmp_path: Path, settings: dict[str, object]
):
    exported = tmp_path / "exported"
    exported.mkdir()
    learners = begin(**settings)
    for step in range(3):
        learners.imitate(demonstrations(20, step), step=step, steps=10)
    learners.save(tmp_path)
    learners.export(exported)
    with group(exported, **settings) as learners:
        learners.imitate(demonstrations(20, 7), step=0, steps=10)  # `load` discards this step
        learners.load(tmp_path)
        learners.set_reference(folder)
        learners.learn(rows(learners, segments(20, 9)), seed=1, progress=0.0)
        weights = learners.publish(7)
    assert distance(fetch(weights), alone.learned) < 1e-5  # the version outlives the ranks
    assert weights.version == 7


def test_a_group_keeps_the_contract_of_learners(begin: Begin, folder: Path):
    learners = begin(ranks=1)
    learners.set_reference(folder)
    check_learners(learners, rows(learners, segments(8, 3)))


def test_an_export_is_a_hugging_face_folder_that_agrees_with_the_probes(begin: Begin, tmp_path: Path):
    learners = begin(ranks=2)
    learners.imitate(demonstrations(20, 0), step=0, steps=10)
    weights = learners.publish(1)
    learners.export(tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in tmp_path.iterdir()}
    command = [sys.executable, "-c", LOGPROBS, str(tmp_path), str(PROBE.tolist())]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    np.testing.assert_allclose(weights.probes[0].logprobs, [0.0, *json.loads(answer)], atol=1e-5)
    tensors = fetch(weights)
    np.testing.assert_array_equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])


def test_a_loss_or_gradient_that_is_not_finite_is_an_error_before_the_step(begin: Begin, folder: Path):
    learners = begin(PPO_SETTINGS.model_copy(update={"value_coefficient": 1e5}), ranks=2)
    learners.imitate(demonstrations(20, 0), step=0, steps=10)
    learners.set_reference(folder)
    before = fetch(learners.publish(1))
    (given,) = rows(learners, segments(1, 9))
    huge = np.where(given.segment.action_mask, 1e15, 0).astype(np.float32)  # its square is still a float32
    far = changed(given, segment=changed(given.segment, rewards=huge))
    with pytest.raises(LearnerError, match="optimizer step 2: the gradient's norm must be finite, found inf"):
        learners.learn([far], seed=1, progress=0.0)
    lost = changed(given.scores, reference_logprobs=np.full_like(given.scores.reference_logprobs, np.nan))
    with pytest.raises(LearnerError, match=r"learner.learn: optimizer step 2: every loss .* rank [01]: nan; no"):
        learners.learn([changed(given, scores=lost)], seed=1, progress=0.0)
    assert distance(before, fetch(learners.publish(2))) == 0


def test_scoring_without_a_reference_a_missing_model_and_a_late_rank_are_named_errors(folder: Path, tmp_path: Path):
    with group(folder, ranks=1) as learners:
        with pytest.raises(LearnerError, match="set_reference"):
            learners.score(segments(2, 0), [])
        with pytest.raises(LearnerError, match="learner.load"):
            learners.load(tmp_path)
        learners.save(tmp_path)
        (weights,) = tmp_path.rglob("*model_states.pt")
        state = torch.load(weights, weights_only=False)
        del state["module"]["critic_head.weight"]
        torch.save(state, weights)
        with pytest.raises(LearnerError, match=r"(?s)learner\.load: .*critic_head\.weight.*start a new one"):
            learners.load(tmp_path)
        ray.kill(learners._ranks.handles[0])
        with pytest.raises(LearnerError, match=r"learner\.\w+: a rank's process died"):
            publish_many(learners)  # the kill takes a moment to arrive
    with pytest.raises(ConfigError, match=str(tmp_path)), group(tmp_path, ranks=1):
        pass
    with pytest.raises(DeadlineError, match=r"learner\.\w+: .*cluster.deadline_s"), group(folder, deadline_s=0.01):
        pass
