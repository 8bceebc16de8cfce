"""Our results beside the paper's."""

import json
from dataclasses import asdict

import pytest

from agile_ray.config import RunConfig
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations, provenance
from agile_ray.record.folder import RunFolder
from launch.report import files
from launch.report.paper.published import TABLE_4, TABLE_5, TABLE_16
from launch.report.paper.table import Single, rows
from launch.report.summary import build
from tests.fakes.played import PLAYED, played
from tests.fakes.worlds import changed


def config(folder, name="mine", *, cost=0.3, bar=(), env="productqa"):
    raw = {"run": {"name": name, "folder": folder}, "model": {"path": "m"}, "agent": {"bar": bar}}
    return RunConfig.model_validate(raw | {"env": {"name": env, "advice_cost": cost}})


def finished(name="mine", *, cost=0.3, bar=(), results=None):
    one = config("runs", name, cost=cost, bar=bar)
    return one, build(results or {entry: played(entry) for entry in PLAYED}, config=one, lines=[], starts=[])


def named(found, table, whose="ours"):
    return {row.name: row for row in found if (row.table, row.whose) == (table, whose)}


def test_the_papers_totals_are_accuracy_minus_what_it_asks():
    """All of its published ProductQA totals are, to the rounding of three decimals."""
    lines = [(0.3, one) for one in (*TABLE_4, *TABLE_5)] + list(TABLE_16)
    for price, one in lines:
        if one.total is not None:
            assert one.total == pytest.approx(one.accuracy - price * one.asked_share, abs=1.1e-3), one


def test_a_run_is_beside_the_whole_agent_with_its_count_and_interval():
    found = rows([finished()])
    main = named(found, "4")
    ppo = main["mine ppo"]
    assert (ppo.beside, ppo.sessions, ppo.price) == ("agile-vic13b-ppo", 4, 0.3)
    own = score(played("ppo"))
    assert (ppo.total, ppo.accuracy, ppo.asked_share, ppo.ci95) == (
        own.total_score,
        own.accuracy,
        own.asked_share,
        own.ci95,
    )
    assert {"always_ask", "ask_unless_search", "oracle", "mine sft"} <= main.keys()
    theirs = named(found, "4", "theirs")
    assert list(theirs) == [one.name for one in TABLE_4]
    assert all(row.ci95 is None and row.sessions is None for row in theirs.values())


@pytest.mark.parametrize(
    ("bar", "beside"),
    [
        ("SeekAdvice", "w/o Advice"),
        ("UpdateMemory", "w/o Memory"),
        ("Reflection", "w/o Reflection"),
        ("SearchProduct", "w/o Tool-use"),
    ],
)
def test_an_ablation_follows_its_line_of_the_paper_and_no_other_table(bar, beside):
    found = rows([finished(), finished("less", bar=(bar,))])
    listed = [(row.whose, row.name, row.beside) for row in found if row.table == "5"]
    assert listed[listed.index(("theirs", beside, beside)) + 1] == ("ours", "less", beside)
    assert listed[-2:] == [("theirs", "agile-vic13b-ppo", "agile-vic13b-ppo"), ("ours", "mine", "agile-vic13b-ppo")]
    assert ("ours", "mine sft", "w/o RL") in listed
    assert not any(row.name.startswith("less") for row in found if row.table != "5")


def test_one_policy_for_all_prices_has_a_line_at_each_and_stays_out_of_the_main_table():
    several = [changed(one, price=(100, 500)[n % 2], receipts=()) for n, one in enumerate(played("ppo"))]
    found = rows([finished("all", cost=(0.1, 0.5), results={"ppo": several}), finished("cheap", cost=0.25)])
    prices = [(row.price, row.name) for row in found if row.table == "16" and row.whose == "ours"]
    assert prices == [(0.5, "all"), (0.25, "cheap"), (0.1, "all")]
    assert named(found, "4") == {}
    assert [row.price for row in found if row.table == "16" and row.whose == "theirs"] == [0.5, 0.4, 0.3, 0.2, 0.1]


def single(policy, *, price=0.3, like="ppo"):
    return Single(policy=policy, name=f"{policy} m", prices=(price,), score=score(played(like)))


def test_single_evaluations_join_the_table_that_shows_them():
    given = ("prompt", "prompted_agent", "own_non_adaptive", "own_answer", "runs/all/checkpoints/best")
    found = rows([], [*map(single, given), single("prompt", price=0.5)])
    assert {row.name: (row.table, row.beside) for row in found if row.whose == "ours"} == {
        "prompt m": ("4", "gpt4-prompt"),
        "prompted_agent m": ("4", "agile-gpt4-prompt"),
        "own_answer m": ("4", ""),
        "own_non_adaptive m": ("5", "Non-adaptive advice"),
        "runs/all/checkpoints/best m": ("16", "agile-vic13b-ppo"),
    }


def keep(chosen):
    folder = RunFolder.of(chosen)
    provenance.write(chosen)
    for name in PLAYED:
        evaluations.keep(folder, name, played(name))
    files.write(folder, files.compose(folder))
    return str(folder)


def test_the_command_prints_stored_runs_and_single_evaluations(call, tmp_path):
    run = keep(config(tmp_path))
    one, rows_file = tmp_path / "prompt.json", tmp_path / "rows.json"
    wrote = {"policy": "prompt", "model": "small", "advice_cost": 0.3, **asdict(score(played("sft")))}
    one.write_text(json.dumps(wrote))
    code, out, _ = call("table", "productqa", run, "--score", str(one), "--output", str(rows_file))
    assert code == 0
    for words in ("mine ppo", "prompt small", "agile-gpt4-prompt", "not like for like", "0.784", "Table 16"):
        assert words in out
    names = [row["name"] for row in json.loads(rows_file.read_text())["rows"]]
    assert names[: len(TABLE_4) + 1] == [*(line.name for line in TABLE_4), "prompt small"]


def test_the_command_refuses_other_tasks_and_files(call, tmp_path):
    run = keep(config(tmp_path, env="shop"))
    for words, said in (
        (("medmcqa", run), "a task is one of productqa, found medmcqa"),
        (("productqa", run), "must be a run on productqa, found shop"),
        (("productqa", str(tmp_path)), "a run's folder holds"),
    ):
        code, _, err = call("table", *words)
        assert code == 2
        assert said in " ".join(err.split())
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    mine = keep(config(tmp_path, "other"))
    code, _, err = call("table", "productqa", mine, "--score", str(bad))
    assert code == 2
    assert "must be what `agile-ray evaluate --output` wrote" in " ".join(err.split())
