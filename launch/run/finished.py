"""Whether a run is finished, and what a larger or smaller `loop.iterations` then means."""

from agile_ray.config import RunConfig
from agile_ray.config_file import load
from agile_ray.effects import evaluation_changes
from agile_ray.errors import ConfigError
from agile_ray.record import provenance
from agile_ray.record.folder import RunFolder
from agile_ray.yaml_files import read_yaml


def is_finished(config: RunConfig) -> bool:
    """Whether the run has written its report after as many iterations as the configuration wants."""
    run = RunFolder.of(config)
    if not run.is_finished:
        return False
    return _iterations_told(run) is None or config.loop.iterations <= _iterations_done(run)


def check_resumable(config: RunConfig) -> None:
    """Refuse to resume a run with another configuration, or with fewer iterations than it has done.

    Raises:
        ConfigError: the run can't be resumed so; names the keys.
    """
    provenance.check_resumable(config)
    run = RunFolder.of(config)
    done = _iterations_done(run)
    if config.loop.iterations < done:
        raise ConfigError(
            f"loop.iterations: {run} has done {done} iterations, found {config.loop.iterations}; give at least {done}, "
            "or another run.name"
        )


def describe(config: RunConfig) -> str:
    """What to say of a finished run that is run again."""
    run = RunFolder.of(config)
    said = (
        f"run {run} is finished, after {_iterations_done(run)} iterations, and nothing was done: "
        f"`agile-ray report {run}` shows it, a larger loop.iterations extends it, another run.name starts anew"
    )
    if run.config.is_file() and (changes := evaluation_changes(load(run.config), config)):
        said += f". Without effect on a finished run: {'; '.join(changes)}; `agile-ray evaluate` plays its checkpoints"
    return said


def _iterations_done(run: RunFolder) -> int:
    """Iterations of a run, up to its latest checkpoint; those it was told to do if it is finished."""
    names = (folder.path.name for folder in run.complete_checkpoints())
    saved = [int(name.removeprefix("iteration-")) for name in names if name.startswith("iteration-")]
    told = _iterations_told(run) if run.is_finished else None
    return max(saved, default=0) if told is None else max([*saved, told])


def _iterations_told(run: RunFolder) -> int | None:
    if not run.config.is_file():
        return None
    match read_yaml(run.config, lambda _: False):
        case {"loop": {"iterations": int(told)}}:
            return told
    return None
