"""Checks and measures learner and engine on one GPU in under five minutes, with what is installed there.

    python tests/gpu/check.py [--device cpu|cuda] [--json FILE] [--only CASE,CASE] [--limit SECONDS]

Needs torch and transformers. Cases that need more, and the packages that they lack, are listed: the learner needs
deepspeed, pydantic and pyyaml, LoRA peft too, the engine vllm and this project installed. Each case runs in a process
of its own, one after the other:

    bare                 bare PyTorch on the same model and tokens: the baseline of tokens per second
    zero1, zero2, zero3  the learner in bfloat16, one rank
    checkpointing, lora, lora_checkpointing
                         under ZeRO 2: what they save of memory and cost of time
    engine               vLLM: generation, and other weights loaded in flight and checked

A learner that computes another loss than bare PyTorch fails the check. Exit code 1: a case failed.
"""

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.gpu.sizes import CASES, ENGINE, SIZES  # noqa: E402  after the path

LIMIT_S = 285.0
"""Time of all cases together, seconds, unless --limit sets another; a case that would begin later is left out."""
MISSING = 3
SAME = 0.02
"""Largest relative difference between the losses of a learner and of bare PyTorch: rounding in bfloat16."""
SHAPES = {
    "seconds": "{:.3f}",
    "tokens_per_second": "{:.0f}",
    "of_bare": "{:.2f}",
    "peak_gib": "{:.2f}",
    "loss": "{:.4f}",
}
REMARKED = ("generated_per_second", "sync_seconds", "version_mib")
COLUMNS = ("case", "seconds/step", "tokens/s", "of bare", "peak GiB", "loss", "remark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case: what it measured, or why not."""

    case: str
    measured: dict[str, float] = field(default_factory=dict)
    missing: str = ""  # why it could not run
    failed: str = ""


def measure(case: str, folder: Path, *, device: str, left_s: float) -> Result:
    """Run a case in a process of its own."""
    if left_s <= 0:
        return Result(case=case, missing="the check's time is over")
    words = [sys.executable, "-m", "tests.gpu.cases", case, str(folder), device]
    started = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = started.communicate(timeout=left_s)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)  # with compilers and engines that it has started
        started.communicate(timeout=60)
        return Result(case=case, failed=f"longer than the {left_s:.0f} s that were left")
    last = (out.strip().splitlines() or [""])[-1]
    if started.returncode == MISSING:
        return Result(case=case, missing=last)
    if started.returncode:
        return Result(case=case, failed=" ".join(err.split())[-400:] or f"exit code {started.returncode}")
    return Result(case=case, measured=json.loads(last))


def compared(results: Sequence[Result], *, step_tokens: int) -> list[Result]:
    """Add tokens per second and their ratio to bare PyTorch's; a learner with another loss has failed."""
    bare = next((one.measured for one in results if one.case == "bare"), {})
    found: list[Result] = []
    for one in results:
        measured, failed = dict(one.measured), one.failed
        if "seconds" in measured:
            measured["tokens_per_second"] = step_tokens / measured["seconds"]
        if {"seconds", "loss"} <= measured.keys() & bare.keys():
            measured["of_bare"] = bare["seconds"] / measured["seconds"]
            if not math.isclose(measured["loss"], bare["loss"], rel_tol=SAME):
                failed = f"loss {measured['loss']:.4f}, bare PyTorch's is {bare['loss']:.4f}"
        found.append(replace(one, measured=measured, failed=failed))
    return found


def table(results: Sequence[Result]) -> str:
    """A Markdown table, a line for each case."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for one in results:
        cells = [shape.format(one.measured[name]) if name in one.measured else "" for name, shape in SHAPES.items()]
        others = ", ".join(f"{name} {value:.2f}" for name, value in one.measured.items() if name in REMARKED)
        remark = f"FAILED: {one.failed}" if one.failed else f"not run: {one.missing}" if one.missing else others
        lines.append(f"| {' | '.join([one.case, *cells, remark.replace('|', '/')])} |")
    return "\n".join(lines)


def machine(device: str) -> dict[str, str]:
    """What the figures were measured on."""
    import torch
    import transformers

    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return {
        "device": device,
        "name": name,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(SIZES), help="default: cuda where torch finds a GPU")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--only", default="", help="cases, with commas between; default: all")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of all cases; default: %(default)s")
    return parser.parse_args()


def main() -> int:
    """Run the cases; returns the exit code."""
    begin, given = time.monotonic(), arguments()
    names = given.only.split(",") if given.only else [*CASES, ENGINE]
    if unknown := sorted({*names} - {*CASES, ENGINE}):
        print(f"--only: a case is one of {', '.join([*CASES, ENGINE])}; found {', '.join(unknown)}", file=sys.stderr)
        return 2
    import torch

    from tests.gpu.cases import make_model

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    about, results = machine(device), list[Result]()
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="agile-ray-") as folder:
        make_model(Path(folder), SIZES[device])
        for name in names:
            left_s = given.limit - (time.monotonic() - begin)
            results.append(measure(name, Path(folder), device=device, left_s=left_s))
            print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    results = compared(results, step_tokens=SIZES[device].step_tokens)
    print(table(results))
    if given.json:
        cases = [{"case": one.case, **one.measured, "missing": one.missing, "failed": one.failed} for one in results]
        given.json.write_text(json.dumps({"machine": about, "cases": cases}, indent=1) + "\n")
    return 1 if any(one.failed for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
