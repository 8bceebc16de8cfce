"""Agents who ask people: over restarts, cut connections and a fallible, slow person."""

import asyncio
import random
import signal
import stat
import threading
import time
from dataclasses import replace

import psutil
import pytest

from agile_ray.agent.expert import AskKey
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.config import Env, RunConfig
from agile_ray.errors import ConfigError, ExpertError, TurnedAwayError
from agile_ray.inbox.asks import LONGEST, RECORD, Record, State, Told, shortened
from agile_ray.inbox.client import InboxExpert
from agile_ray.inbox.line import POSTS, TOKEN
from agile_ray.inbox.recorded import RecordedInbox
from agile_ray.prices import Prices
from agile_ray.types import Outcome
from launch.inbox.export import export
from launch.run.preflight import check_experts
from rollout.experts import build_expert
from tests.inbox.conftest import ask, question

LIMIT_S = 60.0
"""Longest wait for what comes at once, however busy the machine is, seconds."""


def key(number=0):
    return AskKey(stream="train/0", position=number, number=0)


def in_background(call):
    """The outcome of a call that runs meanwhile."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except ExpertError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def advised(served, number=0, **changes):
    expert = InboxExpert(served.url, **{"deadline_s": 10 * LIMIT_S, **changes})
    return lambda: asyncio.run(expert.advise(question(number), key=key(number)))


def until(condition):
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_ask_outlives_its_asker_and_the_inbox_and_is_there_once(served):
    thread, outcome = in_background(advised(served, wait_s=1.0))
    until(lambda: len(served.waiting()) == 1)
    assert "gold" not in str(served.waiting())
    served.kill()  # kill -9, in the middle of a long poll
    served.start()
    assert [one["key"] for one in served.waiting()] == [str(key())]
    again, second = in_background(advised(served))  # as a driver that was killed and started again
    assert served.finish(str(key()), answer="Ann").status_code == 200
    served.kill()
    served.start()  # what is answered stays so
    thread.join(LIMIT_S)
    again.join(LIMIT_S)
    assert [said.answer for said in (*outcome, *second)] == ["Ann", "Ann"]
    assert advised(served)().answer == "Ann"
    assert served.waiting() == []
    few, most = psutil.Process(served.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert few == most  # so that thousands may wait
    assert stat.S_IMODE(served.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in served.folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("state", "outcome"), [("refused", Outcome.REFUSED), ("unknown", Outcome.ABSTAINED), ("late", Outcome.LATE)]
)
def test_an_ask_without_an_answer_has_a_named_outcome_costs_nothing_and_is_repeated_so(local, tmp_path, state, outcome):
    spec = {"name": "inbox", "url": local.url, "deadline_s": 0.5 if state == "late" else LIMIT_S, "late": "alone"}
    config = Env(name="shop", expert=spec)
    prices = Prices.of(config, seed=0)

    def asked(expert):
        paid = PaidExpert(expert, deadline_s=LIMIT_S)
        return asyncio.run(paid.ask(question(), key=key(), price=300, prices=prices))

    thread, found = in_background(lambda: asked(build_expert(config)))
    if state != "late":
        until(lambda: len(local.waiting()) == 1)
        local.finish(str(key()), state=state, answer="")
    thread.join(LIMIT_S)
    assert [(one.outcome, one.price, one.advice) for one in found] == [(outcome, 0, "")]
    export(local.folder, tmp_path / "asked.jsonl")
    repeated = asked(build_expert(Env(name="shop", expert=f"recorded:{tmp_path}/asked.jsonl")))
    assert (repeated.outcome, repeated.price) == (outcome, 0)


@pytest.mark.parametrize("people", ["env.expert", "env.expert.colleague"])
def test_a_run_that_asks_people_needs_their_token(people, monkeypatch):
    inbox = {"name": "inbox", "url": "http://h"}
    spec = inbox if people == "env.expert" else {"colleague": {**inbox, "price": 0.1}}
    expert = Env.model_validate({"name": "shop", "expert": spec}).expert
    monkeypatch.setenv(TOKEN, "t" * 24)
    check_experts(expert)
    monkeypatch.delenv(TOKEN)
    with pytest.raises(ConfigError, match=f"{people}: .* {TOKEN}, found none"):
        check_experts(expert)


def test_many_who_wait_for_people_share_one_event_loop_few_connections_and_no_thread(local):
    asks, bought = 40, []
    paid = PaidExpert(InboxExpert(local.url, deadline_s=LIMIT_S), deadline_s=LIMIT_S, bought=bought.append)

    async def play():
        before = threading.active_count()
        running = [
            asyncio.ensure_future(paid.ask(question(number), key=key(number), price=300)) for number in range(asks)
        ]
        async with asyncio.timeout(LIMIT_S):
            while len(local.waiting()) < asks:
                await asyncio.sleep(0.05)
        assert threading.active_count() <= before  # one of another test may end
        port = int(local.url.rpartition(":")[2])
        found = psutil.Process().net_connections()  # of both sides
        assert 0 < sum(bool(one.raddr) and one.raddr.port == port for one in found) <= POSTS + 1
        for number in range(asks):
            local.finish(str(key(number)), answer=f"answer {number}")
        async with asyncio.timeout(LIMIT_S):
            return await asyncio.gather(*running)

    receipts = asyncio.run(play())
    assert [receipt.answer for receipt in receipts] == [f"answer {number}" for number in range(asks)]
    assert sorted(receipt.key for receipt in bought) == sorted(str(key(number)) for number in range(asks))


def test_an_inbox_that_no_longer_knows_who_waits_is_asked_again_and_has_each_ask_once(local):
    expert = InboxExpert(local.url, deadline_s=60, wait_s=0.2)

    async def play():
        def asked(number):
            return asyncio.ensure_future(expert.advise(question(number), key=key(number)))

        async def there(number):
            async with asyncio.timeout(30):
                while len(local.waiting()) < number:
                    await asyncio.sleep(0.02)

        running = [asked(0), asked(1)]
        await there(2)
        local.forget()
        running.append(asked(2))  # before or after the others are asked again
        await there(3)
        for number in range(3):
            local.finish(str(key(number)), answer=f"answer {number}")
        async with asyncio.timeout(30):
            return await asyncio.gather(*running)

    assert [said.answer for said in asyncio.run(play())] == ["answer 0", "answer 1", "answer 2"]
    assert local.waiting() == []


def test_whoever_stops_waiting_leaves_the_others_on_the_line(local):
    expert = InboxExpert(local.url, deadline_s=60)

    async def play():
        impatient, same, other = (
            asyncio.ensure_future(expert.advise(question(number), key=key(number))) for number in (0, 0, 1)
        )
        async with asyncio.timeout(30):
            while len(local.waiting()) < 2:
                await asyncio.sleep(0.02)
        impatient.cancel()
        await asyncio.wait((impatient,), timeout=30)
        for number in range(2):
            local.finish(str(key(number)), answer=f"answer {number}")
        async with asyncio.timeout(30):
            return await asyncio.gather(same, other)

    assert [said.answer for said in asyncio.run(play())] == ["answer 0", "answer 1"]
    assert expert._lines == {}, "nothing is kept of an event loop that has ended"


def test_an_inbox_that_is_gone_is_late_by_name(monkeypatch):
    monkeypatch.setattr("agile_ray.inbox.line.SLACK_S", 0.3)
    with pytest.raises(
        ExpertError, match=r"train/0#0#0: no answer within its deadline \(0\.1 s\); last: Conn"
    ) as error:
        asyncio.run(InboxExpert("http://127.0.0.1:9", deadline_s=0.1).advise(question(), key=key()))
    assert error.value.late


def test_a_person_is_shown_what_the_agent_saw_its_words_and_its_probability_of_asking(local, tmp_path):
    seen = replace(question(), shown="a table of people\nwho is 0 ?")
    thread, _ = in_background(
        lambda: asyncio.run(
            InboxExpert(local.url, deadline_s=LIMIT_S).advise(
                seen, key=replace(key(), ask_probability=0.25, words="how old ?")
            )
        )
    )
    until(lambda: len(local.waiting()) == 1)
    [shown] = local.waiting()
    assert (shown["key"], shown["context"], shown["ask_probability"]) == (str(key()), seen.shown, 0.25)
    assert shown["words"] == "how old ?"
    local.finish(str(key()))
    thread.join(LIMIT_S)
    export(tmp_path, tmp_path / "asked.jsonl")
    [line] = (tmp_path / "asked.jsonl").read_bytes().splitlines()
    assert RECORD.validate_json(line).ask.words == "how old ?"
    repeated = RecordedInbox(tmp_path / "asked.jsonl")
    assert asyncio.run(repeated.advise(seen, key=replace(key(), words="how tall ?"))).answer == "x"


@pytest.mark.parametrize("position", [0, 5])
def test_the_answer_to_a_question_that_was_cut_is_repeated(tmp_path, position):
    long = replace(question(), text="why ? " * LONGEST)
    told = Told(state=State.ANSWERED, text="so", answer="so")
    line = Record(ask=replace(ask(), text=shortened(long.text)), told=told, by="Ann", asked_s=0.0, closed_s=1.0)
    (tmp_path / "asked.jsonl").write_bytes(RECORD.dump_json(line) + b"\n")
    repeated = RecordedInbox(tmp_path / "asked.jsonl")
    assert repeated.knows(long, stream="train/0")
    assert asyncio.run(repeated.advise(long, key=key(position))).answer == "so"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "inbox needs a url"),
        ({"url": "ftp://host"}, "begins with http"),
        ({"url": "http://me:secret@host"}, "secret"),
        ({"url": "http://host", "deadline_s": 0}, "greater than 0"),
        ({"url": "http://host", "deadline_s": "soon"}, "valid number"),
        ({"url": "http://host", "tokens": 5}, "inbox has no tokens"),
    ],
)
def test_a_wrong_inbox_is_refused_before_a_run(spec, said):
    with pytest.raises(ValueError, match=said):
        Env(name="shop", expert={"name": "inbox", **spec})


def test_a_deadline_that_no_wait_reaches_is_refused(tmp_path):
    env = {"name": "shop", "expert": {"name": "inbox", "url": "http://host", "deadline_s": 60}}
    config = {"run": {"name": "a"}, "model": {"path": tmp_path}, "env": env}
    assert RunConfig.model_validate({**config, "agent": {"expert_s": 60}}).env.expert.deadline_s == 60
    with pytest.raises(ValueError, match=r"env.expert.deadline_s \(60\) exceeds agent.expert_s \(30\)"):
        RunConfig.model_validate(config)


def test_an_inbox_that_ends_answers_those_who_wait_there(served):
    replies = []
    body = {"line": "line-one", "wait_s": 20}
    assert served.post("wait", **body).json()["known"] is False
    thread = threading.Thread(target=lambda: replies.append(served.post("wait", **body)), daemon=True)
    thread.start()
    served.ask(ask())
    until(lambda: len(served.waiting()) == 1)
    served.process.send_signal(signal.SIGINT)  # as Ctrl-C
    thread.join(LIMIT_S)
    assert [(reply.status_code, reply.json()["told"]) for reply in replies] == [(200, {})]
    served.process.wait(timeout=LIMIT_S)


def test_a_deadline_closes_an_ask(local):
    with pytest.raises(ExpertError, match="nobody answered by the deadline"):
        advised(local, deadline_s=0.5)()
    assert local.finish(str(key())).status_code == 409


def test_a_wrong_token_is_named_and_not_repeated(local, monkeypatch):
    monkeypatch.setenv("AGILE_INBOX_TOKEN", "another token, a wrong one")
    with pytest.raises(TurnedAwayError, match=f"{local.url}: status 401.*AGILE_INBOX_TOKEN") as error:
        advised(local)()
    assert "a wrong one" not in str(error.value)


def test_a_slow_person_who_is_sometimes_wrong_answers_each_ask_once_and_the_export_repeats_it(served, tmp_path):
    asks, draw = 8, random.Random(7)
    running = [in_background(advised(served, number, wait_s=1.0)) for number in range(asks)]
    until(lambda: len(served.waiting()) == asks)
    given = {}
    while served.waiting():
        for one in served.waiting():
            time.sleep(min(draw.lognormvariate(-4, 1), 0.2))
            if len(given) == asks // 2:
                served.kill()
                served.start()
            number = one["question_id"].removeprefix("q")
            answer = number if draw.random() >= 0.1 else "wrong"
            assert served.finish(one["key"], answer=answer).status_code == 200
            assert given.setdefault(one["key"], answer) == answer
    for thread, _ in running:
        thread.join(LIMIT_S)
    assert [said.answer for _, [said] in running] == [given[str(key(number))] for number in range(asks)]
    assert list(given.values()).count("wrong") < asks / 3
    assert export(served.folder, tmp_path / "asked.jsonl") == asks
    assert export(served.folder, tmp_path / "asked.parquet") == asks
    repeated = RecordedInbox(tmp_path / "asked.jsonl")
    assert [asyncio.run(repeated.advise(question(n), key=key(n))).answer for n in range(asks)] == [
        given[str(key(n))] for n in range(asks)
    ]
    elsewhere = AskKey(stream="train/0", position=77, number=0)
    assert asyncio.run(repeated.advise(question(3), key=elsewhere)).answer == given[str(key(3))]
    with pytest.raises(ExpertError, match="has no ask"):
        asyncio.run(repeated.advise(question(99), key=elsewhere))
