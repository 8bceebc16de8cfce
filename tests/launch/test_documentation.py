"""Every command in the documentation parses, and every one that needs no training also runs."""

import os
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from launch.commands.reference_policies import REFERENCE_POLICIES
from launch.main import app
from launch.reference import reference
from launch.run import shipped_configs, sweep_plan

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "commands.md")]
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s+#.*|\s{2,}\S.*")
"""A comment after a command: it begins with # or follows two spaces."""
VARIABLES = re.compile(r"^(\$\s+)?([A-Z_]+=\S+\s+)*")


def shown(page):
    """The commands in a page's fenced blocks, as words without comments and environment variables."""
    for block in FENCED.findall(page.read_text()):
        for line in block.replace("\\\n", " \\").splitlines():
            command = VARIABLES.sub("", line)
            if command.startswith(("agile-ray ", "make ")):
                joined = " ".join(COMMENT.sub("", part) for part in re.split(r"\s+\\\s*", command))
                yield tuple(shlex.split(joined))


def examples(command):
    """The example commands in the help of a command and of its subcommands."""
    for line in (command.help or "").splitlines():
        if match := re.match(r"^\s*(?:Example: )?(agile-ray .*)", line):
            yield tuple(shlex.split(COMMENT.sub("", match[1].partition("|")[0])))
    for below in getattr(command, "commands", {}).values():
        yield from examples(below)


SHOWN = sorted({*(words for page in PAGES for words in shown(page)), *examples(get_command(app))})
COMMANDS = [words[1:] for words in SHOWN if words[0] == "agile-ray"]


def parsed(words):
    """The parameters of a command, without running it."""
    command, context = get_command(app), None
    name, rest = "agile-ray", list(words)
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "commands"):
            return name, context.params
        name, command, rest = command.resolve_command(context, rest)


def refers_to_a_file(name):
    return Path(name).suffix in {".yaml", ".yml"}


@pytest.mark.parametrize("words", [words for words in COMMANDS if "--help" not in words], ids=" ".join)
def test_a_shown_command_parses_and_its_config_loads(words):
    name, params = parsed(words)
    overrides = [word for word in params.get("overrides") or () if word != "..."]
    if name in ("train", "evaluate", "submit") and not refers_to_a_file(params["config"]):
        shipped_configs.read(params["config"], overrides)
    if name == "sweep" and not refers_to_a_file(params["sweep"]):
        path = shipped_configs.find(params["sweep"], folder=shipped_configs.SWEEPS)
        sweep_plan.plan(path, sweep_plan.read_plan(path), overrides)


def runs_here(words):
    """Whether a command needs no model, no run, no data and no file of the user."""
    if words[0] == "evaluate":
        return words[1] == "quickstart" and words[words.index("--policy") + 1] in REFERENCE_POLICIES
    return words[0] == "keys" or {"--help", "--dry-run"} & set(words)


@pytest.mark.parametrize("words", [words for words in COMMANDS if runs_here(words)], ids=" ".join)
def test_a_shown_command_that_needs_no_training_runs(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("evaluate.sessions=48",) if words[0] == "evaluate" else ()
    code, out, err = call(*words, *small)
    assert (code, err) == (0, "")
    assert out


DATA = Path(os.environ.get("AGILE_DATA", ROOT / "data")).resolve() / "productqa"


@pytest.mark.data
@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[:2] == ("evaluate", "productqa") and "FOLDER" in " ".join(words)],
    ids=" ".join,
)  # fmt: skip
def test_a_shown_command_on_productqa_runs_on_its_data(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(*(word.replace("FOLDER", str(DATA)) for word in words), "evaluate.sessions=48")
    assert (code, "total score" in out) == (0, True)


@pytest.mark.parametrize("words", [words for words in SHOWN if words[0] == "make"], ids=" ".join)
def test_a_shown_target_is_in_the_makefile(words):
    makefile = (ROOT / "Makefile").read_text()
    targets = {*re.findall(r"^([a-z_]+):", makefile, re.MULTILINE)}
    targets |= {*re.search(r"^STUDIES := (.*)$", makefile, re.MULTILINE)[1].split()}
    assert [word for word in words[1:] if "=" not in word and word not in targets] == []


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "benchmarks").glob("*.py"))], ids=lambda page: f"{page.parent.name}/{page.name}"
)
def test_a_benchmark_is_shown_as_it_can_be_started(page):
    for name in re.findall(r"python benchmarks/(\w+)\.py", page.read_text()):
        text = (ROOT / "benchmarks" / f"{name}.py").read_text()
        assert "from benchmarks" not in text or "sys.path.insert" in text, f"show python -m benchmarks.{name}"
    for name in re.findall(r"python -m benchmarks\.(\w+)", page.read_text()):
        assert "__main__" in (ROOT / "benchmarks" / f"{name}.py").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_point_to_existing_files(page):
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not page.parent.joinpath(target).exists()] == []


def test_commands_are_found_in_readme_and_help():
    assert {"quickstart", "--policy"} <= {word for words in COMMANDS for word in words}
    assert list(shown(ROOT / "README.md"))


def test_the_command_line_reference_is_current():
    assert (ROOT / "docs" / "commands.md").read_text() == reference(), (
        "run `python -m launch.reference > docs/commands.md`"
    )
