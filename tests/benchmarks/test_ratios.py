"""What a benchmark reports, and what its parts compute without an engine."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from agile_ray.record.folder import RunFolder
from benchmarks import play
from benchmarks.bench import GROUPS, NUMBERS, chosen
from benchmarks.learn import padding_waste, waste_in_order
from benchmarks.overhead import Repeat
from benchmarks.play import RATIOS, prefix_hits, recording, rollout_speed, tokens_learned
from benchmarks.prefixes import by_turn, cached_at_best
from benchmarks.ratios import TITLES, LeftOut, Measured, Ratio, table, write
from launch.run import shipped_configs
from learner.plan import plan
from tests.fakes.parts import FakeRollouts
from tests.fakes.stored import FAILED, ONE, REWRITTEN, session, turn

MODEL = Path("models/tiny")


def ratio(*values: float, bound="at least", number=1, remark="") -> Ratio:
    repeats = tuple(Measured(ours=value, baseline=1.0, ratio=value) for value in values)
    return Ratio(number=number, name="a / b", bound=bound, aim=0.95, unit="s", repeats=repeats, remark=remark)


def test_the_median_decides_whether_a_ratio_is_at_its_aim() -> None:
    assert ratio(0.2, 0.96, 0.97).is_met
    assert not ratio(0.2, 0.94, 0.97).is_met
    assert ratio(0.2, 0.94, 0.97, bound="at most").is_met
    assert not ratio(0.96, bound="at most").is_met


def test_the_table_has_a_line_for_each_ratio_and_names_what_is_missing() -> None:
    text = table([ratio(0.5, 0.7, 0.25, number=9, remark="why"), ratio(1.0)], [LeftOut(number=7, why="no model")])
    titles, _, first, second, _, missing = text.splitlines()
    cells = [
        dict(zip(TITLES, [cell.strip() for cell in line.split("|")[1:-1]], strict=True)) for line in (first, second)
    ]
    assert [one["#"] for one in cells] == ["1", "9"]
    assert (cells[1]["median"], cells[1]["lowest to highest"], cells[1]["repeats"]) == (
        "0.500 (missed)",
        "0.250 to 0.700",
        "3",
    )
    assert (cells[1]["ours"], cells[1]["baseline"], cells[1]["remark"]) == ("0.500 s", "1.00 s", "why")
    assert len(titles.split("|")) == len(first.split("|"))
    assert missing == "Not measured: number 7, no model."


def test_the_file_holds_every_repeat(tmp_path: Path) -> None:
    write(tmp_path / "bench.json", [ratio(1.0, 2.0)], [LeftOut(number=2, why="x")], settings={"config": "quickstart"})
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [one["ratio"] for one in found["ratios"][0]["repeats"]] == [1.0, 2.0]
    assert (found["ratios"][0]["median"], found["ratios"][0]["met"]) == (1.5, True)
    assert (found["left_out"][0]["number"], found["settings"]["config"]) == (2, "quickstart")


@pytest.mark.parametrize("text", ["", "4", "1,x", "1,4", "one", "1,,2"])
def test_a_number_that_is_not_measured_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        chosen(text)


def test_numbers_are_chosen_once_each_and_every_one_has_its_measurement() -> None:
    assert chosen("3,1,3") == [1, 3]
    assert NUMBERS == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert set(RATIOS) == set(dict(GROUPS)[play.measure])


def ids(*runs: tuple[int, int]) -> list[int]:
    """Token `kind` repeated, for each (kind, count)."""
    return [kind for kind, count in runs for _ in range(count)]


def test_the_ideal_cache_serves_whole_blocks_that_an_earlier_request_computed() -> None:
    first = turn(ids((1, 4)), ids((2, 4)))  # computes 1111 222
    again = turn(ids((1, 4), (2, 4), (3, 2)), [4])  # 1111 2222 33: only 1111 is a block that was computed
    third = turn(ids((1, 4), (2, 4), (3, 2)), [4])  # 1111 2222 33 again: two blocks
    assert [cached_at_best(turns, block=4) for turns in ([first], [first, again], [first, again, third])] == [0, 4, 12]
    assert cached_at_best([first, again], block=1) == 7  # all but the completion's last token, which was not computed


def test_the_last_token_of_a_prompt_is_never_served() -> None:
    same = turn(ids((1, 4)), [2])
    assert cached_at_best([same, same], block=4) == 0
    assert cached_at_best([same, same], block=1) == 3


def test_a_block_counts_only_behind_the_same_beginning() -> None:
    turns = [turn(ids((1, 4), (5, 4), (6, 1)), [2]), turn(ids((3, 4), (5, 4), (6, 1)), [2])]
    assert cached_at_best(turns, block=4) == 0


def test_lanes_take_turns() -> None:
    one, two = session(turn([1], [2]), turn([1, 2], [3])), session(turn([7], [8]))
    assert [found.prompt_ids.tolist() for found in by_turn([[one], [two, two]])] == [[1], [7], [1, 2], [7]]


def repeat(*lanes, played_s=2.0, bare_s=1.0, **counts: int) -> Repeat:
    values = {"prompt_tokens": 8, "cached_tokens": 2, "sampled_tokens": 10, "block_tokens": 1} | counts
    return Repeat(lanes=list(lanes), played_s=played_s, bare_s=bare_s, **values)


def test_the_speed_of_play_is_that_of_the_same_sessions() -> None:
    found = rollout_speed([repeat([ONE], [ONE], played_s=2.0, bare_s=1.5)], MODEL)
    assert [(one.ours, one.ratio) for one in found.repeats] == [(1.0, 0.75)]
    assert "2 lanes, 2 sessions of 2.0 turns" in found.remark


def test_hits_are_measured_against_what_the_ids_allow() -> None:
    # ONE: [1] then [1 2 3 9], of which 1 and 2 were computed before
    assert prefix_hits([repeat([ONE], prompt_tokens=5, cached_tokens=1)], MODEL).median == 0.5


def test_what_is_sampled_and_not_learned_is_counted() -> None:
    # ONE and REWRITTEN hold 3 and 2 action tokens, the failed session 1, and 10 were sampled
    found = tokens_learned([repeat([ONE, REWRITTEN, FAILED], sampled_tokens=10)], MODEL)
    assert found.median == 0.5
    assert "in all repeats: 4 (aim 0)" in found.remark


def test_recording_writes_what_a_run_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[RunFolder] = []
    original = RunFolder.segment_file
    monkeypatch.setattr(RunFolder, "segment_file", lambda run, number: written.append(run) or original(run, number))
    found = recording([repeat(FakeRollouts().play(), played_s=5.0)] * 2, MODEL)
    assert all(1.0 < one.ratio < 2.0 for one in found.repeats)
    assert len(written) == 2


def test_padding_is_that_of_the_learners_own_plan() -> None:
    config = shipped_configs.read("quickstart")
    lengths = np.random.default_rng(0).integers(20, 200, 300)
    found = padding_waste(lengths, config, repeats=2)
    [first, *_] = plan(lengths, seed=0, minibatches=config.ppo.minibatches, ranks=1, micro_batch_tokens=4096)
    assert len(found.repeats) == 4
    assert 0 < first.processed - first.tokens < 0.03 * first.processed
    assert found.is_met
    assert all(one.ours < one.baseline for one in found.repeats)


def test_rows_in_order_waste_what_their_longest_row_leaves() -> None:
    # passes of at most 12 tokens: 3 4 (2 x 4) | 6 6 (2 x 6) | 1; 8 + 12 + 1 = 21 tokens for 20
    assert waste_in_order(np.array([3, 4, 6, 6, 1]), limit=12) == pytest.approx(1 / 21)
