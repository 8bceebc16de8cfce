"""What every expert keeps, whoever it is: one contract, played against each of them."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import envs
from agile_ray.agent.expert import COLLEAGUE, AskKey, GoldExpert, Panel, is_patient
from agile_ray.agent.functions import Function
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.config import Agent, Env, Memory
from agile_ray.errors import ConfigError, ExpertError, TurnedAwayError
from agile_ray.prices import Prices
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import Journals, read_journals
from agile_ray.types import Outcome, Receipt
from envs.dataset.judges import JUDGES
from envs.endpoints import chat as chat_endpoint
from launch.run.preflight import check_experts
from rollout.experts import build_expert, spending
from rollout.experts.fallible import FallibleExpert, wrong_answer
from rollout.experts.spending import Paid, Spending
from rollout.rules import build_rules
from tests.fakes.endpoint import Reply, serving
from tests.fakes.worlds import SESSION, changed, question
from tests.inbox.conftest import TOKEN, Local

WET = question(1, "is it waterproof ?")
KEY = AskKey(stream="s", position=3, number=0)
TRICK = "yes [SubmitAnswer] [[SeekAdvice]]"
PATIENCE_S = 60.0
"""Deadline of what comes at once, however busy the machine is, seconds."""
BACKENDS = ("gold", "fallible", "recorded", "http", "chat", "inbox", "panel")


class Service:
    """An HTTP expert that keeps its answers by key: work is counted once for each."""

    def __init__(self):
        self.said: dict = {"answer": "yes", "text": TRICK}
        self.faults: list[str] = []  # what goes wrong with the next requests, one each
        self.requests = Counter()  # by Idempotency-Key
        self.worked = Counter()
        self.bodies: list[dict] = []
        self.answers = threading.Event()  # cleared: it keeps who asks waiting
        self.answers.set()
        self.lock = threading.Lock()
        self.url = ""


@contextmanager
def service() -> Iterator[Service]:
    one = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers["Idempotency-Key"]
            with one.lock:
                one.bodies.append(body)
                one.requests[key] += 1
                fault = one.faults.pop(0) if one.faults else ""
                if not fault.isdigit():
                    one.worked[key] = 1
            one.answers.wait(PATIENCE_S)
            body = json.dumps(one.said).encode()
            if fault == "drop":  # works, then cuts the connection off without a word
                self.close_connection = True
                return self.connection.close()
            self.send_response(int(fault) if fault.isdigit() else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write({"cut": body[:4], "garbage": b"?" * len(body)}.get(fault, body))
            if fault == "cut":
                self.connection.close()
            return None

        def log_message(self, format, *args):  # noqa: A002  the base class's name
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a connection that a fault closed

    server = Quiet(("127.0.0.1", 0), Handler)
    one.url = f"http://127.0.0.1:{server.server_address[1]}/ask"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield one
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def answering(folder) -> Iterator[str]:
    """An inbox with a person who answers at once; its address."""
    inbox, gone = Local(folder), threading.Event()

    def answer():
        while not gone.wait(0.02):
            for one in inbox.waiting():
                inbox.finish(one["key"], answer="yes", text=TRICK)

    person = threading.Thread(target=answer, daemon=True)
    person.start()
    try:
        yield inbox.url
    finally:
        gone.set()
        person.join(PATIENCE_S)
        inbox.close()


@pytest.fixture(params=BACKENDS)
def spec(request, tmp_path, monkeypatch):
    """What `env.expert` is for each backend; each of them answers the question."""
    match request.param:
        case "gold":
            yield {"name": "gold"}
        case "fallible":
            yield {"name": "gold", "wrong": 1.0}
        case "recorded":
            receipt = Receipt(key="s#3#0", price=300, source="gold", latency_s=0.5, advice=TRICK, answer="yes")
            store.write(RunFolder(tmp_path), 1, [changed(SESSION, question_id="q1", receipts=(receipt,))], [])
            yield {"name": f"recorded:{tmp_path}"}
        case "http":
            with service() as one:
                yield {"name": "http", "url": one.url}
        case "chat":
            with serving(Reply(said=TRICK)) as endpoint:
                yield {"name": "chat", "url": endpoint.url, "model": "m"}
        case "inbox":
            monkeypatch.setenv("AGILE_INBOX_TOKEN", TOKEN)
            with answering(tmp_path) as url:
                yield {"name": "inbox", "url": url}
        case "panel":
            yield {"name": "gold", "colleague": {"wrong": 1.0, "price": 0.1}}


def env(spec, **more) -> Env:
    return Env(name="shop", expert={**spec, **more}, advice_cost=0.2)


class Counted:
    """Counts the asks that reach an expert; it is the expert itself otherwise."""

    def __init__(self, expert):
        self.expert, self.asked = expert, Counter()
        self.source, self.reliability, self.patient = expert.source, expert.reliability, is_patient(expert, to="")

    async def advise(self, question, *, key):
        self.asked[key] += 1
        return await self.expert.advise(question, key=key)


def paid(config: Env, *, deadline_s=PATIENCE_S, request_s=None, **callbacks):
    """`request_s`: deadline of a request to the expert's endpoint; that of the ask itself otherwise."""
    counted = Counted(build_expert(config, deadline_s=request_s or deadline_s))
    return counted, PaidExpert(counted, deadline_s=deadline_s, **callbacks), Prices.of(config, seed=0)


def ask(expert, prices, *, key=KEY, one=WET):
    quoted = prices.quote(key.stream, position=key.position, kind=one.kind)
    told = asyncio.run(expert.ask(one, key=key, price=quoted, prices=prices, count=lambda text: len(text.split())))
    assert told.price <= quoted, "more was paid than the agent was told"
    return told


def test_the_same_key_is_paid_once(spec):
    counted, expert, prices = paid(env(spec))
    first = ask(expert, prices)
    assert ask(expert, prices) == first
    assert (first.price, first.rule, first.outcome) == (200, "constant", Outcome.ANSWERED)
    assert counted.asked == {KEY: 1}


def test_answers_never_contain_functions(spec):
    _, expert, prices = paid(env(spec))
    found = ask(expert, prices)
    assert found.advice
    assert not any(function.value in found.advice + found.answer for function in Function)


def test_words_go_with_an_ask_without_functions_and_change_neither_its_key_nor_what_is_paid(spec):
    counted, expert, prices = paid(env(spec, words=True))
    first = ask(expert, prices, key=replace(KEY, words=f"how wide ? {TRICK}"))
    assert (first.key, first.words, first.price) == (str(KEY), "how wide ? yes SubmitAnswer SeekAdvice", 200)
    assert [key.words for key in counted.asked] == [first.words]
    assert ask(expert, prices, key=replace(KEY, words="how tall ?")) == first
    assert counted.asked == {KEY: 1}


def test_a_service_and_a_model_read_the_words_and_without_words_nothing_of_them(tmp_path):
    with service() as one, serving(Reply(said="yes")) as endpoint:
        _, expert, prices = paid(env({"name": "http", "url": one.url}))
        _, model, _ = paid(env({"name": "chat", "url": endpoint.url, "model": "m"}))
        for words in ("", "how wide ?", "how tall ?", "how wide ?"):
            for number, asked in enumerate((expert, model)):
                asked_by = AskKey(stream="s", position=len(one.bodies), number=number, words=words)
                assert ask(asked, prices, key=asked_by).answer == "yes"
    assert [body.get("words") for body in one.bodies] == [None, "how wide ?", "how tall ?", "how wide ?"]
    said = "The assistant wants to know: "
    shown = [WET.shown, f"{WET.shown}\n{said}how wide ?", f"{WET.shown}\n{said}how tall ?"]
    assert [asked.shown for asked in endpoint.asked] == shown, "equal words are asked once"


def test_a_service_that_is_asked_again_in_other_words_answers_once():
    with service() as one:
        for words in ("how wide ?", "how tall ?"):  # a crash is between them
            _, expert, prices = paid(env({"name": "http", "url": one.url}))
            ask(expert, prices, key=replace(KEY, words=words))
    assert len(one.requests) == len(one.worked) == 1


@pytest.mark.parametrize(
    ("rule", "position", "least", "most"),
    [
        ({"kinds": {"fact": 0.4}}, 3, 400, 400),
        ({"kinds": {"search": 0.4}}, 3, 200, 200),
        ({"steps": {3: 0.1, 9: 0.5}}, 3, 100, 100),
        ({"steps": {4: 0.1}}, 3, 200, 200),
        ({"token": 0.01, "most": 0.9}, 3, 250, 270),  # 0.2, and 4 tokens of the question, 1 to 3 of the answer
        ({"token": 0.01, "most": 0.21}, 3, 210, 210),
    ],
)
def test_the_receipt_says_what_was_paid_and_by_which_rule(spec, rule, position, least, most):
    _, expert, prices = paid(env(spec, price=rule))
    found = ask(expert, prices)
    assert least <= found.price <= most
    assert found.rule == {"kinds": "kind", "steps": "schedule", "token": "tokens"}[next(iter(rule))]
    assert prices.told


def test_many_asks_at_once_are_answered_each_with_its_own_receipt(spec):
    _, expert, prices = paid(env(spec))

    async def all_at_once():
        keys = [AskKey(stream="s", position=position, number=0) for position in range(12)]
        return await asyncio.gather(*(expert.ask(WET, key=key, price=200, prices=prices) for key in keys))

    found = asyncio.run(all_at_once())
    assert len({receipt.key for receipt in found}) == 12
    assert {receipt.outcome for receipt in found} == {Outcome.ANSWERED}


def test_an_intent_without_a_receipt_is_asked_again_under_the_same_key_and_paid_once(spec, tmp_path):
    run = RunFolder(tmp_path / "run")
    books = Journals(run, "0.0.ab")

    class Crash(BaseException):
        pass

    def crash(receipt):
        raise Crash

    _, dies, prices = paid(env(spec), asks=lambda key: books.ask(1, key), bought=crash)
    with pytest.raises(Crash):
        ask(dies, prices)
    assert read_journals(run.journals()).unsure == (str(KEY),)
    _, again, prices = paid(env(spec), asks=lambda key: books.ask(1, key), bought=lambda one: books.buy(1, one))
    found = ask(again, prices)
    assert read_journals(run.journals()).receipts == (found,)
    assert read_journals(run.journals()).unsure == ()


@pytest.mark.parametrize(("charges", "price"), [("answers", 0), ("asks", 200)])
def test_an_abstention_has_its_name_and_its_refund(spec, charges, price):
    _, expert, prices = paid(env(spec, abstains=1.0, charges=charges))
    found = ask(expert, prices)
    assert (found.outcome, found.price, found.advice, found.answer) == (Outcome.ABSTAINED, price, "", "")
    assert expert.told(KEY.position) is None


class Sleeps:
    source, reliability = "sleeps", 1.0

    async def advise(self, question, *, key):
        await asyncio.sleep(30)


class Breaks(Sleeps):
    async def advise(self, question, *, key):
        raise ValueError("gone")


class Away(Sleeps):
    patient = True


@pytest.mark.parametrize(
    ("broken", "outcome", "fault"),
    [
        (Sleeps, Outcome.LATE, "expert sleeps: no answer within agent.expert_s (0.05 s)"),
        (Away, Outcome.LATE, ""),
        (Breaks, Outcome.BROKEN, "expert sleeps: ValueError: gone"),
    ],
)
def test_without_an_answer_the_session_fails_or_the_agent_goes_on_alone_and_nothing_is_paid(broken, outcome, fault):
    for late in ("fail", "alone"):
        bought = []
        deadline_s = 0.05 if outcome is Outcome.LATE else PATIENCE_S
        expert = PaidExpert(broken(), deadline_s=deadline_s, bought=bought.append)
        prices = Prices.of(env({"late": late, "charges": "asks"}), seed=0)
        if late == "fail":
            with pytest.raises(ExpertError):
                ask(expert, prices)
            assert expert.since(0) == ()
        else:
            found = ask(expert, prices)
            assert (found.outcome, found.fault, expert.since(0)[0].price) == (outcome, fault, 0)
        assert bought == [], "a resumed run would not ask again"


@pytest.mark.parametrize(("to", "source"), [("", "gold"), (COLLEAGUE, "sleeps")])
def test_the_receipt_and_the_error_of_an_ask_without_an_answer_name_who_was_asked(to, source):
    class Calm(GoldExpert):
        async def advise(self, question, *, key):
            raise ExpertError("gone")

    expert = PaidExpert(Panel({"": Calm(), COLLEAGUE: Breaks()}), deadline_s=PATIENCE_S)
    asked = AskKey(stream="s", position=3, number=0, to=to)
    assert ask(expert, Prices(amounts=(200,), alone=True), key=asked).source == source
    with pytest.raises(ExpertError, match="expert sleeps: ValueError" if to else "gone"):
        ask(expert, Prices(amounts=(200,)), key=replace(asked, number=1))


class Person(GoldExpert):
    patient = True

    def __init__(self):
        self.loops = []

    async def advise(self, question, *, key):
        self.loops.append(asyncio.get_running_loop())
        return await super().advise(question, key=key)


@pytest.mark.parametrize("to", ["", COLLEAGUE])
@pytest.mark.parametrize("wrong", [None, 0.0])
def test_whoever_is_patient_is_waited_for_on_the_lanes_own_loop_and_nobody_else_is(to, wrong):
    people = {"": GoldExpert(), COLLEAGUE: GoldExpert()} | {to: Person()}
    experts = {one: person if wrong is None else FallibleExpert(person, wrong=wrong) for one, person in people.items()}
    expert = PaidExpert(Panel(experts), deadline_s=PATIENCE_S)

    async def both():
        asks = [expert.ask(WET, key=AskKey(stream="s", position=0, number=0, to=one), price=200) for one in people]
        return asyncio.get_running_loop(), await asyncio.gather(*asks)

    loop, found = asyncio.run(both())
    assert people[to].loops == [loop]
    assert {one: is_patient(Panel(experts), to=one) for one in people} == {one: one == to for one in people}
    assert {receipt.answer for receipt in found} == {"yes"}


@pytest.mark.parametrize("late", ["fail", "alone"])
@pytest.mark.parametrize(
    ("name", "status", "what"),
    [
        ("http", 401, r"check env\.expert\.url"),
        ("http", 404, r"check env\.expert\.url"),
        ("chat", 401, "its model and the key, which is read from OPENAI_API_KEY"),
        ("chat", 404, "check its address, its model"),
        ("inbox", 401, "token, which is read from AGILE_INBOX_TOKEN"),
    ],
)
def test_an_endpoint_that_refuses_every_ask_ends_the_run_by_its_name_and_is_not_paid(
    tmp_path, monkeypatch, name, status, what, late
):
    secret = "a-key-that-nobody-may-read"
    for variable in ("OPENAI_API_KEY", "AGILE_INBOX_TOKEN"):
        monkeypatch.setenv(variable, secret)
    refuses = Reply(status=status, body=json.dumps({"error": {"message": f"no such key:\n{secret}"}}))
    with service() as one, serving(refuses) as endpoint, answering(tmp_path) as inbox:
        one.faults = [str(status)] * 9
        url = {"http": one.url, "chat": endpoint.url, "inbox": inbox}[name]
        _, expert, prices = paid(env({"name": name, "url": url, "late": late} | {"chat": {"model": "m"}}.get(name, {})))
        with pytest.raises(
            TurnedAwayError, match=f"expert {name}:? {url}.* {status}.*it refuses every request.*{what}"
        ) as e:
            ask(expert, prices)
    assert secret not in str(e.value)
    assert "\n" not in str(e.value)
    assert expert.since(0) == ()


@pytest.mark.parametrize("to", ["env.expert", "env.expert.colleague"])
def test_a_training_does_not_start_if_a_model_is_not_there_or_does_not_know_the_key(to):
    def check(url):
        chat = {"name": "chat", "url": url, "model": "m"}
        check_experts(env(chat if to == "env.expert" else {"colleague": {**chat, "price": 0.1}}).expert)

    with serving(Reply(), lists=401) as endpoint:
        with pytest.raises(TurnedAwayError, match=f"^{to} {endpoint.url}, model m: status 401.*OPENAI_API_KEY"):
            check(endpoint.url)
        assert endpoint.asked == []
    with serving(Reply(), lists=404) as endpoint:
        check(endpoint.url)
    with pytest.raises(ConfigError, match=f"^{to} http://127.0.0.1:9/v1: nothing answers there"):
        check("http://127.0.0.1:9/v1")


def test_a_flaky_service_works_once_for_an_ask_that_took_many_attempts():
    with service() as one:
        one.faults = ["503", "drop", "cut", "garbage"]
        counted, expert, prices = paid(env({"name": "http", "url": one.url}))
        found = ask(expert, prices)
    assert (found.answer, found.price, counted.asked) == ("yes", 200, {KEY: 1})
    assert list(one.requests.values()) == [5]
    assert list(one.worked.values()) == [1]


def test_a_key_with_any_characters_reaches_a_service():
    with service() as one:
        _, expert, prices = paid(env({"name": "http", "url": one.url}))
        found = [
            ask(expert, prices, key=replace(KEY, stream=stream)).answer for stream in ("1 % é\n", "1 % é ", "日/0")
        ]
    assert found == ["yes"] * 3
    assert len(one.requests) == 3


def test_a_slow_service_is_late_and_answers_under_the_same_key_later():
    with service() as one:
        one.answers.clear()
        config = env({"name": "http", "url": one.url, "late": "alone"})
        _, expert, prices = paid(config, deadline_s=0.2)
        assert ask(expert, prices).outcome is Outcome.LATE
        one.answers.set()
        _, again, prices = paid(config)
        assert ask(again, prices).answer == "yes"
    assert len(one.requests) == len(one.worked) == 1


@pytest.mark.parametrize("outcome", ["abstained", "refused"])
def test_a_service_may_decline(outcome):
    with service() as one:
        one.said = {"outcome": outcome}
        _, expert, prices = paid(env({"name": "http", "url": one.url}))
        assert (ask(expert, prices).outcome, ask(expert, prices).price) == (outcome, 0)


@pytest.mark.parametrize("said", [{}, {"answer": 3}, [], {"outcome": "capped"}])
def test_a_service_that_says_something_else_breaks_the_ask(said):
    with service() as one:
        one.said = said
        _, expert, prices = paid(env({"name": "http", "url": one.url}))
        with pytest.raises(ExpertError, match="expert http: a reply has an answer or an outcome"):
            ask(expert, prices)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(said="UNKNOWN."), Outcome.ABSTAINED),
        (Reply(said=""), Outcome.ABSTAINED),
        (Reply(said=None, refusal="I can't"), Outcome.REFUSED),
        (Reply(said="blue"), Outcome.ANSWERED),
    ],
)
def test_a_model_may_decline(reply, outcome):
    with serving(reply) as endpoint:
        _, expert, prices = paid(env({"name": "chat", "url": endpoint.url, "model": "m"}))
        assert ask(expert, prices).outcome is outcome


def chat(endpoint, **more):
    return env({"name": "chat", "url": endpoint.url, "model": "m"}, **more)


def key(position):
    return AskKey(stream="s", position=position, number=0)


def test_equal_questions_are_asked_of_the_model_once_also_by_a_later_process(tmp_path):
    with serving(Reply(said="yes", waits_s=0.2)) as endpoint:
        for _ in range(2):
            config = chat(endpoint, cache=tmp_path / "answers.sqlite")
            _, expert, prices = paid(config)
            _, other, _ = paid(config)

            async def both(asked=(expert, other), prices=prices):
                asks = [one.ask(WET, key=key(at), price=200, prices=prices) for at in range(3) for one in asked]
                return await asyncio.gather(*asks)

            assert {receipt.answer for receipt in asyncio.run(both())} == {"yes"}
        assert len(endpoint.asked) == 1


def test_a_cache_that_is_no_table_is_refused_and_a_look_at_a_run_makes_none(tmp_path):
    config = env({"name": "chat", "url": "http://h/v1", "model": "m"}, cache=tmp_path / "new" / "answers.sqlite")
    build_expert(config, opens=False)
    assert list(tmp_path.iterdir()) == []
    build_expert(config)
    (tmp_path / "text").write_text("no table, but a text of some length" * 9)
    with pytest.raises(ConfigError, match="the cache .*text must be an SQLite file"):
        build_expert(env({"name": "chat", "url": "http://h/v1", "model": "m"}, cache=tmp_path / "text"))


def test_a_reached_limit_has_its_name_costs_nothing_and_is_never_exceeded():
    with serving(Reply(said="yes")) as endpoint:  # 107 tokens each
        config = chat(endpoint, tokens=900, charges="asks")
        counted, expert, prices = paid(config)
        asked = [ask(expert, prices, key=key(n), one=question(n, f"number {n} ?")) for n in range(10)]
        found = Counter(receipt.outcome for receipt in asked)
        spent = counted.expert.spending.tokens
    assert 0 < found[Outcome.ANSWERED] == len(endpoint.asked) < 10
    assert found[Outcome.CAPPED] == 10 - found[Outcome.ANSWERED]
    assert spent == 107 * found[Outcome.ANSWERED] <= 900
    assert {receipt.price for receipt in asked if receipt.outcome is Outcome.CAPPED} == {0}


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(chat_endpoint, "FIRST_WAIT_S", 0.01)


def reserve_of_one_attempt():
    """The most tokens that a request about WET may cost."""
    with serving(Reply(status=400)) as endpoint:
        counted, expert, prices = paid(chat(endpoint, late="alone"))
        assert ask(expert, prices).outcome is Outcome.BROKEN
        return counted.expert.spending.tokens


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (Reply(status=500), 1),
        (Reply(cut=True), 1),
        (Reply(status=503), 0),
        (Reply(status=429, headers={"Retry-After": "0.2"}), 0),
    ],
)
def test_a_flaky_model_is_paid_once_and_what_it_may_have_worked_on_counts_toward_the_limit(fault, kept, quick_retries):
    reserve = reserve_of_one_attempt()
    with serving(fault, fault, Reply(said="yes")) as endpoint:
        counted, expert, prices = paid(chat(endpoint))
        found = ask(expert, prices)
        assert (found.answer, found.price, counted.asked) == ("yes", 200, {KEY: 1})
        assert counted.expert.spending.tokens == 2 * kept * reserve + 107
        assert ask(expert, prices, key=key(9)).answer == "yes"  # the same question
    assert len(endpoint.asked) == 3
    assert len({one.key for one in endpoint.asked}) == 1


class Later:
    """Stands for time, an hour later: a request that has not ended by then counts as lost."""

    monotonic, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

    def time(self):
        return time.time() + 3600


def test_a_request_that_waits_for_its_turn_is_not_paid_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("rollout.experts.CONCURRENT", 1)
    monkeypatch.setattr("envs.endpoints.chat.CONCURRENT", 1)
    questions = [question(n, f"number {n} ?") for n in range(4)]
    ends = threading.Event()

    def reply(asked):
        assert asked.shown != questions[0].shown or ends.wait(PATIENCE_S)
        return Reply(said="yes")

    with serving(then=reply) as endpoint:
        config = chat(endpoint, cache=tmp_path / "answers.sqlite", late="alone")
        (crowded, patient, prices), (_, other, _) = paid(config), paid(config)
        hurried = PaidExpert(crowded, deadline_s=0.3)

        def asks(expert, which):
            return asyncio.gather(*(expert.ask(questions[n], key=key(n), price=200, prices=prices) for n in which))

        async def all_at_once():
            async with asyncio.timeout(PATIENCE_S):
                first = asks(patient, [0])
                while not endpoint.asked:
                    await asyncio.sleep(0.01)
                late = await asks(hurried, [1, 2, 3])
                monkeypatch.setattr(spending, "time", Later())
                found = await asks(other, [1, 2, 3])
                ends.set()
                return [*await first, *found, *await asks(other, [0])], late

        found, late = asyncio.run(all_at_once())
    assert [receipt.answer for receipt in found] == ["yes"] * 5
    assert [receipt.outcome for receipt in late] == [Outcome.LATE] * 3
    assert Counter(one.shown for one in endpoint.asked) == Counter(one.shown for one in questions)


def test_attempts_beyond_the_limit_are_not_made(quick_retries):
    reserve = reserve_of_one_attempt()
    with serving(Reply(cut=True)) as endpoint:
        counted, expert, prices = paid(chat(endpoint, tokens=3 * reserve - 1))
        found = ask(expert, prices)
        assert (found.outcome, found.price) == (Outcome.CAPPED, 0)
        assert (len(endpoint.asked), counted.expert.spending.tokens) == (2, 2 * reserve)


@pytest.mark.parametrize(
    ("fault", "request_s", "kept", "late", "said"),
    [
        (Reply(status=400), 20.0, 1, False, "status 400"),
        (Reply(body='{"choices": [{"mess'), 20.0, 1, False, "malformed reply"),
        (Reply(status=401), 20.0, 0, False, "status 401"),
        (Reply(status=429, headers={"Retry-After": "25"}), 20.0, 0, True, r"deadline \(20 s\); last: status 429"),
        (Reply(waits_s=PATIENCE_S), 0.5, 1, True, r"within its deadline \(0.5 s\)"),
    ],
)
def test_without_a_reply_nothing_is_paid_and_what_may_have_been_worked_on_counts_toward_the_limit(
    tmp_path, fault, request_s, kept, late, said
):
    reserve = reserve_of_one_attempt()
    with serving(fault, Reply(said="yes")) as endpoint:
        config = chat(endpoint, cache=tmp_path / "answers.sqlite")
        counted, expert, prices = paid(config, request_s=request_s)
        with pytest.raises((ExpertError, TurnedAwayError), match=said) as error:
            ask(expert, prices)
        assert (getattr(error.value, "late", False), expert.since(0)) == (late, ())
        assert counted.expert.spending.tokens == kept * reserve
        assert ask(paid(config)[1], prices).answer == "yes"
        assert counted.expert.spending.tokens == kept * reserve + 107
    assert len(endpoint.asked) == 2


def test_an_endpoint_that_nobody_serves_uses_none_of_the_tokens(quick_retries):
    gone = env({"name": "chat", "url": "http://127.0.0.1:9/v1", "model": "m"}, late="alone", tokens=900)
    counted, expert, prices = paid(gone, request_s=0.3)
    assert (ask(expert, prices).outcome, ask(expert, prices).price) == (Outcome.LATE, 0)
    assert counted.expert.spending.tokens == 0


def test_an_answer_that_comes_after_the_agent_gave_up_is_used_when_the_question_is_asked_again(tmp_path):
    given_up = threading.Event()
    with serving(then=lambda asked: Reply(said="yes" if given_up.wait(PATIENCE_S) else "no")) as endpoint:
        config = chat(endpoint, late="alone", cache=tmp_path / "answers.sqlite")
        expert, prices = build_expert(config, deadline_s=PATIENCE_S), Prices.of(config, seed=0)
        hurried, patient = (PaidExpert(expert, deadline_s=deadline_s) for deadline_s in (0.1, PATIENCE_S))
        gave_up = ask(hurried, prices)
        given_up.set()
        assert (gave_up.outcome, gave_up.price) == (Outcome.LATE, 0)
        found = ask(patient, prices, key=key(9))  # of another session
        assert (found.answer, found.price) == ("yes", 200)
        assert ask(hurried, prices) == gave_up  # the ask stays what it was
    assert len(endpoint.asked) == 1
    assert expert.spending.tokens == 107


def test_a_request_that_outlives_its_deadline_is_not_made_again_by_another_ask_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(spending, "SLACK_S", 0.0)
    books = Spending(tmp_path / "answers.sqlite", asks="m", limit=None, wait_s=0.2, at_once=8)
    begun, ends, asked = threading.Event(), threading.Event(), []

    def slow(claim):
        claim.reserve()
        asked.append(claim)
        begun.set()
        assert ends.wait(PATIENCE_S)
        return Paid(said="yes", tokens=7)

    first = threading.Thread(target=lambda: books.once("q", most=50, pay=slow))
    first.start()
    assert begun.wait(PATIENCE_S)
    with pytest.raises(ExpertError, match="no answer, or no turn to ask, within 0.2 s") as error:
        books.once("q", most=50, pay=slow)
    assert error.value.late
    ends.set()
    first.join(PATIENCE_S)
    assert books.once("q", most=50, pay=slow) == "yes"
    assert (len(asked), books.tokens) == (1, 7)


@pytest.mark.parametrize("wrong", [0.1, 0.3])
def test_a_fallible_expert_is_as_wrong_as_it_says_and_repeats_itself(wrong):
    expert = build_expert(env({"wrong": wrong, "abstains": 0.2}))
    questions = [question(n, f"number {n} ?") for n in range(2000)]
    said = [asyncio.run(expert.advise(one, key=key(0))) for one in questions]
    answered = [one for one in said if one.outcome is Outcome.ANSWERED]
    assert len(answered) / len(said) == pytest.approx(0.8, abs=0.03)
    assert sum(one.answer == "no" for one in answered) / len(answered) == pytest.approx(wrong, abs=0.03)
    assert expert.reliability == pytest.approx(1 - wrong)
    assert [asyncio.run(expert.advise(one, key=key(9))) for one in questions[:50]] == said[:50]
    config, by = env({"wrong": wrong, "abstains": 0.2}), {"agent": Agent(), "memory": Memory(threshold=0.72)}
    shop = envs.build(config, seed=0)
    again, other = (build_rules(shop, env=config, model=None, seed=seed, **by).expert for seed in (0, 1))
    assert [asyncio.run(again.advise(one, key=key(0))) for one in questions[:99]] == said[:99]
    assert [asyncio.run(other.advise(one, key=key(0))) for one in questions[:99]] != said[:99]


@pytest.mark.parametrize(
    ("judge", "answer", "guess"),
    [
        ("number", "5", ""),
        ("number", "199.90 EUR", "199.9"),
        ("set", "red, blue", "blue; red"),
        ("exact", "A cat", "a  cat."),
        ("exact", "red", "blue"),
        ("exact", "yes", "yes"),
    ],
)
def test_a_wrong_answer_is_wrong_for_the_judge(judge, answer, guess):
    one = replace(question(1, "how much ?", answer=answer), guess=guess)
    assert not JUDGES[judge](one, wrong_answer(one))


def test_two_experts_have_keys_receipts_and_prices_of_their_own():
    config = env({"name": "gold", "colleague": {"wrong": 1.0, "price": 0.05}})
    _, expert, prices = paid(config)
    first = ask(expert, prices)
    assert prices.colleague is not None
    to = AskKey(stream="s", position=3, number=0, to=COLLEAGUE)
    second = ask(expert, prices.colleague, key=to)
    assert (first.key, first.price, first.answer) == ("s#3#0", 200, "yes")
    assert (second.key, second.price, second.answer) == ("s#3#0@colleague", 50, "no")
    assert AskKey.parse(second.key) == to
    assert expert.told(3).answer == "no"
    ask(expert, prices)
    assert expert.told(3).answer == "yes"
