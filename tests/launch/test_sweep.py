"""Sweeps: their runs, how they resume and stop, and the table at their end."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.errors import ConfigError
from agile_ray.evaluation import intervals
from agile_ray.evaluation.choice import Choice
from agile_ray.record.folder import SweepFolder
from agile_ray.record.history import Event, Line
from launch.report import sweep_table, wording
from launch.report.summary import build
from launch.run import shipped_configs, sweep_plan
from launch.run.lock import alone
from tests.conftest import one_line
from tests.fakes.played import PLAYED, played

SWEEP = """
base: quickstart
grid:
  env.advice_cost: [0.1, 0.5]
  seed: [0, 1]
runs:
  - [imitation.asking=judgement, run.name=judgement]
"""


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(SWEEP)
    return path


def test_a_sweep_is_every_combination_of_its_grid_then_its_list(sheet):
    jobs = sweep_plan.plan(sheet, sweep_plan.read_plan(sheet), ["run.folder=/runs"])
    assert [(job.config.run.name, job.config.env.advice_cost, job.config.seed) for job in jobs] == [
        ("advice_cost-0.1_seed-0", 0.1, 0),
        ("advice_cost-0.1_seed-1", 0.1, 1),
        ("advice_cost-0.5_seed-0", 0.5, 0),
        ("advice_cost-0.5_seed-1", 0.5, 1),
        ("judgement", 0.3, 0),
    ]
    assert {job.config.run.folder for job in jobs} == {Path("/runs/prices")}
    assert jobs[-1].config.imitation.asking == "judgement"


@pytest.mark.parametrize("line", ["grid: {ppo.stop_kl: [0.02]}", "runs: [[ppo.stop_kl=0.02]]"])
def test_a_sweep_with_the_old_name_of_a_key_is_refused_with_the_new_name(tmp_path, line):
    sheet = tmp_path / "bounds.yaml"
    sheet.write_text(f"base: shop\n{line}\n")
    with pytest.raises(ConfigError, match=r"unknown key ppo.stop_kl; it is named ppo.early_stop_kl now"):
        sweep_plan.plan(sheet, sweep_plan.read_plan(sheet))


def test_a_grid_may_switch_a_key_off(tmp_path):
    sheet = tmp_path / "bounds.yaml"
    sheet.write_text("base: shop\ngrid: {ppo.early_stop_kl: [null, 0.02]}\n")
    jobs = sweep_plan.plan(sheet, sweep_plan.read_plan(sheet))
    assert [(job.config.run.name, job.config.ppo.early_stop_kl) for job in jobs] == [
        ("early_stop_kl-null", None),
        ("early_stop_kl-0.02", 0.02),
    ]


def test_the_values_of_a_sweep_keep_their_spelling(tmp_path):
    sheet = tmp_path / "names.yaml"
    sheet.write_text(
        "base: quickstart\ngrid: {run.name: [007, 1e3], ppo.clip: [0.10]}\ncompare: {key: run.name, to: 007}\n",
        encoding="utf-16",
    )
    jobs = sweep_plan.plan(sheet, sweep_plan.read_plan(sheet))
    assert [(job.config.run.name, job.config.ppo.clip) for job in jobs] == [("007", 0.1), ("1e3", 0.1)]
    assert jobs[0].words[2:4] == ("run.name=007", "ppo.clip=0.10")


def test_a_run_named_after_long_overrides_has_a_name_that_a_disk_takes(tmp_path):
    sheet = tmp_path / "long.yaml"
    sheet.write_text(f"base: quickstart\ngrid: {{env.expert: [recorded:/{'a' * 300}, recorded:/{'a' * 301}]}}\n")
    names = [job.config.run.name for job in sweep_plan.plan(sheet, sweep_plan.read_plan(sheet))]
    assert [len(name) for name in names] == [200, 200]
    assert names[0] != names[1]


@pytest.mark.parametrize("override", ["env.advice_cost=0.9", "seed=5", "run.name=mine"])
def test_an_override_of_a_key_that_the_sweep_sets_is_refused(call, sheet, override):
    code, _, said = call("sweep", sheet, override, "--dry-run")
    assert code == 2
    assert f"override {override}: the sweep prices sets {override.partition('=')[0]} itself" in said


def test_a_second_sweep_in_the_same_folder_is_refused(call, sheet, tmp_path):
    with alone(SweepFolder(tmp_path / "prices")):
        code, _, said = call("sweep", sheet, f"run.folder={tmp_path}")
    assert code == 2
    assert f"{tmp_path / 'prices'}: only one process at a time may train there, and process {os.getpid()} does" in said


def test_a_dry_sweep_prints_its_commands_and_runs_nothing(call, sheet, tmp_path):
    code, out, _ = call("sweep", sheet, f"run.folder={tmp_path}", "--dry-run")
    assert code == 0
    assert len(out.splitlines()) == 5
    assert out.startswith(f"agile-ray train quickstart run.folder={tmp_path} env.advice_cost=0.1 seed=0 run.name=")
    assert not (tmp_path / "prices").exists()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_each_run_of_a_sweep_is_told_which_programs_follow_it(call, sheet, tmp_path, monkeypatch, how):
    words = ("--track", "mlflow", "--track", "wandb") if how == "option" else ()
    if how == "environment":
        monkeypatch.setenv("AGILE_TRACK", "mlflow wandb")
    code, out, _ = call("sweep", sheet, f"run.folder={tmp_path}", *words, "--dry-run")
    assert code == 0
    assert [line.endswith(" --track mlflow --track wandb") for line in out.splitlines()] == [True] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: quickstart", "found neither; `agile-ray train` or `submit` trains a single run"),
        ("base: quickstart\nruns: [[seed=1, run.name=a], [seed=2, run.name=a]]", "these name several: a"),
        ("base: quickstart\nruns: [[sed=1]]", "unknown key sed; the nearest known one is seed"),
        ("base: quickstart\nruns: [[seed=1], [seed]]", "override 'seed': overrides are written key=value"),
        (
            "base: quickstart\ngrid: {credit.mode: [none, linked], seed: [0]}\ncompare: {key: credit.mod, to: none}",
            "compare.key must be a key of grid or runs, found credit.mod; there are: credit.mode, seed",
        ),
        (
            "base: quickstart\ngrid: {credit.mode: [none, linked]}\ncompare: {key: credit.mode, to: fitted}",
            "compare.to must be a value that a run gives credit.mode, found fitted; there are: none, linked",
        ),
        (
            "base: quickstart\ngrids: {seed: [1]}",
            "bad.yaml: unknown key grids; the nearest known one is grid",
        ),
        (
            "base: quickstart\ngrid: {seed: [3], env.advice_cost: [0.2], seed: [4]}",
            "every key stands once, found seed twice",
        ),
        ("base: quickstart\nruns: [[seed=1]]\nbase: toy", "every key stands once, found base twice"),
        ("base: quickstart\nruns: [[seed=1, credit.mode=none, seed=2]]", "a run sets every key once, found seed twice"),
        ("base: quickstart\nruns: [[seed=1]]\ngrid: {seed: []}", "grid.seed: a key of the grid has at least one value"),
        (
            "base: quickstart\ngrid: {ppo.clip: [0.1, .10]}",
            "clip-0.1 and clip-.10 are the same run, spelled in two ways",
        ),
        ("base: quickstart\nruns: [[run.name=table.json]]", "run.name: table.json is a file of the sweep"),
        ("base: quickstart\nruns: [[run.name=..]]", "run.name: "),
        ("base: quickstart\ngrid: {a: [", "bad.yaml: line 2: "),
        ("base: quickstart\nruns: [{seed: 1}]", "runs.0: Input should be a valid tuple, found {'seed': 1}"),
    ],
)
def test_a_bad_sweep_is_refused_before_anything_runs(call, tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    code, _, err = call("sweep", tmp_path / "bad.yaml")
    assert code == 2
    assert said in one_line(err)


def test_a_sweep_continues_after_a_failed_run_skips_finished_runs_and_names_the_failed(call, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("base: quickstart\nruns: [[run.name=bad], [run.name=good]]")
    finished = tmp_path / "s" / "good"
    finished.mkdir(parents=True)
    finished.joinpath("report.json").write_text(measured(run="good", seed=0).model_dump_json())
    code, out, err = call("sweep", path, f"run.folder={tmp_path}", f"model.path={tmp_path / 'none'}")
    assert code == 1
    assert one_line(err) == "agile-ray: sweep s: 1 of 2 runs failed: bad (exit code 2)"
    assert "good: finished" in out
    table = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert table["failed"] == ["bad (exit code 2)"]
    assert [(row["run"], row["group"]) for row in table["rows"]] == [("good", "base")]


def test_the_table_of_a_running_sweep_shows_the_finished_runs_and_trains_nothing(call, sheet, tmp_path):
    assert call("sweep", sheet, f"run.folder={tmp_path}", "--table")[:2] == (0, "0 of 5 runs are finished\n")
    assert not (tmp_path / "prices").exists()
    finished = tmp_path / "prices" / "advice_cost-0.5_seed-1"
    finished.mkdir(parents=True)
    finished.joinpath("report.json").write_text(measured(run=finished.name, seed=1).model_dump_json())
    with alone(SweepFolder(tmp_path / "prices")):
        code, out, _ = call("sweep", sheet, f"run.folder={tmp_path}", "--table")
    assert code == 0
    assert out.startswith("1 of 5 runs are finished\n")
    table = json.loads((tmp_path / "prices" / "sweep.json").read_text())
    assert [row["run"] for row in table["rows"]] == [finished.name]


def test_a_sweep_passes_sigterm_on_to_its_run_and_ends_after_it(sheet, tmp_path):
    run = tmp_path / "python"
    run.write_text("#!/bin/sh\nsleep 600 >&2 &\ntrap 'kill $!; echo saved; exit 0' TERM\necho up\nwait\n")
    run.chmod(0o755)
    code = f"import sys; from launch.main import main; sys.executable = {str(run)!r}; main()"
    words = ["sweep", str(sheet), f"run.folder={tmp_path}"]
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as leader:
        while leader.stdout.readline() != "up\n":
            assert leader.poll() is None
        leader.terminate()
        assert (leader.wait(timeout=110), leader.stdout.read()) == (128 + signal.SIGTERM, "saved\n")


def test_a_sweep_passes_sigterm_on_to_a_run_that_is_starting(sheet, tmp_path):
    run, up = tmp_path / "python", tmp_path / "up"
    run.write_text(f"#!/bin/sh\nsleep 600 >&2 &\ntrap 'kill $!; echo saved; exit 0' TERM\ntouch {up}\nwait\n")
    run.chmod(0o755)
    code = f"""
import os, signal, subprocess, sys, time
from pathlib import Path
from launch.main import main
class Signalled(subprocess.Popen):
    def __init__(self, *words):
        super().__init__(*words)
        while not Path({str(up)!r}).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen, sys.executable = Signalled, {str(run)!r}
main()
"""
    words = ["sweep", str(sheet), f"run.folder={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, timeout=110)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout.endswith("\nsaved\n")


def measured(*, run, seed):
    config = RunConfig(run=Run(name=run), model=Model(path=Path("m")), env=Env(name="shop"), seed=seed)
    return build({name: played(name) for name in PLAYED}, config=config, lines=[], starts=[])


def test_a_summary_contains_the_lead_of_ppo_over_imitation_and_the_best_reference():
    report = measured(run="a", seed=3)
    one = sweep_table.summarize(report, group="g")
    assert (one.run, one.group, one.seed, one.advice_cost) == ("a", "g", 3, 0.3)
    assert (one.asked_share, one.total_score, one.ci95) == (0.5, report.ppo.total_score, report.ppo.ci95)
    assert set(one.minus) == {"sft", "sft_sampled", report.best_reference, "always_ask", "never_ask"}
    assert one.minus["sft"].mean == pytest.approx(report.ppo.total_score - report.sft.total_score)
    assert one.closed == report.closed


def test_the_table_shows_the_total_on_validation_of_the_checkpoint_that_was_tested(capsys):
    config = RunConfig(run=Run(name="a"), model=Model(path=Path("m")), env=Env(name="shop"))

    def line(iteration, total):
        metrics = {"total_score": total, "accuracy": 0.9, "asked_share": 0.2}
        state = {"imitation_steps": 0, "iteration": iteration, "version": iteration}
        return Line(
            event=Event.EVALUATION, name="validation", **state, metrics=metrics, counts={}, dropped=(), seconds={}
        )

    results = {name: played(name) for name in PLAYED}
    lines = [line(7, 0.6123), line(14, 0.7349), line(21, 0.7)]
    runs = [
        sweep_table.summarize(build(results, config=config, lines=lines[:count], starts=[]), group="g")
        for count in (3, 1)
    ]
    assert [run.validation for run in runs] == [0.7349, 0.6123]
    chosen = Choice(iteration=21, total=0.7, highest=14, highest_total=0.73, error=0.04, evaluated=3, unpaired=())
    latest = build(results, config=config, lines=lines, starts=[], chosen=chosen)
    assert sweep_table.summarize(latest, group="g").validation == 0.7
    (group,) = sweep_table.groups(runs)
    assert group.validation.mean == pytest.approx((0.7349 + 0.6123) / 2)
    sweep_table.show(runs)
    each, pooled = capsys.readouterr().out.split("all seeds of")
    assert "validation" in each.splitlines()[0]
    assert all(total in each for total in ("0.735", "0.612"))
    assert "0.674" in pooled
    assert sweep_table.groups([sweep_table.summarize(measured(run="b", seed=0), group="g")])[0].validation is None


@pytest.mark.parametrize("name", sorted(shipped_configs.shipped_in(shipped_configs.SWEEPS)))
def test_settings_of_a_shipped_sweep_can_be_chosen_on_validation(name):
    path = shipped_configs.find(name, folder=shipped_configs.SWEEPS)
    for job in sweep_plan.plan(path, sweep_plan.read_plan(path)):
        assert job.config.loop.evaluate_every is not None


def test_the_interval_over_seeds_is_students():
    one = intervals.estimate([0.1, 0.2, 0.3])
    assert one.mean == pytest.approx(0.2)
    assert one.ci95 == pytest.approx((0.2 - 4.3027 * 0.1 / 3**0.5, 0.2 + 4.3027 * 0.1 / 3**0.5), abs=1e-4)
    assert intervals.estimate([0.4]) == intervals.Estimate(mean=0.4, ci95=None)


def test_runs_that_differ_by_their_seed_are_one_group(capsys):
    runs = [sweep_table.summarize(measured(run=f"r{seed}", seed=seed), group=group) for seed, group in enumerate("xxy")]
    assert [(group.group, group.runs) for group in sweep_table.groups(runs)] == [("x", 2), ("y", 1)]
    sweep_table.show(runs)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + 1 + 1 + 2 + 1 + 1 + 2
    assert lines[6].split()[:2] == ["x", "2"]
    assert "colleague" not in lines[9]  # the titles of the last table


def of_colleague(sessions):
    """The same sessions, where all that was asked was asked of the colleague."""
    return [
        replace(one, receipts=tuple(replace(receipt, key="s#0#0@colleague", price=100) for receipt in one.receipts))
        for one in sessions
    ]


def test_a_sweep_compares_with_references_that_have_the_same_expert_and_says_whom_policies_ask(capsys):
    config = RunConfig(run=Run(name="a"), model=Model(path=Path("m")), env=Env(name="shop"))
    results = {name: played(name) for name in PLAYED}
    results["always_colleague"] = of_colleague(results["always_ask"])
    results["oracle"] = of_colleague(results["oracle"])
    mixed = results["ppo"][:1] + of_colleague(results["ppo"][1:])
    one = build(results, config=config, lines=[], starts=[])
    two = build(results | {"ppo": mixed}, config=config, lines=[], starts=[])
    assert (one.best_reference, two.best_reference) == ("always_colleague", "always_colleague")
    runs = [sweep_table.summarize(report, group="x") for report in (one, two)]
    assert [run.experts for run in runs] == [{"expert": 0.5, "colleague": 0.0}, {"expert": 0.25, "colleague": 0.25}]
    (group,) = sweep_table.groups(runs)
    assert list(group.minus) == ["always_ask", "always_colleague", "never_ask", "best without future"]
    gained = [report.ppo.total_score - report.references["never_ask"].total_score for report in (one, two)]
    assert group.minus["never_ask"].mean == pytest.approx(sum(gained) / 2)
    assert group.oracle_experts["colleague"].mean == one.references["oracle"].asked_share
    sweep_table.show(runs)
    shown = capsys.readouterr().out.splitlines()
    assert "oracle asks colleague" in shown[-2]
    assert wording.signed(group.minus["always_colleague"].mean) in shown[-1]


@pytest.mark.parametrize(("share", "shown"), [(None, ""), (-7.24, "none"), (0.0, "none"), (0.42, "42%"), (1.5, "150%")])
def test_a_run_behind_the_best_reference_closes_none_of_the_distance(share, shown):
    assert wording.closed(share) == shown
