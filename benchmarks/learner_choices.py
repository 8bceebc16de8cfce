"""Measures what settings of the learner cost: tokens per second of imitation and of PPO, and memory of the ranks.

Each set of settings has processes of its own, one set after the other, and learns the same sessions of the teacher. The
first one is the config as it is; the others are named by `--try`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from agile_ray.config import RunConfig
from benchmarks.learn import learners, played, row
from launch.border import border
from launch.run import shipped_configs

EXAMPLE = """example:
  python benchmarks/learner_choices.py productqa env.data=FOLDER model.path=models/qwen05b \\
      --try learner.ranks=2 --try "imitation.dtype=float32 ppo.dtype=float32"
"""
LIMIT_S = 1200.0
"""Longest time of one set of settings, seconds."""
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one set of settings takes."""

    settings: str
    examples: int  # demonstrations of one pass
    tokens: int  # of them together
    imitate_per_s: float  # tokens per second of `imitate`, forward, backward and optimizer
    learn_per_s: float  # tokens per second of `learn`, likewise
    score_per_s: float  # tokens per second of `score`: two policies, forward only
    memory_gib: float  # all ranks' largest memory together


def cost(config: RunConfig, settings: str, *, batches: int) -> Cost:
    """Learn some batches of the teacher's sessions, after one that warms up.

    Args:
        settings: what they are called.
        batches: of `imitation.batch` demonstrations.
    """
    warm, *timed = played(config)[: batches + 1]
    with learners(config) as group:
        group.imitate(warm, step=0, steps=batches + 1)
        times = [time.perf_counter()]
        for step, batch in enumerate(timed, start=1):
            group.imitate(batch, step=step, steps=batches + 1)
        times.append(time.perf_counter())
        segments = [demonstration.segment for batch in timed for demonstration in batch]
        group.score(segments, [])
        times.append(time.perf_counter())
        group.learn([row(segment) for segment in segments], seed=0, progress=0.0)
        times.append(time.perf_counter())
        memory = sum(largest(process) for process in psutil.Process().children(recursive=True))
    tokens = sum(len(segment.token_ids) for segment in segments)
    imitating, scoring, learning = (later - earlier for earlier, later in zip(times, times[1:], strict=False))
    return Cost(
        settings=settings,
        examples=len(segments),
        tokens=tokens,
        imitate_per_s=tokens / imitating,
        learn_per_s=tokens / learning,
        score_per_s=tokens / scoring,
        memory_gib=memory / GIB,
    )


def largest(process: psutil.Process) -> int:
    """The most memory that a rank has had, bytes; 0 for other processes."""
    try:
        if "LearnerActor" not in " ".join(process.cmdline()):
            return 0
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (OSError, psutil.Error):  # it has ended
        return 0
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def table(costs: Sequence[Cost]) -> str:
    """A table in Markdown; speeds also relative to the first line's."""
    lines = [
        "| settings | tokens an example | imitation, tokens/s | PPO, tokens/s | scoring, tokens/s | memory, GiB |",
        "|---|---|---|---|---|---|",
    ]
    first = costs[0]
    for one in costs:
        speeds = [
            f"{getattr(one, name):.0f} ({getattr(one, name) / getattr(first, name):.2f})"
            for name in ("imitate_per_s", "learn_per_s", "score_per_s")
        ]
        lines.append(
            f"| {one.settings} | {one.tokens / one.examples:.0f} | {' | '.join(speeds)} | {one.memory_gib:.1f} |"
        )
    return "\n".join(lines)


def _apart(words: Sequence[str], settings: str, *, batches: int) -> Cost:
    """Measure one set of settings in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "cost.json"
        call = [sys.executable, __file__, *words, "--batches", str(batches), "--only", settings, "--json", str(found)]
        subprocess.run(call, check=True, timeout=LIMIT_S)
        [one] = json.loads(found.read_text())
    return Cost(**one)


def main() -> None:
    """Measure each set of settings and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="name of a shipped config, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the config")
    parser.add_argument(
        "--try", action="append", default=[], dest="tried", metavar="'KEY=VALUE ...'", help="further settings"
    )
    parser.add_argument("--batches", type=int, default=2, help="of imitation, timed; default: %(default)s")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # in a process of its own: the settings' name
    given = parser.parse_args()
    with border():
        if given.only is not None:
            fixed = ["run.name=benchmark", "ppo.epochs=1", "ppo.minibatches=1"]
            config = shipped_configs.read(given.config, [*fixed, *given.overrides])
            costs = [cost(config, given.only, batches=given.batches)]
        else:
            costs = [_apart([given.config, *given.overrides], "as configured", batches=given.batches)]
            for tried in given.tried:
                words = [given.config, *given.overrides, *tried.split()]
                costs.append(_apart(words, tried, batches=given.batches))
            print(table(costs))
        if given.json is not None:
            given.json.write_text(json.dumps([asdict(one) for one in costs], indent=1))


if __name__ == "__main__":
    main()
