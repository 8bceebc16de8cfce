"""The run folder: every name that a run keeps on disk.

runs/quickstart/
    config.yaml                        the resolved configuration of the last start
    run.json                           every start: configuration, code, packages, machine
    history.jsonl                      one line per imitation step, iteration, evaluation and resumption
    segments/iteration-00012.parquet   what one iteration trained on
    evaluation/ppo.parquet             the sessions of one final evaluation
    evaluation/ppo.measured.json       which weights it played, and with what settings
    evaluation/ppo.parts/              what it has played so far, while it runs
    evaluation/choice.json             which checkpoint it played, and why
    events/imitation, events/ppo       TensorBoard, by optimizer step and by iteration
    tracking                           what MLflow and Weights & Biases were given while it ran, and their local files
    checkpoints/iteration-00010        the last few checkpoints; `best` links to the best one on validation
    sft                                the last checkpoint of imitation, kept for good
    logs                               logs of the engines; train.log where a sweep trains several runs at once
    asked-00012-0.3.5d0c81aa.jsonl     purchases for iteration 12, which is not stored, by a process of rollout actor 0
    abandoned.jsonl                    purchases of work that a run of an earlier version discarded
    progress.json                      where the training is, for scripts and `agile-ray status`
    report.json, report.html           the results; report.json marks the run as finished
    replay.json                        only of a replay: the run that it repeats, and how they compare
    reprice-0.5.json                   the results at another price of advice
    .lock                              held by the process that trains here

Copies that file managers and cloud disks make, such as `ppo (1).parquet` or `iteration-00010.bak`, are passed over.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from agile_ray.config import RunConfig
    from agile_ray.types import RunState


_SEGMENTS = re.compile(r"iteration-([0-9]{5,})\.parquet")
_CHECKPOINT = re.compile(r"(?:iteration|imitation)-[0-9]{5,}")
_JOURNAL = re.compile(r"asked-([0-9]{5,})-([a-z0-9.]+)\.jsonl")
_ENTRY = re.compile(r"[a-z_]+")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, which need not exist."""

    path: Path

    @classmethod
    def of(cls, config: "RunConfig") -> Self:
        """The folder that a configuration names."""
        return cls(config.run_folder)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration of the last start."""
        return self.path / "config.yaml"

    @property
    def starts(self) -> Path:
        """Every start of the run."""
        return self.path / "run.json"

    @property
    def history(self) -> Path:
        """What happened, one line per event."""
        return self.path / "history.jsonl"

    @property
    def progress(self) -> Path:
        """Where the training is, as its process last said."""
        return self.path / "progress.json"

    @property
    def segments(self) -> Path:
        """Folder of the segment files."""
        return self.path / "segments"

    def segment_file(self, iteration: int) -> Path:
        """The segments of one iteration."""
        return self.segments / f"iteration-{iteration:05d}.parquet"

    def stored_iterations(self) -> list[int]:
        """The iterations that have a segment file, in order."""
        found = (_SEGMENTS.fullmatch(path.name) for path in self.segments.glob("*"))
        return sorted(int(match[1]) for match in found if match)

    @property
    def evaluations(self) -> Path:
        """Folder of the final evaluations."""
        return self.path / "evaluation"

    def evaluation_file(self, entry: str) -> Path:
        """The sessions of one policy's final evaluation; `entry` is `ppo`, `oracle`, ..."""
        return self.evaluations / f"{entry}.parquet"

    def measured_file(self, entry: str) -> Path:
        """Which weights one policy's final evaluation plays, and with what settings."""
        return self.evaluations / f"{entry}.measured.json"

    def evaluation_parts(self, entry: str) -> Path:
        """Folder of what one policy's final evaluation has played so far; it exists only while that runs."""
        return self.evaluations / f"{entry}.parts"

    def begun_entries(self) -> list[str]:
        """The entries whose final evaluation has begun, finished or not, in alphabetical order."""
        return self._entries(".measured.json")

    @property
    def choice(self) -> Path:
        """Which iteration's checkpoint the final evaluation played as `ppo`, and why."""
        return self.evaluations / "choice.json"

    def evaluated_entries(self) -> list[str]:
        """The entries that have a final evaluation, in alphabetical order."""
        return self._entries(".parquet")

    def _entries(self, suffix: str) -> list[str]:
        names = (path.name.removesuffix(suffix) for path in self.evaluations.glob(f"*{suffix}"))
        return sorted(name for name in names if _ENTRY.fullmatch(name))

    @property
    def imitation_events(self) -> Path:
        """Folder of the TensorBoard events of imitation."""
        return self.path / "events" / "imitation"

    @property
    def ppo_events(self) -> Path:
        """Folder of the TensorBoard events of PPO."""
        return self.path / "events" / "ppo"

    @property
    def tracking(self) -> Path:
        """Folder of what other programs are given while the run trains."""
        return self.path / "tracking"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def checkpoint(self, state: "RunState") -> "CheckpointFolder":
        """The checkpoint of a state."""
        if state.iteration:
            return CheckpointFolder(self.checkpoints / f"iteration-{state.iteration:05d}")
        return CheckpointFolder(self.checkpoints / f"imitation-{state.imitation_steps:05d}")

    def complete_checkpoints(self) -> list["CheckpointFolder"]:
        """Every checkpoint that has its state file, in no particular order; `best` is not listed again."""
        folders = [CheckpointFolder(path) for path in self.checkpoints.glob("*") if _CHECKPOINT.fullmatch(path.name)]
        return [folder for folder in folders if folder.is_complete]

    @property
    def best_checkpoint(self) -> Path:
        """Link to the best checkpoint on validation."""
        return self.checkpoints / "best"

    @property
    def sft(self) -> "CheckpointFolder":
        """The last checkpoint of imitation: the frozen reference policy."""
        return CheckpointFolder(self.path / "sft")

    @property
    def logs(self) -> Path:
        """Folder of the engines' logs."""
        return self.path / "logs"

    def journal(self, iteration: int, writer: str) -> Path:
        """The purchases of one process for an iteration that is not stored."""
        return self.path / f"asked-{iteration:05d}-{writer}.jsonl"

    def journals(self, writer: str | None = None) -> dict[Path, int]:
        """The journals of all processes, or of one, in alphabetical order, with their iterations."""
        found = ((path, _JOURNAL.fullmatch(path.name)) for path in sorted(self.path.glob("asked-*.jsonl")))
        return {path: int(match[1]) for path, match in found if match and writer in (None, match[2])}

    @property
    def abandoned(self) -> Path:
        """Purchases of work that a run of an earlier version discarded."""
        return self.path / "abandoned.jsonl"

    @property
    def report(self) -> Path:
        """The results; written last, so it exists if and only if the run has finished."""
        return self.path / "report.json"

    @property
    def is_finished(self) -> bool:
        """Whether the run has written its report."""
        return self.report.is_file()

    @property
    def report_page(self) -> Path:
        """The results as a web page."""
        return self.path / "report.html"

    @property
    def frontier(self) -> Path:
        """What `agile-ray frontier` measures of the run."""
        return self.path / "frontier.json"

    @property
    def replay(self) -> Path:
        """Which run this folder replays, and how the two compare."""
        return self.path / "replay.json"

    def repriced(self, price: int) -> Path:
        """The results at another price of one ask, in thousandths."""
        return self.path / f"reprice-{price / 1000:g}.json"

    @property
    def training_log(self) -> Path:
        """What the training printed, where several run at once on one machine."""
        return self.logs / "train.log"

    def roll_call(self, word: str) -> Path:
        """Folder in which the processes of a run find out that they see the same disk; deleted once they know."""
        return self.path / f".roll-call.{word}.aside"

    @property
    def lock(self) -> Path:
        """Locked by the process that trains here."""
        return self.path / ".lock"


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """A checkpoint: a Hugging Face folder that plain vLLM serves, and what resuming needs in `resume/`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def adapter(self) -> Path:
        """Folder of the adapter, as peft reads it; absent without LoRA. The checkpoint's weights include it."""
        return self.path / "adapter"

    @property
    def learners(self) -> Path:
        """Folder of the learners: optimizer, critic and random states."""
        return self.path / "resume" / "learners"

    @property
    def lanes(self) -> Path:
        """Folder of the rollout lanes with their memories; absent before the first iteration."""
        return self.path / "resume" / "lanes"

    @property
    def credit(self) -> Path:
        """What credit assignment remembers of earlier iterations; absent before the first iteration."""
        return self.path / "resume" / "credit"

    @property
    def state(self) -> Path:
        """Progress of the run, its scores on validation and the schema version."""
        return self.path / "resume" / "state.json"

    @property
    def is_complete(self) -> bool:
        """Whether it has its state file. `checkpoint_fault` in checkpoints.py says whether it is whole too."""
        return self.state.is_file()


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """The folder of a sweep: one run folder for each run, and files about all of them."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def table(self) -> Path:
        """The results of the finished runs, written by `agile-ray sweep`."""
        return self.path / "sweep.json"

    @property
    def index(self) -> Path:
        """Every run of the sweep, begun or not, and how it goes; written by `agile-ray sweep`."""
        return self.path / "index.json"

    def spec(self, run: str) -> Path:
        """The configuration that the job of a run is started with."""
        return self.path / ".specs" / f"{run}.yaml"

    @property
    def report_page(self) -> Path:
        """The results as a web page."""
        return self.path / "report.html"

    @property
    def frontier(self) -> Path:
        """What `agile-ray frontier` measures of the runs."""
        return self.path / "frontier.json"

    @property
    def study_table(self) -> Path:
        """What a study computes from the results."""
        return self.path / "table.json"

    @property
    def initial_learners(self) -> Path:
        """Folder of the learners as they start, while runs share machines."""
        return self.path / ".first"

    @property
    def lock(self) -> Path:
        """Locked by the process that runs the sweep."""
        return self.path / ".lock"

    def run(self, name: str) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.path / name)

    def runs(self) -> list[RunFolder]:
        """The runs that have started, in alphabetical order."""
        return [RunFolder(path.parent) for path in sorted(self.path.glob("*/config.yaml"))]

    def finished_runs(self) -> list[RunFolder]:
        """The runs that have a report, in alphabetical order."""
        return [RunFolder(path.parent) for path in sorted(self.path.glob("*/report.json"))]
