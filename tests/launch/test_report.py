import json
import re
import shutil
from dataclasses import replace
from html import unescape

import pytest
from rich.console import Console

from agile_ray.config import Credit, Env, Model, Run, RunConfig
from agile_ray.errors import ConfigError, ContractError
from agile_ray.evaluation.choice import Choice
from agile_ray.record import evaluations, provenance
from agile_ray.record.folder import RunFolder
from agile_ray.record.history import Dropped, Event, Line
from agile_ray.record.recorder import RunRecorder
from agile_ray.types import Ending, RunState, Update
from launch.commands import report
from launch.report import files, tables
from launch.report.findings import card
from launch.report.findings.card import ModelFacts, model_facts
from launch.report.page import run_charts, run_tables
from launch.report.page.run_page import render
from launch.report.summary import build
from launch.report.wording import headline
from launch.run.progress import Progress
from tests.fakes.model_folder import write_model_folder
from tests.fakes.played import PLAYED, played
from tests.fakes.stored import turn
from tests.fakes.worlds import changed

CHOSEN = Choice(iteration=28, total=0.871, highest=7, highest_total=0.873, error=0.004, evaluated=4, unpaired=())
SCORES = {"total_score": 0.5, "accuracy": 0.6, "asked_share": 0.2}


def line(event, *, name="", iteration=1, metrics=None, counts=None, dropped=(), seconds=None):
    return Line(
        event=event,
        name=name,
        imitation_steps=1,
        iteration=iteration,
        version=iteration,
        metrics=metrics or {},
        counts=counts or {},
        dropped=tuple(dropped),
        seconds=seconds or {},
    )


def config(folder):
    return RunConfig(run=Run(name="r", folder=folder), model=Model(path=folder), env=Env(name="shop"), seed=7)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that has finished: history, provenance, all evaluations, and its report."""
    chosen = config(tmp_path_factory.mktemp("runs"))
    folder = RunFolder.of(chosen)
    provenance.write(chosen)
    recorder = RunRecorder(folder)
    state = RunState(imitation_steps=0, iteration=0, version=0).imitated()
    with recorder.timed("imitate"):
        recorder.imitation(state, Update(tokens=100, padding=0.0, seconds=1.0, metrics={"loss": 1.0}))
    recorder.evaluation(state.next(), "validation", played("ppo"))
    recorder.close()
    for name in PLAYED:
        evaluations.keep(folder, name, played(name))
    files.write(folder, files.compose(folder))
    return folder.path


@pytest.fixture
def run_folder(finished, tmp_path):
    """A copy of the finished run in another folder."""
    return shutil.copytree(finished, tmp_path / "copied")


def reported():
    """The report of a run with every policy."""
    return build({name: played(name) for name in PLAYED}, config=config("runs"), lines=[], starts=[])


def test_the_report_compares_ppo_with_every_other_policy():
    found = build({name: played(name) for name in PLAYED}, config=config("runs"), lines=[], starts=[])
    assert (found.seed, found.advice_cost) == (7, 0.3)
    assert set(found.references) == {
        "always_ask",
        "never_ask",
        "random",
        "non_adaptive",
        "ask_unless_search",
        "oracle",
    }
    assert found.ppo.total_score == pytest.approx(1 - 0.15)
    assert found.differences.keys() == PLAYED.keys() - {"ppo"}
    assert found.differences["oracle"].mean == pytest.approx(-0.3 / 4)
    assert found.differences_sampled["sft_sampled"].mean == pytest.approx(0.5)


def test_where_streams_are_few_the_report_compares_in_each_of_them():
    found = reported().streams
    assert list(found) == ["test/0", "test/1", "all of these"]
    assert [leads["always_ask"].mean for leads in found.values()] == pytest.approx([0.0, 0.3, 0.15])
    assert {leads["always_ask"].sessions for leads in found.values()} == {2, 4}
    alone = [session for session in played("ppo") if session.stream == "test/0"]
    assert build({"ppo": alone}, config=config("runs"), lines=[], starts=[]).streams == {}


def test_closed_is_the_share_of_the_distance_from_the_best_reference_to_the_oracle():
    found = build({name: played(name) for name in PLAYED}, config=config("runs"), lines=[], starts=[])
    assert found.best_reference == "always_ask"
    assert found.closed == pytest.approx((0.85 - 0.7) / (0.925 - 0.7))


def test_closed_is_none_where_the_best_reference_equals_the_oracle():
    results = {"ppo": played("ppo"), "always_ask": played("oracle"), "oracle": played("oracle")}
    assert build(results, config=config("runs"), lines=[], starts=[]).closed is None


def test_the_headline_mentions_no_closed_distance_where_ppo_is_worse():
    results = {"ppo": played("never_ask"), "always_ask": played("always_ask"), "oracle": played("oracle")}
    found = build(results, config=config("runs"), lines=[], starts=[])
    assert found.closed < 0
    assert not [sentence for sentence in headline(found) if "closes" in sentence]


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (
            CHOSEN,
            "Iteration 28 was chosen: it is the latest of 4 evaluated whose validation total, 0.871 without the luck "
            "of guesses, is within one standard error (0.004) of the highest, 0.873 at iteration 7.",
        ),
        (
            replace(CHOSEN, iteration=7, total=0.873, error=None),
            "Iteration 7 was chosen: it has the highest validation total of 4 evaluated, 0.873 without the luck of "
            "guesses.",
        ),
        (
            replace(CHOSEN, iteration=7, total=0.873, error=None, unpaired=(7, 14)),
            "Iteration 7 was chosen: it has the highest validation total of 4 evaluated, 0.873. Only totals were "
            "compared, because iterations 7, 14 keep no values on the latest one's streams.",
        ),
    ],
)
def test_the_report_says_which_iteration_was_chosen_and_why(run_folder, choice, sentence):
    run = RunFolder(run_folder)
    evaluations.keep_choice(run, choice)
    files.write(run, files.compose(run))
    assert files.load(run).chosen == choice
    assert f'<p class="lead">{sentence}</p>' in unescape(run.report_page.read_text())


def test_the_report_of_a_single_unit_has_no_interval():
    few = {name: played(name)[:2] for name in ("ppo", "oracle")}
    found = build(few, config=config("runs"), lines=[], starts=[])
    assert (found.ppo.ci95, found.differences["oracle"].ci95) == (None, None)
    assert "1 run of 2 sessions (too few for an interval)" in render(found)
    assert headline(found)[0].startswith("PPO's total score is 0.700 (no interval):")
    tables.show(found, Console(width=80, record=True))


def test_policies_on_other_questions_are_not_compared():
    with pytest.raises(ContractError, match="same questions"):
        build({"ppo": played("ppo"), "sft": played("sft")[:3]}, config=config("runs"), lines=[], starts=[])


def test_the_history_adds_up_to_times_rates_and_counts():
    lost = Dropped(reason="failed", asked=True, tokens_up_to=64, sessions=2)
    metrics = {"total_score": 0.5, "accuracy": 0.6, "asked_share": 0.2, "sessions": 58, "failed": 2}
    speed = {"tokens": 900, "processed_tokens": 1000, "learn_seconds": 3.0, "sync_seconds": 1.0}
    lines = [
        line(Event.IMITATION, metrics={"tokens": 100, "processed_tokens": 100, "learn_seconds": 2.0}),
        line(Event.ITERATION, metrics=metrics | speed, dropped=[lost], seconds={"collect": 2.0, "learn": 3.0}),
        line(
            Event.RESUME,
            metrics={"discarded_seconds": 9.0},
            counts={"discarded/lines": 3, "discarded/rows": 70, "fleet/learner_restarts": 1, "fleet/replaced": 2},
        ),
        line(
            Event.ITERATION,
            iteration=2,
            metrics=metrics | speed | {"sync_seconds": 2.0},
            counts={"ending/done": 60, "fleet/replaced": 1},
            dropped=[lost],
            seconds={"collect": 4.0},
        ),
        line(Event.EVALUATION, name="validation", iteration=2, metrics=metrics),
    ]
    found = build({}, config=config("runs"), lines=lines, starts=[])
    assert found.seconds == {"collect": 6.0, "learn": 3.0}
    speeds = found.throughput
    assert (speeds.sessions_per_second, speeds.tokens_per_second, speeds.imitation_tokens_per_second) == (20, 300, 50)
    assert (speeds.padding, speeds.sync_seconds) == (pytest.approx(1 - 1900 / 2100), 1.5)
    assert found.dropped == [Dropped(reason="failed", asked=True, tokens_up_to=64, sessions=4)]
    assert (found.discarded.resumptions, found.discarded.rows, found.discarded.seconds) == (1, 70, 9.0)
    assert [(point.iteration, point.of) for point in found.progress] == [
        (1, "training"),
        (2, "training"),
        (2, "validation"),
    ]
    assert (found.metrics["sessions"], found.metrics["total_score"]) == (116, 0.5)
    assert found.counts == {"ending/done": 60, "fleet/learner_restarts": 1, "fleet/replaced": 3}


def test_report_json_holds_what_other_tools_read(run_folder):
    found = json.loads((run_folder / "report.json").read_text())
    for name in ("sft", "sft_sampled", "ppo", "ppo_sampled"):
        assert found[name].keys() >= {
            "asked_share",
            "asks_per_session",
            "accuracy",
            "total_score",
            "sessions",
            "ci95",
        }
    low, high = found["references"]["random"]["ci95"]
    assert low <= found["references"]["random"]["total_score"] <= high
    assert found["differences"]["sft"].keys() >= {"mean", "ci95"}
    assert files.load(RunFolder(run_folder)) == files.compose(RunFolder(run_folder))


def test_the_page_needs_no_other_file_no_network_and_no_script(run_folder):
    page = (run_folder / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|https?:", page)
    assert page.count("<svg") > page.count("<figure>") > 5
    assert "predicted wrong" in page


def test_every_anchor_of_the_contents_has_its_section(run_folder):
    page = (run_folder / "report.html").read_text()
    anchors = re.findall(r'href="#([^"]*)"', page)
    assert len(anchors) >= 8
    assert [name for name in anchors if f'<section id="{name}">' not in page] == []


def test_the_page_has_the_card_of_the_run(run_folder):
    card = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", (run_folder / "report.html").read_text()))
    assert card["Environment"] == "shop, one ask costs 0.3, seed 7"
    assert card["Expert"] == "gold (5 answers in the final evaluations)"
    assert card["Credit"] == "heuristic, beta 0.1"
    assert card["Training"].startswith("0 of 20 iterations, ")
    assert len(card["Commit"]) >= 7


def test_the_card_describes_the_model_from_its_folder(tmp_path):
    folder = write_model_folder(tmp_path / "model", num_hidden_layers=3, hidden_size=2)
    assert model_facts([tmp_path / "absent", folder]) == ModelFacts(
        kind="llama, 3 layers of width 2", parameters=300 * 2 + 2
    )
    assert model_facts([tmp_path / "absent"]) == ModelFacts(kind="unknown", parameters=None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "none"}, "none"),
        ({"mode": "linked", "threshold": 0.65}, "linked, threshold 0.65"),
        ({"mode": "fitted", "window": 3}, "fitted, window 3"),
    ],
)
def test_the_card_names_credit_with_the_settings_that_it_uses(settings, said):
    assert card.credit(Credit(**settings)) == said


def test_a_telephone_sees_total_right_and_asked_of_every_policy():
    (found,) = [one for name, one in run_tables.tables(reported()).items() if name == "policies"]
    assert [column.title for column in found.columns if not column.wide] == ["policy", "total", "right", "asked"]
    assert ".wide { display: none; }" in render(reported())


def test_policies_are_listed_by_total_with_the_asked_shares_of_new_and_known_questions():
    table = run_tables.policies(reported())
    totals = [float(row[1]) for row in table.rows]
    assert totals == sorted(totals, reverse=True)
    assert [column.title for column in table.columns][5:7] == ["asked, new", "asked, known"]


def test_the_page_has_colours_for_dark_pages_and_for_print():
    page = render(reported())
    colours = [set(re.findall(r"--([\w-]+):", part)) for part in re.findall(r":root \{(.*?)\}", page, re.DOTALL)]
    assert len(colours) == 3  # light, dark, print
    assert colours[0] == colours[1] == colours[2]
    assert {name for part in re.findall(r"var\(--([\w-]+)\)", page) for name in [part]} <= colours[0]


def test_the_memory_of_a_policy_is_shown_along_the_stream():
    grown = [changed(one, memory_sizes={"a": 2 * one.position, "b": one.position}) for one in played("ppo")]
    found = build({"ppo": grown}, config=config("runs"), lines=[], starts=[])
    assert [part.remembered for part in found.curves["ppo"]] == [0.0, 3.0]
    titles = [one.title for one in run_charts.charts(found)["stream"]]
    assert titles == ["Asked", "Right answers", "Memory"]


def test_credit_and_kl_are_shown_over_the_iterations():
    metrics = [SCORES | {"kl_nats": 0.01 * i, "credit_mean": 0.1, "loss": 1.0} for i in (1, 2, 3)]
    lines = [line(Event.ITERATION, iteration=i, metrics=one) for i, one in enumerate(metrics, 1)]
    found = build({}, config=config("runs"), lines=lines, starts=[])
    assert found.traces == {
        "kl_nats": [(1, 0.01), (2, 0.02), (3, 0.03)],
        "credit_mean": [(1, 0.1), (2, 0.1), (3, 0.1)],
    }
    assert [one.title for one in run_charts.charts(found)["learning"]] == ["Credit", "KL"]


def test_calibration_compares_the_probability_of_asking_with_the_oracle():
    probabilities = (0.95, 0.95, 0.15, 0.15)
    sampled = [
        replace(
            one,
            turns=(turn([0], [1], ask=p),),
        )
        for one, p in zip(played("ppo_sampled"), probabilities, strict=True)
    ]
    found = build({"ppo_sampled": sampled, "oracle": played("oracle")}, config=config("runs"), lines=[], starts=[])
    # The oracle asks on question 1 alone.
    assert [(round(one.predicted, 6), one.happened, one.sessions) for one in found.asking.bins] == [
        (0.15, 0.0, 2),
        (0.95, 0.5, 2),
    ]
    assert found.asking.error == pytest.approx((0.15 + 0.45) / 2)
    assert "expected calibration error" in render(found)
    unknown = reported()
    assert unknown.asking is None
    assert "it needs the probability of asking of ppo_sampled" in render(unknown)


def test_the_page_says_why_sessions_failed():
    lost = changed(played("ppo")[0], ending=Ending.FAILED, error="ToolError: tool: KeyError: '<a>'")
    counts = [{"failed/ExpertError: late 7": 3, "ending/failed": 3}, {"failed/ExpertError: late 8": 2}]
    lines = [line(Event.ITERATION, iteration=i, metrics=SCORES, counts=count) for i, count in enumerate(counts, 1)]
    report = build({"ppo": [lost, *played("ppo")[1:]]}, config=config("runs"), lines=lines, starts=[])
    page = render(report)
    cells = re.findall(r'<tr><td class="left">(.*?)</td><td class="left long">(.*?)</td><td>(.*?)</td></tr>', page)
    assert ("ppo", "ToolError: tool: KeyError: &#39;&lt;a&gt;&#39;", "1") in cells
    assert ("training", "ExpertError: late 7", "5") in cells
    assert "failed/" not in page


def test_the_console_shows_failures_with_their_commonest_reason(capsys):
    shown = {"event": Event.EVALUATION, "name": "ppo", "iteration": 1, "sessions": 58, **SCORES}
    with Progress(imitation_steps=1, iterations=1) as progress:
        progress.line({**shown, "failed": 2, "reason": "ExpertError: expert http: [Errno 111] refused"})
        progress.line({**shown, "failed": 0})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("on 58 sessions  2 failed: ExpertError: expert http: [Errno 111] refused")
    assert second.endswith("on 58 sessions")


def test_the_page_escapes_html():
    found = build({"ppo": played("ppo")}, config=config("runs"), lines=[], starts=[])
    page = render(found.model_copy(update={"environment": "<script>", "warnings": ["<script>"], "run": "<script>"}))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_command_works_on_a_copy_and_rewrites_the_page(run_folder, capsys):
    before = (run_folder / "report.json").read_text()
    (run_folder / "report.html").unlink()
    report.command(run_folder)
    assert "ask_unless_search" in capsys.readouterr().out
    assert (run_folder / "report.html").exists()
    assert (run_folder / "report.json").read_text() == before


def test_the_command_works_where_only_report_json_was_copied(run_folder, tmp_path, capsys):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run_folder / "report.json", alone)
    report.command(alone)
    assert "ask_unless_search" in capsys.readouterr().out
    assert (alone / "report.html").exists()


def test_the_command_does_not_call_an_unfinished_run_finished(run_folder, capsys):
    shutil.rmtree(run_folder / "evaluation")
    (run_folder / "report.json").unlink()
    report.command(run_folder)
    assert "not finished" in capsys.readouterr().out
    assert (run_folder / "report.html").exists()
    assert not (run_folder / "report.json").exists()


def test_the_command_says_what_a_run_folder_is(tmp_path):
    with pytest.raises(ConfigError, match="config.yaml or report.json, found neither"):
        report.command(tmp_path)


def test_the_command_names_the_runs_of_a_sweep_without_a_finished_one(run_folder):
    (run_folder / "report.json").unlink()
    with pytest.raises(ConfigError, match=f"found the folders of runs, such as {run_folder}; give one of those"):
        report.command(run_folder.parent)


def test_the_command_writes_the_page_of_a_sweep(run_folder, capsys):
    sweep = run_folder.parent
    report.command(sweep)
    assert "hypervolume" in capsys.readouterr().out
    page = (sweep / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|https?:|<script", page)
    assert "Frontier of shop" in page
    assert re.search(r'<td class="left">r</td><td class="wide">0.3</td>', page)


def test_the_table_fits_into_80_columns(run_folder):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    tables.show(files.compose(RunFolder(run_folder)), console)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_headline_mentions_only_evaluated_policies():
    found = build({"ppo": played("ppo"), "sft": played("sft")}, config=config("runs"), lines=[], starts=[])
    first, second = headline(found)
    assert first.startswith("PPO's total score is 0.850")
    assert second.startswith("Against sft: +0.425")
