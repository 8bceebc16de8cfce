"""How one engine is started, and what its processes find around them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agile_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How one engine is started."""

    model: Path  # Hugging Face folder
    dtype: str  # "float32" or "bfloat16"
    exact: bool  # the learner computes in float32 too, so logprobs must agree
    session_tokens: int  # longest prompt and completion together
    stops: tuple[int, ...]  # token ids that end a completion, the end token among them
    lanes: int  # requests at once
    transport: str  # weight-transfer backend
    device: str  # "cpu" or "gpu"
    kv_cache_gib: float  # on CPU
    gpu_memory: float  # share of one GPU
    tensor_parallel: int
    seed: int  # of sampling
    pinned: bool  # on CPU, its threads own their cores; several engines on a machine would all pick the same ones
    deadline_s: float  # longest wait for one request or one transfer
    log: Path  # what vLLM has to say, warnings and worse


def check_length(settings: EngineSettings) -> None:
    """Refuse a model that is too short for a session.

    Raises:
        ConfigError: names both lengths.
    """
    try:
        known = json.loads((settings.model / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: {settings.model} holds no readable config.json") from error
    longest = known.get("max_position_embeddings")
    if longest is not None and settings.session_tokens >= longest:
        raise ConfigError(
            f"agent.session_tokens ({settings.session_tokens}) reaches the model's limit of {longest} positions "
            f"({settings.model})"
        )


def set_environment(settings: EngineSettings) -> None:
    """Set what vLLM reads when it is imported, and what its processes inherit."""
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
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # plugins run in a process only if it imports vLLM itself
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if not settings.pinned:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads without cores of their own mostly wait for one another


def one_line(error: BaseException) -> str:
    """The end of an error's message, on one line."""
    return " ".join(str(error).split())[-500:]


def cause(log: Path, error: BaseException) -> str:
    """The last exception that vLLM's processes logged, else the one that reached us."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    named = [line.strip() for line in lines if "Error: " in line and "initialization failed" not in line]
    return f"{named[-1][-500:] if named else one_line(error)} (more in {log})"
