"""Frontiers of runs: which runs share one, what is measured at each price, and the command."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from agile_ray.config import Credit, Env, Model, Run, RunConfig
from agile_ray.errors import ConfigError
from agile_ray.evaluation.intervals import estimate
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations, provenance
from agile_ray.record.folder import RunFolder
from agile_ray.types import Ending, Turn
from launch.report import files
from launch.report.frontier.measure import RunResults, frontiers
from launch.report.frontier.results import policies
from tests.conftest import one_line
from tests.fakes.played import PLAYED, played
from tests.fakes.worlds import changed


def priced(entry, price, *, stream="", right=None):
    """A policy's four sessions at a price, in streams of their own."""
    return [
        changed(
            one,
            stream=f"{stream}{one.stream}",
            price=price,
            receipts=tuple(replace(receipt, price=price) for receipt in one.receipts),
            correct=one.correct if right is None else right[index] == "1",
        )
        for index, one in enumerate(played(entry))
    ]


def results(run, *, seed, price, policy="shop", **right):
    sessions = {entry: priced(entry, price, right=right.get(entry)) for entry in PLAYED}
    return RunResults(run=run, policy=policy, seed=seed, sessions=sessions)


def line(frontier, entry):
    return next(one for one in frontier.lines if one.entry == entry)


def test_runs_that_differ_by_seed_and_price_share_a_frontier_with_intervals_over_seeds():
    runs = [
        results("a", seed=0, price=100),
        results("b", seed=1, price=100, ppo="1110"),
        results("c", seed=0, price=500),
        results("d", seed=1, price=500, ppo="1100"),
    ]
    (found,) = frontiers(runs)
    assert (found.seeds, found.prices, found.reference_point) == ((0, 1), (0.1, 0.5), (1.0, 0.25))
    cheap, dear = line(found, "ppo").points
    assert (cheap.price, cheap.sessions) == (0.1, 8)
    assert cheap.accuracy == estimate([1.0, 0.75])
    assert dear.total_score == estimate([1.0 - 0.25, 0.5 - 0.25])
    assert dear.asked_share == estimate([0.5, 0.5])
    # At 0.5, never_ask (0.25) is behind always_ask (0.5); the oracle has 0.875.
    assert dear.closed == estimate([(0.75 - 0.5) / 0.375, (0.25 - 0.5) / 0.375])
    # It asks on questions 0 and 1, the oracle on 1.
    assert (cheap.ask_precision, cheap.ask_recall) == (estimate([0.5, 0.5]), estimate([1.0, 1.0]))
    assert cheap.ask_f1 == estimate([2 / 3, 2 / 3])


def test_measures_over_all_prices_are_computed_for_each_seed():
    runs = [
        results("a", seed=0, price=100),
        results("b", seed=1, price=100, ppo="1110"),
        results("c", seed=0, price=500),
        results("d", seed=1, price=500, ppo="1100"),
    ]
    ppo = line(frontiers(runs)[0], "ppo")
    # Its points are (asked 0.5, right 1) with seed 0, (0.5, 0.75) and (0.5, 0.5) with seed 1; never_ask has 0.25.
    assert ppo.hypervolume == estimate([0.5 * 0.75, 0.5 * 0.5])
    assert ppo.area == estimate([0.5 * 0.625 + 0.5, 0.5 * 0.5 + 0.5 * 0.75])
    # 90 % of the oracle's gain is an accuracy of 0.925, which seed 1 does not reach.
    assert ppo.asks_needed is None
    needed = line(frontiers([runs[0], runs[2]])[0], "ppo").asks_needed
    assert needed.mean == pytest.approx(0.9 * 0.5)
    assert (ppo.violations.violated, ppo.violations.pairs) == (0, 2)


def test_asking_more_where_it_costs_more_is_out_of_order():
    cheap, dear = results("a", seed=0, price=100), results("b", seed=0, price=500)
    swapped = {**dear.sessions, "ppo": priced("always_ask", 500)}
    found = line(frontiers([cheap, replace(dear, sessions=swapped)])[0], "ppo").violations
    assert (found.violated, found.pairs) == (1, 1)


def test_one_policy_for_all_prices_is_split_by_the_prices_of_its_episodes():
    both = {entry: priced(entry, 100, stream="x/") + priced(entry, 500, stream="y/") for entry in PLAYED}
    (found,) = frontiers([RunResults(run="a", policy="shop", seed=3, sessions=both)])
    apart = frontiers([results("a", seed=3, price=100), results("b", seed=3, price=500)])[0]
    assert (found.prices, found.seeds) == ((0.1, 0.5), (3,))
    for mine, theirs in zip(found.lines, apart.lines, strict=True):
        assert [point.total_score.mean for point in mine.points] == [point.total_score.mean for point in theirs.points]
        assert (mine.hypervolume, mine.area, mine.asks_needed) == (theirs.hypervolume, theirs.area, theirs.asks_needed)


def test_a_single_seed_has_the_intervals_of_its_streams():
    point = line(frontiers([results("a", seed=0, price=300)])[0], "random").points[0]
    assert point.total_score.ci95 == score(played("random")).ci95


def test_a_seed_without_all_prices_is_left_out_and_named():
    runs = [results("a", seed=0, price=100), results("b", seed=0, price=500), results("c", seed=1, price=100)]
    (found,) = frontiers(runs)
    assert found.seeds == (0,)
    assert "seed 1 is left out: it has not all prices of the others" in found.notes
    with pytest.raises(ConfigError, match="found none for prices 0.1, 0.5"):
        frontiers([runs[1], runs[2]])


def test_two_runs_with_the_same_settings_seed_and_price_are_refused():
    with pytest.raises(ConfigError, match=r"a and b both have seed 0 and price 0\.1; leave one out"):
        frontiers([results("a", seed=0, price=100), results("b", seed=0, price=100)])


def test_a_policy_whose_sessions_all_failed_is_left_out_and_named():
    run = results("a", seed=0, price=100)
    failed = [changed(one, ending=Ending.FAILED, error="ExpertError: late") for one in run.sessions["always_ask"]]
    (found,) = frontiers([replace(run, sessions={**run.sessions, "always_ask": failed})])
    assert "always_ask" not in [one.entry for one in found.lines]
    assert "always_ask is left out: all its sessions failed at some price" in found.notes


def test_augrc_is_that_of_sampled_turns_and_a_note_says_if_none_are_stored():
    def with_turns(one, probability):
        turn = Turn(
            prompt_ids=np.array([0], np.int32),
            completion_ids=np.array([3], np.int32),
            logprobs=np.zeros(1, np.float32),
            versions=np.zeros(1, np.int32),
            rewards=np.array([-0.1 if one.asks else 0.0], np.float32),
            ask_probability=probability,
        )
        return replace(one, turns=(turn,))

    run = results("a", seed=0, price=100)
    assert [note for note in frontiers([run])[0].notes if note.startswith("no AUGRC")]
    probabilities = (0.9, 0.2, 0.5, 0.6)  # ppo_sampled asks at the first, is wrong at the last
    sampled = [with_turns(one, p) for one, p in zip(run.sessions["ppo_sampled"], probabilities, strict=True)]
    (found,) = frontiers([replace(run, sessions={**run.sessions, "ppo_sampled": sampled})])
    # The wrong one counts 1 / 0.4. Of four thresholds, two accept it besides its own, which counts half: 1.5 / 4.
    assert line(found, "ppo_sampled").points[0].augrc.mean == pytest.approx(1 / 0.4 / 4 * 1.5 / 4)
    assert not [note for note in found.notes if note.startswith("no AUGRC")]
    assert math.isclose(line(found, "ppo_sampled").points[0].ask_f1.mean, 0.0)


def config(folder, *, name, **changes):
    env = Env(name="shop", advice_cost=changes.pop("price", 0.3))
    return RunConfig(run=Run(name=name, folder=folder), model=Model(path=folder), env=env, **changes)


def test_policies_are_named_by_the_keys_in_which_they_differ(tmp_path):
    linked = Credit(mode="linked", threshold=0.6)
    configs = [
        config(tmp_path, name="a", seed=0),
        config(tmp_path, name="b", seed=1, price=0.5),
        config(tmp_path, name="c", seed=0, credit=linked),
    ]
    first, second, third = policies(configs)
    assert first == second == "credit.mode=heuristic credit.threshold=0.46"
    assert third == "credit.mode=linked credit.threshold=0.6"
    assert policies(configs[:2]) == ["shop", "shop"]


def finish(folder, *, name, seed, price):
    """A finished run."""
    chosen = config(folder, name=name, seed=seed, price=price)
    run = RunFolder.of(chosen)
    provenance.write(chosen)
    for entry in PLAYED:
        evaluations.keep(run, entry, priced(entry, round(1000 * price)))
    files.write(run, files.compose(run))
    return run.path


def test_the_command_prints_the_frontier_of_a_sweep_and_writes_it(call, tmp_path):
    for seed in (0, 1):
        for price in (0.1, 0.5):
            finish(tmp_path / "sweep", name=f"{price}-{seed}", seed=seed, price=price)
    code, out, _ = call("frontier", tmp_path / "sweep")
    assert code == 0
    assert "hypervolume" in out
    assert "shop, 2 seeds" in out
    (found,) = json.loads((tmp_path / "sweep" / "frontier.json").read_text())["frontiers"]
    assert (found["prices"], found["seeds"]) == ([0.1, 0.5], [0, 1])


def test_the_command_takes_several_runs_and_another_file(call, tmp_path):
    runs = [finish(tmp_path, name=f"p{price}", seed=0, price=price) for price in (0.1, 0.5)]
    code, out, _ = call("frontier", *runs, "--output", tmp_path / "out.json")
    assert code == 0
    assert len(json.loads((tmp_path / "out.json").read_text())["frontiers"]) == 1
    assert not (runs[0] / "frontier.json").exists()


def test_the_command_refuses_a_folder_without_a_finished_run(call, tmp_path):
    code, _, err = call("frontier", tmp_path)
    assert code == 2
    assert "must be a finished run, with report.json, or a sweep of which a run has finished" in one_line(err)
