"""Curves of MLflow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

from agile_ray.record.tracking.curves import PROJECT, Curves, Entry, Outcome, load, public

STATUS = {Outcome.FINISHED: "FINISHED", Outcome.STOPPED: "KILLED", Outcome.FAILED: "FAILED"}
MOST_PARAMS, MOST_METRICS = 100, 1000
"""That MLflow takes in one request."""
SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""In place of its own defaults, by which a server that is away holds a request for a quarter of an hour."""


class MLflow:
    """MLflow, at a server or in a database."""

    def __init__(self, folder: Path | None) -> None:
        """Import the client, and write nothing.

        Args:
            folder: of the database; None: what MLflow's own settings name.

        Raises:
            ConfigError: the package can't be imported.
        """
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        self._entities = load("mlflow.entities")
        self._module = load("mlflow")
        self._folder = folder
        self._begun: dict[str, str] = {}  # ids by name; a run whose begin failed half-way is not begun twice
        self._address = self._module.get_tracking_uri() if folder is None else f"sqlite:///{_database(folder)}"

    @property
    def where(self) -> str:
        """The address, without a password."""
        return public(self._address)

    def check(self) -> None:
        if self._folder is None:
            self._module.MlflowClient(tracking_uri=self._address).get_experiment_by_name(PROJECT)

    def prepare(self) -> None:
        """Make the database."""
        if self._folder is not None:
            self._module.MlflowClient(tracking_uri=self._made()).get_experiment_by_name(PROJECT)

    def open(self, name: str, knobs: Mapping[str, str], *, id: str | None, time_ms: int) -> Curves:
        client = self._module.MlflowClient(tracking_uri=self._made())
        own = id or self._begun.get(name)
        if own is None:
            known = client.get_experiment_by_name(PROJECT)
            experiment = client.create_experiment(PROJECT) if known is None else known.experiment_id
            own = self._begun[name] = str(client.create_run(experiment, run_name=name, start_time=time_ms).info.run_id)
        if id is None:
            params = [self._entities.Param(key, value) for key, value in knobs.items()]
            for first in range(0, len(params), MOST_PARAMS):
                client.log_batch(own, params=params[first : first + MOST_PARAMS])
        else:
            client.update_run(own, status="RUNNING")
        return MLflowCurves(client, self._entities, id=own, place=f"run {own} of {self.where}")

    def _made(self) -> str:
        """The address, whose folder exists."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._address


class _Client(Protocol):
    """The part of its client that curves need."""

    def log_batch(self, run_id: str, *, metrics: Sequence[object]) -> object: ...

    def set_terminated(self, run_id: str, *, status: str, end_time: int) -> None: ...


class MLflowCurves:
    """One run of MLflow."""

    def __init__(self, client: _Client, entities: ModuleType, *, id: str, place: str) -> None:
        self._client = client
        self._entities = entities
        self.id = id
        self.place = place

    def add(self, entries: Sequence[Entry]) -> None:
        """Write entries. A database takes a value once for its name, step and time, however often it is sent."""
        metrics = [
            self._entities.Metric(name, value, entry.time_ms, entry.scalars.step)
            for entry in entries
            for name, value in entry.scalars.values.items()
        ]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self.id, metrics=metrics[first : first + MOST_METRICS])

    def end(self, outcome: Outcome, *, time_ms: int) -> str:
        self._client.set_terminated(self.id, status=STATUS[outcome], end_time=time_ms)
        return ""


def _database(folder: Path) -> Path:
    return (folder / "mlflow.db").resolve()
