"""Checks before anything starts: the model's folder, the disk, shared memory, the ports, paths on a cluster.

Reads files, makes at most the empty folder where DeepSpeed compiles, imports no heavy library.
"""

import glob
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.expert_spec import ExpertSpec
from agile_ray.inbox.line import TOKEN
from agile_ray.record.checkpoints import KEPT
from agile_ray.record.folder import RunFolder
from agile_ray.record.wholeness import weights_fault
from envs.endpoints.chat import REACHED_S, Chat
from launch.border import ALWAYS
from launch.cluster import room
from launch.cluster.address import check_shared, joins, temporary_folder
from launch.cluster.room import Needs
from launch.models.folder import check_model, check_same_network, check_same_tokenizer
from launch.plan.this_machine import this_machine
from learner.compiler.folder import choose_folder

CHECKPOINT_FACTOR = 8
"""Maximum size of a checkpoint over that of the model's file: weights, float32 master copy, two moments of AdamW."""
LORA_FACTOR = 2
"""The same with LoRA, whose resume state is small: merged weights, in float32 where the model's file has bfloat16."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
QUEUE_BYTES = (240 << 20) + 4096
"""Of the largest message queue between an engine and a worker, which vLLM wants free: 10 chunks of 24 MiB. Most of it
is never written, so several engines fit."""
GPUS = "/dev/nvidia[0-9]*"
"""Devices of NVIDIA's driver, one for each GPU."""
NAME_BYTES = 255
"""Maximum length of a name on a disk."""
SPARE_BYTES = 64 << 20
"""For the events, segments and report of a run."""


def check(config: RunConfig) -> None:
    """Refuse a run that can't start.

    Raises:
        ConfigError: names the key, what was found and what to do.
        ModuleNotFoundError: names a library that is missing.
    """
    check_installed()
    if joins(config.cluster):
        check_shared(config)
    else:
        temporary_folder()
    colleague = config.env.expert.colleague is not None
    check_model(config.model.path, session_tokens=config.agent.session_tokens, colleague=colleague)
    check_resumed(config)
    check_recorded(config.env.expert)
    if not joins(config.cluster):  # on a cluster the actors say the same when they start
        choose_folder()
    weights = sum(file.stat().st_size for file in config.model.path.glob("*.safetensors"))
    factor = CHECKPOINT_FACTOR if config.learner.lora_rank is None else LORA_FACTOR
    copies = KEPT + 2  # the best on validation, and the one being written
    check_space(config.run.folder, need_bytes=factor * copies * weights + SPARE_BYTES)
    if not joins(config.cluster):
        check_shared_memory(config)


def check_installed() -> None:
    """Refuse a training without its libraries; imports none of them.

    Raises:
        ModuleNotFoundError: names one that is missing.
    """
    for name in ALWAYS:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def check_shared_memory(config: RunConfig) -> None:
    """Refuse a /dev/shm that is too small for the engines of this machine.

    Raises:
        ConfigError: it has too little room.
    """
    if config.cluster.device == "gpu" and config.rollout.tensor_parallel == 1:
        return  # vLLM then runs its only worker in the engine's process
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else QUEUE_BYTES
    if free < QUEUE_BYTES:
        raise ConfigError(
            f"{SHARED_MEMORY}: an engine needs {QUEUE_BYTES >> 20} MiB of shared memory, found {free >> 20} MiB free; "
            f"start the container with --shm-size={config.rollout.actors}g or more (Docker gives 64 MiB)"
        )


def check_gpus(config: RunConfig) -> None:
    """Refuse a run that needs more GPUs than this machine has, if it starts a cluster of its own here.

    Where nvidia-smi lists none although there are some, Ray counts them.

    Raises:
        ConfigError: names the GPUs that are needed, and those that are there.
    """
    if joins(config.cluster) or config.cluster.device != "gpu":
        return
    gpus = this_machine().gpus
    if gpus or not glob.glob(GPUS):
        needs = Needs.of(config, engines=config.rollout.actors, ranks=config.learner.ranks)
        here = {"GPU": float(gpus), "CPU": needs.total["CPU"]}  # a local cluster has as many CPUs as a run needs
        room.check(needs, nodes=[here], free=here)


def check_resumed(config: RunConfig) -> None:
    """Refuse to resume a run whose checkpoints have another tokenizer or network than the model's folder.

    Raises:
        ConfigError: one has.
    """
    run = RunFolder.of(config)
    for checkpoint in (run.sft, *run.complete_checkpoints()):
        if (checkpoint.path / "tokenizer.json").is_file():
            check_same_tokenizer(config.model.path, checkpoint.path)
        if weights_fault(checkpoint.path) is None:  # one that is not whole is skipped
            check_same_network(config.model.path, checkpoint.path)


def check_engines(config: RunConfig) -> None:
    """Refuse engines that would compute otherwise than the configuration says.

    On a GPU vLLM's attention kernels round float32 to TF32, so logprobs would miss those of the learner.

    Raises:
        ConfigError: `rollout.dtype` is float32 on a GPU.
    """
    if config.cluster.device == "gpu" and config.rollout.dtype == "float32":
        raise ConfigError(
            "rollout.dtype: engines on a GPU must compute in bfloat16, found float32; set rollout.dtype=bfloat16, and "
            "learner.dtype=bfloat16 to halve the learners' memory too"
        )


def check_engine_path(where: str, folder: Path) -> None:
    """Refuse a model folder whose path vLLM would take for a pattern.

    Args:
        where: the key or option that names it.
        folder: the model's.

    Raises:
        ConfigError: the path has one of the characters [ ] * ?.
    """
    if glob.escape(str(folder)) != str(folder):
        raise ConfigError(
            f"{where}: {folder}: vLLM takes the characters [ ] * ? in a path for patterns; rename the folder, or "
            "give a link to it"
        )


def check_recorded(expert: ExpertSpec) -> None:
    """Refuse a recording that is neither a run with stored sessions nor a file, which is the export of an inbox.

    Raises:
        ConfigError: it is none.
    """
    for key, run in expert.recordings.items():
        if not run.is_file() and not RunFolder(run).stored_iterations():
            raise ConfigError(
                f"{key}: {RunFolder(run).segments} must hold iterations, found none; "
                "name the folder of a run that has trained"
            )


def check_experts(expert: ExpertSpec) -> None:
    """Refuse experts who would refuse every ask: imitation does not ask them, so a run would find out after hours.

    Raises:
        ConfigError: the token of an inbox is not in the environment, or nothing answers at a chat model's address.
        TurnedAwayError: a chat model's endpoint does not know the key.
    """
    for key, one in expert.by_key.items():
        if one.name == "inbox" and not os.environ.get(TOKEN):
            raise ConfigError(f"{key}: the inbox's token must be in the environment variable {TOKEN}, found none")
        if one.name == "chat" and one.url is not None and one.model is not None:
            Chat(url=one.url, model=one.model, deadline_s=REACHED_S, name=key).check()


def check_output(path: Path, *, option: str = "--output") -> None:
    """Refuse a path of a file that can't be written. Its folder need not exist.

    Args:
        path: of the file.
        option: that names it, for the error.

    Raises:
        ConfigError: the path is a folder, or can't be created.
    """
    longest = max(len(os.fsencode(part)) for part in path.absolute().parts)
    if longest > NAME_BYTES:
        raise ConfigError(f"{option}: a name has at most {NAME_BYTES} bytes, found {longest}; choose a shorter one")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file in it")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise ConfigError(f"{option}: {path} can't be written ({existing}: {error.strerror})") from error


def check_space(folder: Path, *, need_bytes: int) -> None:
    """Refuse a folder whose disk has too little space, or that can't be created.

    Raises:
        ConfigError: the folder is one of those.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ConfigError(f"run.folder: {existing} is a file; a folder is needed")
    free = shutil.disk_usage(existing).free
    if free < need_bytes:
        raise ConfigError(
            f"run.folder: {folder} has {free >> 20} MiB free, checkpoints of this model may take "
            f"{need_bytes >> 20} MiB; free some, or choose another run.folder"
        )
