"""The GPU check: its table, and the whole check on a CPU with tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.check import COLUMNS, MISSING, Result, compared, table
from tests.gpu.sizes import CASES, ENGINE, SIZES

ROOT = Path(__file__).resolve().parents[2]
BARE = Result(case="bare", measured={"seconds": 2.0, "loss": 5.0, "peak_gib": 1.0})


def test_speeds_are_compared_with_bare_pytorch() -> None:
    zero2 = Result(case="zero2", measured={"seconds": 2.5, "loss": 5.05, "peak_gib": 3.0})
    found = compared([BARE, zero2], step_tokens=1000)
    assert [one.measured["tokens_per_second"] for one in found] == [500.0, 400.0]
    assert [one.measured["of_bare"] for one in found] == [1.0, 0.8]
    assert [one.failed for one in found] == ["", ""]


def test_another_loss_than_bare_pytorchs_fails() -> None:
    [_, found] = compared([BARE, Result(case="lora", measured={"seconds": 1.0, "loss": 5.2})], step_tokens=1000)
    assert found.failed == "loss 5.2000, bare PyTorch's is 5.0000"


def test_without_a_baseline_nothing_is_compared() -> None:
    missing = Result(case="bare", missing="the check's time is over")
    [_, found] = compared([missing, Result(case="zero1", measured={"seconds": 1.0, "loss": 5.2})], step_tokens=10)
    assert (found.measured["tokens_per_second"], found.failed, "of_bare" in found.measured) == (10.0, "", False)


def test_the_table_says_what_could_not_run_and_why() -> None:
    text = table(
        [BARE, Result(case="zero3", missing="deepspeed is not installed"), Result(case=ENGINE, failed="a | b")]
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert {len(line) for line in lines} == {len(COLUMNS)}
    assert lines[3][-1] == "not run: deepspeed is not installed"
    assert lines[4][-1] == "FAILED: a / b"


def test_a_case_without_its_package_ends_with_its_name(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None; sys.path.insert(0, '.')\nfrom tests.gpu.cases import main\n"
    words = [sys.executable, "-c", f"{blocked}sys.exit(main(['bare', {str(tmp_path)!r}, 'cpu']))"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout.split()) == (MISSING, ["torch", "is", "not", "installed"])


def test_sizes_divide_into_whole_passes_and_the_gpu_model_is_as_large_as_said() -> None:
    for size in SIZES.values():
        assert size.micro_batch_tokens % size.tokens == 0
        assert size.rows % (size.micro_batch_tokens // size.tokens) == 0
    gpu = SIZES["cuda"]
    parameters = gpu.layers * 16 * gpu.hidden**2 + gpu.vocabulary * gpu.hidden  # attention 4, MLP 3 x 4
    assert round(parameters / 1e6) == 435


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_whole_check_runs_on_a_cpu(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "tests/gpu/check.py",
        "--device",
        "cpu",
        "--limit",
        "500",
        "--json",
        tmp_path / "check.json",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads((tmp_path / "check.json").read_text())["cases"]
    assert [one["case"] for one in cases] == [*CASES, ENGINE]
    assert [one["missing"] + one["failed"] for one in cases] == [""] * len(cases)
    assert all(one["tokens_per_second"] > 0 for one in cases if one["case"] != ENGINE)
    assert cases[-1]["sync_seconds"] > 0
