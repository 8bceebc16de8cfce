"""Writes the metrics of a run for MLflow and for Weights & Biases: the names, values and steps that TensorBoard has.

Each has two runs for one of ours, as there are two folders of TensorBoard events: NAME/imitation, whose steps are
optimizer steps, and NAME/ppo, whose steps are iterations. What a resumed run discarded is in neither. Every export
makes new runs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import ModuleType

from agile_ray import config_file
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from agile_ray.knobs import knobs
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Scalars

PROJECT = "agile-ray"
"""Of Weights & Biases, and the experiment of MLflow."""
BATCH = 1000
"""Metrics that MLflow takes in one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What becomes one run of the other program."""

    name: str
    knobs: Mapping[str, str]  # by dotted key
    lines: Sequence[Scalars]  # in the order in which they were recorded
    end_ms: int  # when the last one was, milliseconds since 1970


Writer = Callable[[Curves, Path | None], str]
"""Writes curves into a folder, or to the server that the program's own settings name, and says where they are."""


def write(run: RunFolder, form: str, folder: Path | None) -> Iterator[str]:
    """Write what a run has recorded so far, and name each of the runs that hold it.

    Args:
        run: its folder.
        form: of `WRITERS`.
        folder: where to; None: to the server that the program's own settings name.

    Raises:
        ConfigError: the run has recorded nothing, or the program's package is missing.
    """
    lines = [history.scalars(line) for line in history.read(run.history)]
    if not lines:
        raise ConfigError(f"{run.history}: must hold the metrics of a run, found none; train it first")
    config = config_file.load(run.config)
    end_ms = int(1000 * run.history.stat().st_mtime)
    for part, imitation in (("imitation", True), ("ppo", False)):
        own = [line for line in lines if line.imitation is imitation and line.values]
        if own:
            name = f"{config.run.name}/{part}"
            yield WRITERS[form](Curves(name=name, knobs=_knobs(config), lines=own, end_ms=end_ms), folder)


def write_mlflow(curves: Curves, folder: Path | None) -> str:
    """Write a run of MLflow. Its times are made up, a millisecond apart: the history has none."""
    entities = _load("mlflow.entities")
    client = _load("mlflow").MlflowClient(
        tracking_uri=None if folder is None else f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    )
    known = client.get_experiment_by_name(PROJECT)
    experiment = client.create_experiment(PROJECT) if known is None else known.experiment_id
    start_ms = curves.end_ms - len(curves.lines)
    run_id = client.create_run(experiment, run_name=curves.name, start_time=start_ms).info.run_id
    client.log_batch(run_id, params=[entities.Param(key, value) for key, value in curves.knobs.items()])
    metrics = [
        entities.Metric(name, value, start_ms + index, line.step)
        for index, line in enumerate(curves.lines)
        for name, value in line.values.items()
    ]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + BATCH])
    client.set_terminated(run_id, end_time=curves.end_ms)
    return f"{curves.name}: run {run_id} of {client.tracking_uri}"


def write_wandb(curves: Curves, folder: Path | None) -> str:
    """Write a run of Weights & Biases; in a folder it is an offline one, which `wandb sync` uploads.

    The step of a value is its line's `step`: their own steps never fall, but a final evaluation may be of an earlier
    iteration.
    """
    wandb = _load("wandb")
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True)
    with wandb.init(
        project=PROJECT,
        name=curves.name,
        config=dict(curves.knobs),
        dir=folder,
        mode=None if folder is None else "offline",
        reinit="create_new",
        settings=settings,
    ) as run:
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        for line in curves.lines:
            run.log({"step": line.step, **line.values})
        return f"{curves.name}: {run.dir if folder else run.url}"


WRITERS: Mapping[str, Writer] = {"mlflow": write_mlflow, "wandb": write_wandb}
"""By the value of `--to`."""


def _knobs(config: RunConfig) -> dict[str, str]:
    """Every knob with its value, as text."""
    return {knob.key: str(reduce(getattr, knob.key.split("."), config)) for knob in knobs(RunConfig)}


def _load(module: str) -> ModuleType:
    """A module of a package that only these exports need, and that few have."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ConfigError(
            f"--to {name}: needs a package that can't be imported ({error}); pip install 'agile-ray[{name}]'"
        ) from error
