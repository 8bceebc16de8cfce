"""The studies of sweeps: their numbers against values worked out by hand, and what their commands refuse."""

import json
from dataclasses import asdict

import pytest

from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.history import Event, Line
from launch.report import sweep_table
from launch.run import shipped_configs
from launch.studies import stability, three_prices
from launch.studies.stability import worst_fall
from launch.studies.three_prices import interval, optimum
from tests.conftest import one_line
from tests.launch.test_sweep import measured


def keep_sweep(folder, *runs):
    """Write sweep.json over runs of one group."""
    summaries = [
        sweep_table.summarize(measured(run=run, seed=seed), group=group) for seed, (run, group) in enumerate(runs)
    ]
    folder.mkdir(exist_ok=True)
    SweepFolder(folder).table.write_text(json.dumps({"rows": [asdict(one) for one in summaries]}))
    return summaries


def test_a_sweep_is_read_as_it_was_written(tmp_path):
    assert keep_sweep(tmp_path, ("a", "x"), ("b", "y")) == sweep_table.read(SweepFolder(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": [{"run": "a"}]}'])
def test_a_sweep_of_another_form_is_refused_in_one_line(call, tmp_path, content):
    SweepFolder(tmp_path).table.write_text(content)
    code, _, err = call("study", "stability", tmp_path)
    assert code == 2
    assert "not a sweep of this version" in one_line(err)


@pytest.mark.parametrize("study", ["stability", "three_prices", "credit_worth"])
def test_a_study_without_runs_names_the_sweep_that_trains_them(call, tmp_path, study):
    code, _, err = call("study", study, tmp_path)
    assert code == 2
    assert "`agile-ray sweep" in one_line(err)


@pytest.mark.parametrize(("totals", "fall"), [([1, 2, 3], 0), ([1, 3, 2, 1, 4], 2), ([2], 0)])
def test_the_worst_fall_is_from_the_best_so_far(totals, fall):
    assert worst_fall(totals) == fall


def test_stability_takes_the_worst_of_a_runs_iterations(call, tmp_path):
    for run in keep_sweep(tmp_path, ("a", "x"), ("b", "x")):
        folder = tmp_path / run.run
        folder.mkdir()
        metrics = {"stopped_share": 0.0, "clip_share": 0.5, "effective_share": 0.9}
        totals = [({"total_score": total, "update_kl_nats": total} | metrics) for total in (0.5, 0.7, 0.6)]
        lines = [_line(Event.ITERATION, "", one) for one in totals]
        lines.append(_line(Event.EVALUATION, "ppo_sampled", {"total_score": 0.8 + run.seed / 10}))
        RunFolder(folder).history.write_text("".join(json.dumps(one) + "\n" for one in lines))
    (found,) = stability.settings(SweepFolder(tmp_path))
    assert (found.setting, found.total, found.largest_update_nats) == ("x", (0.8, 0.9), (0.7, 0.7))
    assert found.worst_fall == pytest.approx((0.1, 0.1))
    assert call("study", "stability", tmp_path)[0] == 0
    assert [one["setting"] for one in json.loads(SweepFolder(tmp_path).study_table.read_text())] == ["x"]


def _line(event, name, metrics):
    state = {"imitation_steps": 0, "iteration": 1, "version": 1}
    return asdict(Line(event=event, name=name, **state, metrics=metrics, counts={}, dropped=(), seconds={}))


@pytest.mark.parametrize(
    ("mode", "price", "best"),
    [("none", 0.4, 1), ("none", 0.55, 0), ("heuristic", 0.55, 1), ("heuristic", 0.7, 0), ("fitted", 0.7, 1)],
)
def test_the_optimum_of_a_mode_asks_where_its_reward_exceeds_that_of_a_guess(mode, price, best):
    assert optimum(mode, price, beta=0.1) == best


def test_an_interval_of_shares_stays_between_0_and_1():
    assert interval((None, None)) == "no session"
    assert interval((0.5, None)) == "0.500"
    assert interval((1.0, 0.9)) == "0.950 (0.315 to 1.000)"


def keep_toy_run(folder, run, *overrides):
    (folder / run.run).mkdir()
    config = shipped_configs.read("toy/three_prices", (*overrides, f"seed={run.seed}"))
    RunFolder(folder / run.run).config.write_text(config.yaml())
    RunFolder(folder / run.run).report.write_text(measured(run=run.run, seed=run.seed).model_dump_json())


def test_three_prices_puts_the_seeds_of_a_mode_at_a_price_side_by_side(call, tmp_path):
    runs = keep_sweep(tmp_path, ("a", "x"), ("b", "x"), ("c", "y"))
    for run, mode in zip(runs, ("linked", "linked", "none"), strict=True):
        keep_toy_run(tmp_path, run, f"credit.mode={mode}", "env.advice_cost=0.7")
    found = three_prices.cells(SweepFolder(tmp_path))
    assert [(cell.mode, cell.price, cell.optimum, len(cell.total)) for cell in found] == [
        ("none", 0.7, 0.0, 1),
        ("linked", 0.7, 1.0, 2),
    ]
    assert call("study", "three_prices", tmp_path)[0] == 0
    assert [one["mode"] for one in json.loads(SweepFolder(tmp_path).study_table.read_text())] == ["none", "linked"]


def test_three_prices_refuses_a_run_whose_optimum_it_does_not_know(call, tmp_path):
    (run,) = keep_sweep(tmp_path, ("a", "x"))
    keep_toy_run(tmp_path, run, "ppo.entropy_coefficient=0.01")
    code, _, err = call("study", "three_prices", tmp_path)
    assert code == 2
    assert "ppo.entropy_coefficient=0.01" in one_line(err)
