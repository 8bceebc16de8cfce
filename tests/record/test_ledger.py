import asyncio
import json

import numpy as np
import pytest

from agile_ray.agent.lane import Lane
from agile_ray.config import Env, Model, Run, RunConfig
from agile_ray.errors import ConfigError, ContractError
from agile_ray.record import history, resume, store
from agile_ray.record.folder import RunFolder
from agile_ray.record.ledger import Account, Ledger, audit, books
from agile_ray.record.provenance import write
from agile_ray.record.receipts import Journals, read_journals
from agile_ray.record.recorder import RunRecorder
from agile_ray.segments import cut
from agile_ray.types import Assigned, Ending, Receipt, RunState, TokenScores, TrainingRow, Update
from launch.commands import report
from launch.report import files
from launch.report.page.run_page import render
from launch.report.wording import accounts, agreement
from tests.fakes.worlds import ASKS, OPENING, PREDICTS, Says, SmallStream, changed, lane, question, rules

FRESH = RunState(imitation_steps=0, iteration=0, version=0)
UPDATE = Update(tokens=900, padding=0.1, seconds=3.0, metrics={"policy_loss": 0.5})
TWICE = (*OPENING, "[SeekAdvice]", "[SeekAdvice]", "[SubmitAnswer] [ClearContext]")
WRONG = (*OPENING, "[PredictAnswer] no [SubmitAnswer] [ClearContext]")
BROKEN = (*OPENING, "[SeekAdvice]", "[SearchProduct] SELECT all <end>")
COURSE = (ASKS, PREDICTS, TWICE, WRONG, BROKEN)
"""The sessions of one iteration: trained ones have three asks and three right answers, the failed one has one ask."""


def played(iteration, *, course=COURSE, price=300):
    """The sessions of one iteration, on a stream of its own."""
    stream = SmallStream(*[question(n, "is it waterproof ?") for n in range(5)], broken_tool=True)
    stream.id = f"train/{iteration}"
    one = Lane(stream, rules(price=price))
    return [asyncio.run(one.play(Says(*turns))) for turns in course]


def row(segment):
    nothing = np.zeros(segment.actions, np.float32)
    return TrainingRow(
        segment=segment,
        scores=TokenScores(**dict.fromkeys(TokenScores.__slots__, nothing)),
        credit=0.0,
        credit_baseline=0.0,
        decided_after=0,
        wrote=False,
    )


def record(recorder, state, sessions, *, trained=None):
    rows = [row(segment) for session in (sessions if trained is None else trained) for segment in cut(session)]
    recorder.iteration(state, sessions=sessions, assigned=Assigned(rows=rows, metrics={}), update=UPDATE)


def run(folder, *, iterations=2, **kwargs):
    recorder = RunRecorder(RunFolder(folder))
    state = FRESH
    for number in range(1, iterations + 1):
        state = state.next()
        record(recorder, state, played(number, **kwargs))
    recorder.close()
    return state


def checked(folder):
    run = RunFolder(folder)
    return audit(run, history.read(run.history))


def stored(folder, iteration=1):
    """The arguments of `books` for one stored iteration."""
    run = RunFolder(folder)
    line = next(one for one in history.read(run.history) if one.iteration == iteration)
    return line, store.earned(run, iteration)


def test_every_receipt_is_in_one_account_and_the_total_matches_the_history(tmp_path):
    run(tmp_path)
    found = checked(tmp_path)
    assert (found.trained, found.failed) == (Account(asks=6, charged=1800), Account(asks=2, charged=600))
    assert (found.abandoned, found.asks, found.charged) == (Account(), 8, 2400)
    assert (found.sessions, found.accuracy, found.total_score) == (8, 0.75, 0.75 - 1800 / 8000)
    first, second = found.iterations
    assert (first.iteration, first.sessions, first.trained.charged, first.failed.charged) == (1, 4, 900, 300)
    [line, _] = history.read(RunFolder(tmp_path).history)
    assert first.total_score == second.total_score == line.metrics["total_score"]


@pytest.mark.parametrize("price", [0, 1, 7, 333, 999, 1000])
def test_prices_are_recovered_exactly_from_the_rewards(tmp_path, price):
    run(tmp_path, iterations=1, price=price)
    seen = [reward for earned in stored(tmp_path)[1] for reward in earned.rewards if earned.trained and reward < 0]
    assert sum(round(-1000 * float(reward)) for reward in seen) == checked(tmp_path).trained.charged == 3 * price


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda earned: changed(earned, rewards=-earned.rewards), r"train/1#0: the learner must be charged .* \[300\]"),
        (
            lambda earned: changed(earned, rewards=earned.rewards - np.float32(0.001)),
            r"train/1#0: .* \[300\] thousandths, found \[301\]",
        ),
        (
            lambda earned: changed(earned, session=changed(earned.session, receipts=())),
            r"receipts say, \[\] .* found \[300\]",
        ),
        (
            lambda earned: changed(earned, session=changed(earned.session, correct=False)),
            "iteration 1, session train/1#0: the learner must be given 0 thousandths for the answer, found 1000",
        ),
    ],
)
def test_a_session_whose_rewards_differ_from_its_receipts_is_named(tmp_path, change, says):
    run(tmp_path, iterations=1)
    line, [first, *others] = stored(tmp_path)
    with pytest.raises(ContractError, match=says):
        books([(line, [change(first), *others])])


def test_an_ask_that_is_charged_twice_is_named(tmp_path):
    run(tmp_path)
    one, two = stored(tmp_path), stored(tmp_path, 2)
    with pytest.raises(ContractError, match="train/1#0#0 is charged in iteration 1 and in iteration 2"):
        books([one, (two[0], one[1])])


@pytest.mark.parametrize("name", ["accuracy", "total_score"])
def test_a_history_that_differs_from_the_stored_sessions_is_refused(tmp_path, name):
    run(tmp_path)
    path = RunFolder(tmp_path).history
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    lines[1]["metrics"][name] += 1e-6
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ContractError, match=f"iteration 2: {name} in the history must be that of the stored sessions"):
        checked(tmp_path)


def test_an_iteration_of_the_history_that_is_not_stored_is_refused(tmp_path):
    run(tmp_path)
    RunFolder(tmp_path).segment_file(2).unlink()
    with pytest.raises(ConfigError, match="iteration-00002.parquet: no such file"):
        checked(tmp_path)


def test_a_resumed_run_keeps_the_receipts_of_discarded_work_for_the_sessions_that_are_played_again(tmp_path):
    run(tmp_path, iterations=3)
    for _ in range(2):
        recorder = RunRecorder(RunFolder(tmp_path))
        recorder.resume(FRESH.next().next())
        kept = read_journals(RunFolder(tmp_path).journals()).receipts
        assert sorted(receipt.key for receipt in kept) == sorted(
            receipt.key for session in played(3) for receipt in session.receipts
        )
        assert checked(tmp_path).abandoned == Account(asks=4, charged=1200)  # until they are played again
        record(recorder, FRESH.next().next().next(), played(3))
        recorder.close()
    found = checked(tmp_path)
    assert found.abandoned == Account()
    assert (found.trained, len(found.iterations)) == (Account(asks=9, charged=2700), 3)


def test_a_crash_while_discarding_neither_loses_nor_repeats_a_receipt(tmp_path):
    run(tmp_path, iterations=2)
    folder = RunFolder(tmp_path)
    last = folder.segment_file(2)
    content = last.read_bytes()
    resume.discard_after(folder, 1)
    kept = read_journals(folder.journals())
    last.write_bytes(content)  # as if it had been killed between writing and deleting
    resume.discard_after(folder, 1)
    assert read_journals(folder.journals()) == kept
    assert [receipt.key for receipt in kept.receipts] == [
        "train/2#0#0",
        "train/2#2#0",
        "train/2#2#1",
        "train/2#4#0",
    ]


def test_asks_of_iterations_that_are_not_stored_are_kept_when_the_run_resumes(tmp_path):
    run(tmp_path, iterations=1)
    folder = RunFolder(tmp_path)
    bought = [receipt for session in played(2) for receipt in session.receipts]
    for number, receipt in enumerate(bought):
        Journals(folder, f"{number % 2}.0.ab").buy(2 + number // 3, receipt)  # lanes had begun iteration 3, too
    with folder.journal(2, "1.0.ab").open("ab") as file:
        file.write(b'{"key": "train/2#5')  # the disk was full, or the machine lost power
    recorder = RunRecorder(folder)
    recorder.resume(FRESH.next())
    recorder.close()
    found = read_journals(folder.journals()).receipts
    assert sorted(receipt.key for receipt in found) == sorted(receipt.key for receipt in bought)
    assert checked(tmp_path).abandoned == Account(asks=4, charged=1200)


@pytest.mark.parametrize("checkpoint", [0, 1])
def test_a_journal_of_a_stored_iteration_is_not_booked_again(tmp_path, checkpoint):
    run(tmp_path, iterations=1)
    folder = RunFolder(tmp_path)
    stored = store.outcomes(folder, 1)
    for receipt in (receipt for session in stored for receipt in session.receipts):
        Journals(folder, "0.0.ab").buy(1, receipt)  # as if it had been killed between storing and deleting the journal
    resume.discard_after(folder, checkpoint)
    assert len(read_journals(folder.journals()).receipts) == (4 if checkpoint == 0 else 0)


def test_journals_are_deleted_when_their_iteration_is_stored_and_no_others(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    for iteration in (1, 2):
        Journals(RunFolder(tmp_path), "0.0.ab").buy(iteration, played(iteration)[0].receipts[0])
    record(recorder, FRESH.next(), played(1))
    recorder.close()
    assert list(RunFolder(tmp_path).journals().values()) == [2]


def test_a_replayed_session_is_booked_once_and_its_unused_receipts_as_abandoned(tmp_path):
    one = lane(question(0, "is it waterproof ?"), question(1, "does it rust ?"))
    start = one.state()
    for turns in (TWICE, TWICE):
        asyncio.run(one.play(Says(*turns)))
    one.restore(start)
    sessions = [asyncio.run(one.play(Says(*turns))) for turns in (ASKS, PREDICTS)]
    recorder = RunRecorder(RunFolder(tmp_path))
    record(recorder, FRESH.next(), sessions)
    recorder.close()
    found = checked(tmp_path)
    assert (found.trained, found.abandoned) == (Account(asks=1, charged=300), Account(asks=3, charged=900))


def test_a_session_without_a_training_row_is_abandoned(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    sessions = played(1, course=(ASKS, ASKS))
    record(recorder, FRESH.next(), sessions, trained=sessions[:1])
    recorder.close()
    found = checked(tmp_path)
    assert (found.sessions, found.trained.asks, found.abandoned.asks) == (1, 1, 1)


def test_a_session_that_failed_before_its_first_token_has_no_rewards(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path))
    sessions = played(1, course=(PREDICTS, ASKS))
    blank = changed(sessions[1], turns=(), receipts=(), ending=Ending.FAILED, error="ToolError: gone", position=2)
    record(recorder, FRESH.next(), [sessions[0], blank, sessions[1]])
    recorder.close()
    assert [earned.rewards.tolist() for earned in store.earned(RunFolder(tmp_path), 1)] == [
        [1.0],
        [],
        pytest.approx([-0.3, 1.0]),
    ]
    assert checked(tmp_path).trained == Account(asks=1, charged=300)


def config(folder):
    return RunConfig(run=Run(name="r", folder=folder), model=Model(path=folder), env=Env(name="shop"))


def test_a_report_shows_the_ledger_in_file_page_and_print(tmp_path, capsys):
    chosen = config(tmp_path)
    write(chosen)
    run(chosen.run_folder, iterations=2)
    report.command(chosen.run_folder)
    text = " ".join(capsys.readouterr().out.split())
    assert "trained 6 1.800 failed 2 0.600 abandoned 0 0.000 all 8 2.400" in text
    assert "Books agree: 2 iterations, 8 sessions trained on. Their total score is 0.750" in text
    found = files.compose(RunFolder.of(chosen))
    assert json.loads(found.model_dump_json())["ledger"]["trained"] == {"asks": 6, "charged": 1800}
    assert type(found).model_validate_json(found.model_dump_json()) == found
    assert agreement(found.ledger) in render(found)


def test_a_report_whose_books_disagree_is_an_error(tmp_path):
    chosen = config(tmp_path)
    write(chosen)
    run(chosen.run_folder, iterations=1)
    sessions = played(1)
    overcharged = changed(sessions[0], receipts=(changed(sessions[0].receipts[0], price=301),))
    rows = [row(segment) for session in sessions for segment in cut(session)]
    store.write(RunFolder.of(chosen), 1, [overcharged, *sessions[1:]], rows)
    with pytest.raises(ContractError, match="iteration 1, session train/1#0"):
        files.compose(RunFolder.of(chosen))


def test_a_run_without_iterations_has_an_empty_ledger_and_a_report(tmp_path, capsys):
    chosen = config(tmp_path)
    write(chosen)
    report.command(chosen.run_folder)
    assert "Books agree: 0 iterations" in capsys.readouterr().out
    assert files.compose(RunFolder.of(chosen)).ledger == Ledger()


def test_accounts_are_shown_in_rewards_with_three_decimals():
    receipts = [Receipt(key=f"s#0#{n}", price=7, source="gold", latency_s=0, advice="", answer="") for n in range(1200)]
    shown = accounts(books([], discarded=receipts))
    assert shown[2:] == [["abandoned", "1,200", "8.400"], ["all", "1,200", "8.400"]]
