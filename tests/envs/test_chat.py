"""A chat endpoint: what is tried again, what is paid, and what each failure says."""

import threading
import time
from types import SimpleNamespace

import pytest

from agile_ray.errors import ConfigError, EndpointError, TurnedAwayError
from envs.endpoints import chat as module
from envs.endpoints.chat import CONCURRENT, Chat, Usage
from tests.fakes.endpoint import Reply, serving

LONG_S = 60.0
"""Deadline of what comes at once, however busy the machine is, and longer than what must be late, seconds."""
HELLO = [{"role": "system", "content": "be short"}, {"role": "user", "content": "is it wet ?"}]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv(module.KEY, "secret")


def ask(endpoint, *, deadline_s=LONG_S, model="m"):
    chat = Chat(url=endpoint.url, model=model, deadline_s=deadline_s)
    return chat, lambda: chat.ask(HELLO, max_tokens=9)


def test_a_request_carries_messages_model_key_and_limit_and_its_tokens_are_counted():
    with serving(Reply(said=" no ")) as endpoint:
        chat, send = ask(endpoint)
        assert send() == " no "
    (asked,) = endpoint.asked
    assert asked.authorization == "Bearer secret"
    assert (asked.body["messages"], asked.body["model"], asked.body["max_tokens"]) == (HELLO, "m", 9)
    assert asked.body["temperature"] == 0
    assert chat.usage == Usage(requests=1, prompt_tokens=100, completion_tokens=7)
    assert chat.usage.cost((2.0, 10.0)) == pytest.approx((200 + 70) / 1e6)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again_under_one_key_and_paid_once(status):
    with serving(Reply(status=status), Reply(status=status), Reply()) as endpoint:
        chat, send = ask(endpoint)
        assert send() == "yes"
    assert len({asked.key for asked in endpoint.asked}) == 1
    assert endpoint.asked[0].key
    assert chat.usage == Usage(requests=1, retries=2, prompt_tokens=100, completion_tokens=7)


def test_requests_have_keys_of_their_own():
    with serving(Reply()) as endpoint:
        _, send = ask(endpoint)
        send()
        send()
    assert len({asked.key for asked in endpoint.asked}) == 2


def test_retry_after_is_obeyed():
    with serving(Reply(status=429, headers={"Retry-After": "0.4"}), Reply()) as endpoint:
        _, send = ask(endpoint)
        assert send() == "yes"
    first, second = endpoint.asked
    assert second.at - first.at >= 0.4


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(monkeypatch):
    slept = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    with serving(Reply(status=429, headers={"Retry-After": "25"})) as endpoint:
        chat, send = ask(endpoint, deadline_s=20.0)
        with pytest.raises(EndpointError, match=r"no answer within its deadline \(20 s\); last: status 429"):
            send()
    assert slept == []
    assert (chat.usage.requests, chat.usage.failed) == (0, 1)


def test_a_late_endpoint_is_named_with_its_deadline():
    with serving(Reply(waits_s=LONG_S)) as endpoint:
        _, send = ask(endpoint, deadline_s=0.5)
        with pytest.raises(EndpointError, match=r"endpoint http://127.*deadline \(0.5 s\); last: APITimeoutError"):
            send()


def test_nothing_at_the_address_is_an_error_of_the_session_at_the_deadline():
    chat = Chat(url="http://127.0.0.1:9/v1", model="m", deadline_s=0.3, name="judge")
    with pytest.raises(EndpointError, match=r"judge http://127.0.0.1:9/v1: no answer .* APIConnectionError"):
        chat.ask(HELLO, max_tokens=1)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_ends_the_run_at_once(status):
    with serving(Reply(status=status)) as endpoint:
        _, send = ask(endpoint, model="absent")
        with pytest.raises(TurnedAwayError, match=rf"model absent: status {status}.*OPENAI_API_KEY"):
            send()
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=400),
        Reply(body="{}"),
        Reply(body='{"choices": []}'),
        Reply(body="not json"),
        Reply(body='{"choices": [{"message": {"content": [1]}}]}'),
    ],
)
def test_a_refused_request_or_a_malformed_reply_is_not_tried_again(reply):
    with serving(reply) as endpoint:
        chat, send = ask(endpoint)
        with pytest.raises(EndpointError, match=r"status 400|malformed reply"):
            send()
    assert len(endpoint.asked) == 1
    assert (chat.usage.requests, chat.usage.failed) == (0, 1)


def test_a_refusal_is_a_reply():
    with serving(Reply(said=None, refusal="I can't")) as endpoint:
        assert ask(endpoint)[1]() == "I can't"
    with serving(Reply(said=None)) as endpoint:
        assert ask(endpoint)[1]() == ""


def test_requests_at_the_same_time_are_bounded():
    gathered = threading.Event()

    def reply(_):
        if endpoint.most_at_once >= CONCURRENT:
            gathered.set()
        assert gathered.wait(LONG_S)
        return Reply(waits_s=0.1)  # in which one more would come

    with serving(then=reply) as endpoint:
        chat, send = ask(endpoint)
        threads = [threading.Thread(target=send) for _ in range(2 * CONCURRENT + 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
    assert endpoint.most_at_once == CONCURRENT
    assert chat.usage.requests == 2 * CONCURRENT + 3


def test_an_address_where_nothing_is_is_refused_before_any_request():
    began = time.monotonic()
    with pytest.raises(
        ConfigError, match="endpoint http://127.0.0.1:9/v1: nothing answers there .*refused.*; start the"
    ):
        Chat(url="http://127.0.0.1:9/v1", model="m", deadline_s=10 * LONG_S).check()
    assert time.monotonic() - began < LONG_S  # far below the deadline of a request


@pytest.mark.parametrize("status", [501, 404, 403])
def test_a_server_without_a_list_of_models_is_one(status):
    with serving(Reply(), lists=status) as endpoint:
        Chat(url=endpoint.url, model="m", deadline_s=LONG_S).check()
    assert endpoint.asked == []


def test_a_key_that_is_not_known_is_refused_before_any_request():
    with serving(Reply(), lists=401) as endpoint:
        chat = Chat(url=endpoint.url, model="m", deadline_s=LONG_S)
        with pytest.raises(TurnedAwayError, match=f"endpoint {endpoint.url}, model m: status 401.*OPENAI_API_KEY"):
            chat.check()
    assert endpoint.asked == []
