"""`agile-ray reprice`, against sums done by hand."""

import json

import pytest

from agile_ray.evaluation.score import score
from agile_ray.record import evaluations, store
from agile_ray.record.folder import RunFolder
from agile_ray.types import Ending, Receipt
from launch.report.repricing import bill
from tests.conftest import one_line
from tests.fakes.played import PLAYED, played
from tests.fakes.worlds import SESSION, changed


def asking(position, *prices, right, ending=Ending.DONE):
    return changed(
        SESSION,
        position=position,
        correct=right,
        ending=ending,
        error="gone" if ending is Ending.FAILED else None,
        receipts=tuple(
            Receipt(key="k", price=price, source="gold", latency_s=0.0, advice="yes", answer="yes") for price in prices
        ),
    )


FIRST = [asking(0, 300, right=True), asking(1, right=True), asking(2, right=False), asking(3, 300, 200, right=True)]
SECOND = [asking(4, right=True), asking(5, 300, right=True, ending=Ending.FAILED)]


@pytest.fixture
def run(tmp_path):
    """Two stored iterations, and two evaluations of four sessions."""
    folder = tmp_path / "small"
    store.write(RunFolder(folder), 1, FIRST, [])
    store.write(RunFolder(folder), 2, SECOND, [])
    for name in ("sft", "ppo"):
        evaluations.keep(RunFolder(folder), name, played(name))
    return folder


def repriced(call, run, cost):
    code, out, err = call("reprice", run, "--advice-cost", cost)
    assert code == 0, err
    return json.loads((run / f"reprice-{cost}.json").read_text()), out


def test_reprice_agrees_with_a_sum_by_hand(call, run):
    found, out = repriced(call, run, "0.5")
    first, second = found["iterations"]["1"], found["iterations"]["2"]
    assert (first["sessions"], first["failed"], first["right"], first["asked"], first["asks"]) == (4, 0, 3, 2, 3)
    assert (first["accuracy"], first["asked_share"]) == (0.75, 0.5)
    assert (first["paid"], first["total"]) == (800, 0.55)  # 0.3 + 0.3 + 0.2: (3 - 0.8) / 4
    assert (first["repriced"], first["repriced_total"]) == (1500, 0.375)  # (3 - 0.5 * 3) / 4
    assert (second["sessions"], second["failed"], second["paid"], second["repriced"]) == (1, 1, 0, 0)
    assert (second["total"], second["repriced_total"]) == (1.0, 1.0)
    ppo = found["evaluations"]["ppo"]  # four right answers, two asks at 0.3
    assert (ppo["total"], ppo["repriced_total"]) == (0.85, 0.75)
    rows = [line.split() for line in out.splitlines()]
    assert ["iteration", "1", "4", "0", "0.750", "0.500", "3", "0.8", "0.550", "1.5", "0.375"] in rows
    assert ["ppo", "4", "0", "1.000", "0.500", "2", "0.6", "0.850", "1", "0.750"] in rows


def test_the_longest_name_leaves_room_for_every_number(call, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    evaluations.keep(RunFolder(run), "ask_unless_own_search", played("ppo"))
    _, out = repriced(call, run, "0.7")
    [line] = [line for line in out.splitlines() if line.startswith("ask_unless_own_search ")]
    assert line.split()[-3:] == ["0.850", "1.4", "0.650"]  # four right answers, two asks


def test_at_the_price_that_was_paid_nothing_changes(call, run):
    found, _ = repriced(call, run, "0.3")
    for name in ("sft", "ppo"):
        one = found["evaluations"][name]
        assert one["repriced_total"] == one["total"] == score(played(name)).total_score
    assert found["iterations"]["2"]["repriced"] == found["iterations"]["2"]["paid"]


@pytest.mark.parametrize("name", list(PLAYED))
def test_at_a_price_of_zero_the_total_is_the_accuracy(name):
    one = bill(played(name), price=0)
    assert one.repriced_total == one.accuracy == score(played(name)).accuracy


def test_repricing_changes_no_stored_session(call, run):
    before = {path: path.read_bytes() for path in run.rglob("*.parquet")}
    repriced(call, run, "1")
    assert {path: path.read_bytes() for path in run.rglob("*.parquet")} == before
    assert json.loads((run / "reprice-1.json").read_text())["advice_cost"] == 1


@pytest.mark.parametrize("cost", ["-0.1", "1.01", "nan", "inf"])
def test_a_price_outside_0_to_1_is_refused_in_one_line(call, run, cost):
    code, _, err = call("reprice", run, f"--advice-cost={cost}")
    assert code == 2
    assert "between 0 and 1" in one_line(err)
    assert not list(run.glob("reprice-*"))


def test_a_price_between_thousandths_is_refused_in_one_line(call, run):
    code, _, err = call("reprice", run, "--advice-cost=0.0005")
    assert code == 2
    assert "--advice-cost: must be a whole number of thousandths, found 0.0005" in one_line(err)


def test_a_folder_without_sessions_is_refused_in_one_line(call, tmp_path):
    code, _, err = call("reprice", tmp_path, "--advice-cost", "0.5")
    assert code == 2
    assert "found none" in one_line(err)
    assert list(tmp_path.iterdir()) == []
