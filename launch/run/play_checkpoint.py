"""Plays a checkpoint: engines start from its folder, and there is no learner."""

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.guided import Guide
from agile_ray.types import Session
from agile_ray.units import Split
from launch.cluster.ray_cluster import cluster
from launch.cluster.room import reserve
from launch.models.folder import check_model
from launch.run.preflight import check_engine_path, check_engines
from launch.run.progress import Progress
from rollout.rules import check_embedder
from rollout.settings import RolloutSettings


def play_checkpoint(config: RunConfig, folder: Path, *, split: Split, guide: Guide | None = None) -> list[Session]:
    """Play a Hugging Face folder greedily on a split, lanes in lockstep, so that a second call gives the same sessions.

    Args:
        config: rules, engines and the number of sessions.
        folder: of the checkpoint.
        split: to play.
        guide: script that decides when to ask; None: the checkpoint decides.

    Raises:
        ConfigError: the folder is no model of this project or too short for a session, engines can't compute as
            configured, the embedder is not installed, or the split is unknown.
    """
    run = RunFolder(folder)
    if run.config.is_file():
        raise ConfigError(
            f"--policy {folder}: a checkpoint is needed, found the folder of a run; name {run.sft} or one in "
            f"{run.checkpoints}"
        )
    try:
        check_model(folder, session_tokens=config.agent.session_tokens)
    except ConfigError as error:
        raise ConfigError(f"--policy: {str(error).removeprefix('model.path: ')}") from error
    check_engines(config)
    check_embedder(config.memory.embedder)
    check_engine_path("--policy", folder)
    with (
        Progress(imitation_steps=0, iterations=0) as progress,
        cluster(config.cluster, cpus=2 * config.rollout.actors + 1),
        closing(reserve(config, engines=config.rollout.actors, ranks=0)) as room,
    ):
        from rollout.pool import RolloutPool

        logs = Path(tempfile.mkdtemp(prefix="agile-ray-"))  # kept if an engine fails: its error names the log
        settings = RolloutSettings.of(config)
        rollouts = RolloutPool(
            settings, model=folder, logs=logs, bar=progress.bar, places=room.engines, say=progress.say
        )
        try:
            rollouts.wait_until_ready()
            played = rollouts.evaluate(split=split, sessions=config.evaluate.sessions, greedy=True, guide=guide)
        finally:
            rollouts.shutdown()
        shutil.rmtree(logs)
        return played
