"""A fake run that asks people, whose driver is killed amid waits: each ask is there once, paid once and answered."""

import os
import signal
import time
from pathlib import Path

import pytest

import envs
from agile_ray.config import Env
from agile_ray.inbox.asks import RECORD, State
from agile_ray.record import store
from envs.recurring import SPLITS
from launch.inbox.export import export
from tests.chaos import checks
from tests.chaos.checks import Expected
from tests.chaos.fakes import driver
from tests.chaos.fakes.bench import FakeBench, learned_once
from tests.inbox.conftest import TOKEN, Local
from tests.inbox.person import Person

LIMIT_S = 110.0
EPISODES = 40
"""More than any lane plays."""


@pytest.fixture
def inbox(tmp_path):
    served = Local(tmp_path)
    yield served
    served.close()


def right():
    """Answers an ask truly: the inbox holds no gold answer."""
    environment = envs.build(Env(name="recurring"), seed=driver.config("any", Path()).seed)
    streams = [environment.stream(split=split, index=i) for split in SPLITS for i in range(EPISODES)]
    known = {(stream.id, question.id): question.answer for stream in streams for question in stream.questions}
    return lambda ask: known[ask["stream"], ask["question_id"]]


def export_of(inbox, folder):
    """What became of each ask, by its key; none is there twice."""
    path = folder / "asked.jsonl"
    number = export(inbox.folder, path)
    found = [RECORD.validate_json(line) for line in path.read_text().splitlines()]
    by_key = {one.ask.key: one for one in found}
    assert len(by_key) == len(found) == number
    return by_key


def until(condition):
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_that_is_killed_while_people_think_asks_and_pays_nothing_twice(inbox, tmp_path):
    bench = FakeBench(tmp_path, expert={"name": "inbox", "url": inbox.url}, environ={"AGILE_INBOX_TOKEN": TOKEN})
    bench.prepare()
    answer = right()
    people = [Person(inbox, answer, name=f"person-{number}").begin() for number in (1, 2)]
    run = bench.run("asks")
    process, family = bench.start("asks")
    until(lambda: sum(len(one.given) for one in people) >= 25)
    for one in people:
        one.rests.set()
    until(lambda: len(inbox.waiting()) >= 3)
    family.look()
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.poll() is not None)
    assert family.left(within_s=bench.ends_s) == []
    open_then = {one["key"] for one in inbox.waiting()}
    for one in people:
        one.rests.clear()
    process, family = bench.start("asks")
    until(lambda: process.poll() is not None)
    for one in people:
        one.end()
    assert (process.poll(), family.left(within_s=bench.ends_s)) == (0, [])

    expected = Expected(
        iterations=driver.ITERATIONS,
        sessions=driver.ITERATIONS * driver.LANES * driver.SESSIONS,
        max_age=driver.MAX_AGE,
    )
    assert checks.problems(run, expected) == []  # the ledger among them
    learned_once(run)
    asked = export_of(inbox, tmp_path)
    assert {key: one.told.answer for key, one in asked.items()} == people[0].given | people[1].given
    assert not people[0].given.keys() & people[1].given.keys()
    assert {one.told.state for one in asked.values()} == {State.ANSWERED}
    assert open_then <= asked.keys()
    receipts = [
        receipt
        for iteration in run.stored_iterations()
        for session in store.outcomes(run, iteration)
        for receipt in (*session.receipts, *session.abandoned)
    ]
    paid = {receipt.key: receipt.answer for receipt in receipts}
    assert len(paid) == len(receipts)
    assert paid == {key: one.told.answer for key, one in asked.items() if one.ask.stream.startswith("recurring/train")}
    assert "wrong" in paid.values()
