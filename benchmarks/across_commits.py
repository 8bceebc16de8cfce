"""Trains one config at several commits over several seeds, and prints one table: what each change is worth.

FOLDER/trees/COMMIT     a git worktree of each commit
FOLDER/runs/NAME-SEED   a run's folder
FOLDER/table.md         the table, rewritten after each run

Runs come seed by seed, so that a study that is stopped has compared all variants on its first seeds. The same command
resumes: finished runs are kept, and the interrupted one goes on from its last checkpoint.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field

from agile_ray.evaluation.intervals import estimate
from launch.border import border

EXAMPLE = """STUDY is a YAML file:

  config: quickstart
  variants:
    - {name: before, commit: 2a5f8f4, seeds: [0, 1, 2]}
    - {name: gold, commit: main, seeds: [0, 1, 2], overrides: [imitation.answers=gold]}

example:
  python benchmarks/across_commits.py benchmarks/faults.yaml --folder runs/faults

Every commit runs with the packages of this interpreter. `validation` is the total on the validation split after the
last iteration: choose by it, not by the other columns, which are of the test split.
"""
ROOT = Path(__file__).resolve().parents[1]
REPORT = "report.json"
GIT_S = 300.0
"""Longest wait for one git command, seconds."""
TITLES = (
    *("variant", "runs", "total", "95 % over seeds", "sampled", "asked", "closed", "95 % over seeds"),
    *("validation", "oracle", "minutes"),
)


class Variant(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    commit: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()


class Study(BaseModel):
    """A study's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str
    variants: tuple[Variant, ...]

    def runs(self) -> list[tuple[Variant, int]]:
        """All runs, seed by seed."""
        seeds = sorted({seed for variant in self.variants for seed in variant.seeds})
        return [(variant, seed) for seed in seeds for variant in self.variants if seed in variant.seeds]


class Outcome(BaseModel):
    """What the table needs of a finished run."""

    model_config = ConfigDict(frozen=True)

    total: float
    sampled: float
    asked: float
    oracle: float
    closed: float
    validation: float
    minutes: float

    @classmethod
    def of(cls, run: Path) -> "Outcome":
        """Read a finished run. Only fields that every version of the report has are used."""
        report = json.loads((run / REPORT).read_text())
        validations = [point["total_score"] for point in report["progress"] if point["of"] == "validation"]
        return cls(
            total=report["ppo"]["total_score"],
            sampled=report["ppo_sampled"]["total_score"],
            asked=report["ppo"]["asked_share"],
            oracle=report["references"]["oracle"]["total_score"],
            closed=report["closed"],
            validation=validations[-1],
            minutes=sum(report["seconds"].values()) / 60,
        )


def main() -> None:
    """Run a study, or as much of it as is left."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="YAML file of the study")
    parser.add_argument("--folder", type=Path, required=True, help="where runs and table are kept")
    parser.add_argument("--seeds", type=int, default=None, help="run only seeds below this one")
    given = parser.parse_args()
    study = Study.model_validate(OmegaConf.to_container(OmegaConf.load(given.study)))
    folder = given.folder.absolute()
    with border():
        for variant, seed in study.runs():
            if given.seeds is None or seed < given.seeds:
                _train(study.config, variant, seed, folder)
                (folder / "table.md").write_text(_table(study, folder))
    print(_table(study, folder))


def _run_folder(folder: Path, variant: Variant, seed: int) -> Path:
    return folder / "runs" / f"{variant.name}-{seed}"


def _train(config: str, variant: Variant, seed: int, folder: Path) -> None:
    run = _run_folder(folder, variant, seed)
    if (run / REPORT).exists():
        return
    tree = _tree(variant.commit, folder)
    model = folder / "models" / tree.name
    if not model.exists():
        _agile_ray(tree, "model", "tiny", "--output", str(model))
    print(f"{run.name}: training", flush=True)
    where = (f"run.folder={run.parent}", f"run.name={run.name}", f"model.path={model}", f"seed={seed}")
    _agile_ray(tree, "train", config, *where, *variant.overrides)


def _tree(commit: str, folder: Path) -> Path:
    """A worktree of a commit."""
    name = _git("rev-parse", "--short", f"{commit}^{{commit}}")
    tree = folder / "trees" / name
    if not tree.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(tree), name)
    return tree


def _git(*words: str) -> str:
    done = subprocess.run(("git", *words), cwd=ROOT, check=True, capture_output=True, text=True, timeout=GIT_S)
    return done.stdout.strip()


def _agile_ray(tree: Path, *words: str) -> None:
    """Run the command line of a worktree; its packages come before installed ones, also in Ray's workers."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    subprocess.run((sys.executable, "-m", "launch.main", *words), cwd=tree, env=environment, check=True)


def _table(study: Study, folder: Path) -> str:
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    for variant in study.variants:
        folders = [_run_folder(folder, variant, seed) for seed in variant.seeds]
        outcomes = [Outcome.of(run) for run in folders if (run / REPORT).exists()]
        if outcomes:
            lines.append(_line(variant, outcomes))
    return "\n".join(lines) + "\n"


def _line(variant: Variant, outcomes: Sequence[Outcome]) -> str:
    def mean(name: str) -> str:
        return f"{statistics.fmean(getattr(one, name) for one in outcomes):.3f}"

    def interval(name: str) -> str:
        found = estimate([getattr(one, name) for one in outcomes]).ci95
        return "–" if found is None else f"{found[0]:.3f} to {found[1]:.3f}"

    cells = (
        variant.name,
        str(len(outcomes)),
        f"{mean('total')} ({' '.join(f'{one.total:.3f}' for one in outcomes)})",
        interval("total"),
        mean("sampled"),
        f"{mean('asked')} ({' '.join(f'{one.asked:.3f}' for one in outcomes)})",
        f"{mean('closed')} ({' '.join(f'{one.closed:.2f}' for one in outcomes)})",
        interval("closed"),
        mean("validation"),
        mean("oracle"),
        mean("minutes"),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
