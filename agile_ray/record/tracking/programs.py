"""The programs that keep curves. Each is imported when it is asked for."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from agile_ray.record.tracking.curves import Program


def mlflow(folder: Path | None) -> Program:
    """MLflow, in a database in the folder; None: where its own settings say.

    Raises:
        ConfigError: its package can't be imported.
    """
    from agile_ray.record.tracking.mlflow_curves import MLflow

    return MLflow(folder)


def wandb(folder: Path | None) -> Program:
    """Weights & Biases, offline in the folder; None: where its own settings say.

    Raises:
        ConfigError: its package can't be imported.
    """
    from agile_ray.record.tracking.wandb_curves import WandB

    return WandB(folder, mode=None if folder is None else "offline")


PROGRAMS: Mapping[str, Callable[[Path | None], Program]] = {"mlflow": mlflow, "wandb": wandb}
"""By the name that `agile-ray export --to` and `train --track` take; each with the folder that it writes to."""


def live(form: str, folder: Path) -> Program:
    """The program that a training writes to: the server that the environment names, else a folder.

    Args:
        form: of PROGRAMS.
        folder: written to where no server is named; Weights & Biases keeps its own files there in any case.

    Raises:
        ConfigError: its package can't be imported.
    """
    if form == "mlflow":
        return mlflow(None if os.environ.get("MLFLOW_TRACKING_URI") else folder)
    from agile_ray.record.tracking.wandb_curves import WandB

    chosen = os.environ.get("WANDB_MODE")
    return WandB(folder, mode=chosen or ("online" if os.environ.get("WANDB_API_KEY") else "offline"))
