"""Curves of Weights & Biases.

Its client writes every value to a file of its own process, which uploads it when the server answers; so a server that
goes away holds nothing up, and `wandb sync` uploads what it did not take. An offline run has the file alone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Protocol
from uuid import uuid4

from agile_ray.errors import AgileError
from agile_ray.record.tracking.curves import PROJECT, Curves, Entry, Outcome, load, public

EXIT_CODES = {Outcome.FINISHED: 0, Outcome.STOPPED: 255, Outcome.FAILED: 1}
"""Of a run; 255 is what its client gives one that Ctrl-C ended, which is shown as killed."""
SERVER = "https://api.wandb.ai"
BEGIN_S, END_S = 20, 5
"""How long the client waits for its server at the begin and at the end of a run, seconds."""


class WandB:
    """Weights & Biases, at a server or offline."""

    def __init__(self, folder: Path | None, *, mode: str | None) -> None:
        """Import the client, and write nothing.

        Args:
            folder: for its files; None: the one that its own settings name.
            mode: `online`, `offline` or another that it knows; None: what its own settings say.

        Raises:
            ConfigError: the package can't be imported.
        """
        self._module = load("wandb")
        self._folder = folder
        self._mode = mode

    @property
    def where(self) -> str:
        """The server, or of offline runs the folder."""
        server = public(os.environ.get("WANDB_BASE_URL", SERVER))
        return server if self._mode in (None, "online") else str(self._folder)

    def check(self) -> None:
        if self._mode != "online":
            return
        self._module.setup(self._module.Settings(silent=True))
        if not self._module.login(prompt=False, verify=True):
            raise AgileError("no key; set WANDB_API_KEY, or WANDB_MODE=offline")

    def prepare(self) -> None:
        """Nothing is slow."""

    def open(self, name: str, knobs: Mapping[str, str], *, id: str | None, time_ms: int) -> Curves:
        del time_ms  # its client takes the time itself
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        with _beginning_anew(self._module):
            run = self._module.init(
                project=PROJECT,
                name=name,
                id=id or uuid4().hex[:8],
                resume="allow" if id and self._mode == "online" else None,
                config=dict(knobs),
                dir=self._folder,
                mode=self._mode,
                reinit="create_new",
                settings=self._module.Settings(
                    console="off",
                    silent=True,
                    disable_git=True,
                    x_disable_stats=True,
                    x_disable_meta=True,
                    init_timeout=BEGIN_S,
                    finish_timeout=END_S,
                    finish_timeout_raises=True,
                ),
            )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return WandBCurves(run, self._module)


@contextmanager
def _beginning_anew(wandb: ModuleType) -> Iterator[None]:
    """If the client's process was killed, let the client forget it; the next run that is opened starts another.

    Ray ends a job by a signal to each of its processes.

    Raises:
        ConnectionError: the process is gone.
    """
    try:
        yield
    except ConnectionError:
        with suppress(ConnectionError):
            wandb.teardown()
        raise


class _Run(Protocol):
    """The part of its run that curves need."""

    id: str
    url: str | None
    dir: str
    offline: bool

    def log(self, data: Mapping[str, float], *, step: int, commit: bool) -> None: ...

    def finish(self, *, exit_code: int) -> None: ...


class WandBCurves:
    """One run of Weights & Biases."""

    def __init__(self, run: _Run, wandb: ModuleType) -> None:
        self._run = run
        self._wandb = wandb
        self.id = run.id
        self.place = run.dir if run.offline else str(run.url)

    def add(self, entries: Sequence[Entry]) -> None:
        """Write entries.

        The step of a value is its line's `step`: their own steps never fall, but a final evaluation may be of an
        earlier iteration. Theirs is the entry's index, which the server takes once.
        """
        with _beginning_anew(self._wandb):
            for entry in entries:
                values = {"step": entry.scalars.step, **entry.scalars.values}
                self._run.log(values, step=entry.index, commit=True)

    def end(self, outcome: Outcome, *, time_ms: int) -> str:
        """Wait until the server has everything, or the time is over: then the file has what the server lacks."""
        del time_ms
        try:
            with _beginning_anew(self._wandb):
                self._run.finish(exit_code=EXIT_CODES[outcome])
        except TimeoutError:
            return f"the server lacks a part after {END_S} s; upload it with: wandb sync {Path(self._run.dir).parent}"
        return ""
