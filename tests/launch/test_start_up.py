"""What the command line imports, and how long it takes to answer."""

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from agile_ray.scripted import guided
from agile_ray.scripted.references import REFERENCES
from launch.commands.reference_policies import GUIDES, REFERENCE_POLICIES

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    *("deepspeed", "faiss", "jinja2", "numpy", "pandas", "pyarrow", "ray", "rich", "scipy"),
    *("sentence_transformers", "sklearn", "tensorboard", "torch", "transformers", "vllm"),
}
TOP = (
    "train",
    "validate",
    "plan",
    "status",
    "report",
    "frontier",
    "show",
    "evaluate",
    "keys",
    "sweep",
    "replay",
    "table",
    "reprice",
    "submit",
    "jobs",
    "logs",
    "stop",
    "check",
    "data",
    "model",
    "study",
)
COMMANDS = [
    *((name,) for name in TOP),
    *(("model", name) for name in ("tiny", "smollm2", "from")),
    *(("study", name) for name in ("shop", "credit_worth", "three_prices", "stability")),
]
MAY_IMPORT = {
    ("keys",): set(),
    ("sweep", "prices", "--dry-run"): set(),
    ("train", "quickstart", "rollout.actors=0"): set(),  # refused: the config is read first
    ("reprice", "RUN", "--advice-cost", "2"): set(),  # refused: the price is checked first
    ("evaluate", "quickstart", "--policy", "oracle", "evaluate.sessions=48"): {
        *("faiss", "numpy", "pyarrow", "rich", "scipy"),  # Student's t
    },
    ("study", "shop", "--runs", "none", "--compare", "credit.mode"): set(),  # refused: no value is given
    ("jobs", "--address", "http://127.0.0.1:9"): set(),  # nothing answers: Ray's client is loaded after that
    ("stop", "x", "--address", "http://127.0.0.1:9"): set(),
    ("submit", "quickstart", "run.folder=/r", "model.path=/m", "--address", "http://127.0.0.1:9"): set(),
    ("submit", "quickstart", "run.folder=/r", "model.path=/m", "--manifest", "slurm"): set(),
    ("sweep", "prices", "run.folder=/r", "model.path=/m", "--address", "http://127.0.0.1:9"): set(),
    ("status", "quickstart"): {"rich"},
    ("validate", "quickstart"): {"faiss", "jinja2", "numpy", "pyarrow", "rich", "scipy"},
    ("plan", "quickstart"): {"faiss", "numpy", "pyarrow"},
}
"""Libraries of HEAVY that a command may import when it runs."""

CHILD = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from launch.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["agile-ray", *words]
    try:
        main()
    except SystemExit:
        print("heavy:", *sys.modules)
"""


def imported_by(*commands, folder):
    """The libraries of HEAVY that a fresh process has imported when each of the commands ends, one after the other."""
    call = [sys.executable, "-c", CHILD, json.dumps(commands)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=110, check=True, cwd=folder)
    lines = [line for line in done.stdout.splitlines() if line.startswith("heavy:")]
    return [HEAVY & set(line.split()) for line in lines]


def test_help_imports_no_heavy_library(tmp_path):
    asked = [(), *COMMANDS]
    found = imported_by(*((*words, "--help") for words in asked), folder=tmp_path)
    assert dict(zip(asked, found, strict=True)) == dict.fromkeys(asked, set())


@pytest.mark.parametrize("words", MAY_IMPORT, ids=" ".join)
def test_a_command_imports_no_heavy_library_that_it_does_not_need(words, tmp_path):
    [found] = imported_by(words, folder=tmp_path)
    assert found <= MAY_IMPORT[words]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("launch.report.wording", set()),
        ("launch.report.sweep_table", {"pyarrow"}),
        ("launch.report.page.run_page", {"ray", "scipy", "transformers"}),
        ("launch.commands.show", set()),
    ],
)
def test_a_report_module_does_not_import_what_books_and_tokens_need(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=True, cwd=ROOT
    )
    assert set(done.stdout.split()) & (heavy or HEAVY) == set()


def test_the_names_in_the_help_are_those_of_the_reference_policies():
    assert tuple(REFERENCES) == REFERENCE_POLICIES
    assert guided.GUIDES == GUIDES


def cpu_seconds(*words):
    """CPU time of a command, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, timeout=110, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("words", ["--help", "keys"])
def test_help_and_keys_answer_quickly(words):
    answers, baselines = [], []
    for _ in range(5):  # alternately, so that both run under the same load
        baselines.append(cpu_seconds("-c", "import pydantic, omegaconf, typer"))
        answers.append(cpu_seconds("-m", "launch.main", words))
    assert statistics.median(answers) < statistics.median(baselines) + 0.5  # 0.3 s is the aim; a busy machine is slower
