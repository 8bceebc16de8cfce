"""What the pool, its actors and their engines are started with, and the environment of an engine's processes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agile_ray.config import Agent, Env, Memory, Rollout, RunConfig
from agile_ray.errors import ConfigError
from rollout.weights.files import read_object

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
"""What families of models call their number of positions in config.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """The part of a run's configuration that rollouts depend on.

    An engine reads `rollout`, `seats`, `device`, `exact`, `seed`, `agent.session_tokens`, and which asks carry words,
    once, when it starts. `RolloutPool.reopen` opens lanes with other settings on the same engines; what an engine has
    read stays.
    """

    seed: int  # root of the seeds of environment and engines
    env: Env  # the environment, its expert and the price of advice
    agent: Agent  # rules and budgets of a session; `session_tokens` also sets the engines' context length
    memory: Memory  # embedder and retrieval of the lanes' memories
    rollout: Rollout  # number of actors, sampling, engines, transport
    device: str  # "cpu" or "gpu"
    gpu_share: float  # of each GPU that an engine uses; below 1 it sleeps while a learner rank has the rest
    deadline_s: float  # longest wait for one call
    exact: bool  # engines and learner all compute in float32, so their logprobs must be equal
    lanes: int  # of all actors
    seats: int  # episodes that one actor plays at the same time
    sessions: int  # of each lane in one iteration
    iterations: int  # of the run
    max_age: int  # of a token when it is learned from, in versions
    run_folder: Path  # absolute; actors write the receipts of their lanes there

    @classmethod
    def of(cls, config: RunConfig) -> "RolloutSettings":
        """Select from a whole configuration."""
        return cls(
            seed=config.seed,
            env=config.env,
            agent=config.agent,
            memory=config.memory,
            rollout=config.rollout,
            device=config.cluster.device,
            gpu_share=config.cluster.gpu_share,
            deadline_s=config.cluster.deadline_s,
            exact=config.rollout.dtype == config.learner.dtype == "float32",
            lanes=config.loop.lanes,
            seats=config.seats,
            sessions=config.loop.sessions_per_lane,
            iterations=config.loop.iterations,
            max_age=config.loop.max_age,
            run_folder=config.run_folder.absolute(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSettings:
    """What one rollout actor is started with."""

    common: RolloutSettings  # the same for every actor
    index: int  # of the actor, from 0
    hired: int  # processes that this actor has had before
    start: str  # of the run, a random word: another start hires processes with the same numbers
    model: Path  # Hugging Face folder with the engine's first weights and the tokenizer; absolute
    log: Path  # of the engine; absolute

    @property
    def writer(self) -> str:
        """Names the process in the books of purchases."""
        return f"{self.index}.{self.hired}.{self.start}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What one engine is started with."""

    model: Path  # Hugging Face folder
    dtype: str  # "float32" or "bfloat16"
    exact: bool  # engine and learner both compute in float32, so their logprobs must be equal
    session_tokens: int  # most tokens of a prompt with its completion
    stops: tuple[int, ...]  # token ids that end a completion, including the end token
    ask: int  # token id of [SeekAdvice]
    lanes: int  # concurrent requests
    transport: str  # weight-transfer backend
    device: str  # "cpu" or "gpu"
    kv_cache_gib: float  # on CPU
    gpu_memory: float  # share of one GPU, in (0, 1]
    tensor_parallel: int  # GPUs
    sleeps: bool  # `sleep` frees the GPU; never on CPU, where vLLM refuses it
    seed: int  # of sampling
    pinned: bool  # on CPU, pin threads to cores; False where several engines would all pick the same cores
    deadline_s: float  # longest wait for one request or one weight transfer
    log: Path  # vLLM's warnings and errors


def check_length(model: Path, session_tokens: int) -> None:
    """Check that a model has enough positions for a session.

    Args:
        model: its Hugging Face folder.
        session_tokens: of the longest prompt with its completion.

    Raises:
        ConfigError: it has too few, or its config.json cannot be read.
    """
    config = read_object(model / "config.json")
    text = config.get("text_config")
    known = text if isinstance(text, dict) else config
    longest = min((value for key in POSITIONS if isinstance(value := known.get(key), int)), default=None)
    if longest is not None and session_tokens >= longest:
        raise ConfigError(
            f"agent.session_tokens ({session_tokens}) reaches the model's limit of {longest} positions ({model}); "
            "lower it, or choose a model with a longer context"
        )


def set_environment(settings: EngineSettings) -> None:
    """Write vLLM's logging config and set the environment variables that vLLM and its processes read."""
    settings.log.parent.mkdir(parents=True, exist_ok=True)
    handler = {"class": "logging.FileHandler", "filename": str(settings.log.absolute()), "formatter": "line"}
    logging = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "WARNING", "propagate": False}},
    }
    described = settings.log.with_suffix(".json")
    described.write_text(json.dumps(logging))
    os.environ |= {
        "VLLM_LOGGING_CONFIG_PATH": str(described.absolute()),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process does not import vLLM, so it would run no plugin
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if not settings.pinned:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # unpinned threads mostly wait for one another


def one_line(error: BaseException) -> str:
    """The end of an error's message, on one line."""
    return " ".join(str(error).split())[-500:]


def cause(log: Path, error: BaseException) -> str:
    """The last exception in vLLM's log, else the error that was caught."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    named = [line.strip() for line in lines if "Error: " in line and "initialization failed" not in line]
    return f"{named[-1][-500:] if named else one_line(error)} (more in {log})"
