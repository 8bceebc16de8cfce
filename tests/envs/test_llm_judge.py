"""A language model as judge: strict verdicts, one request for equal answers, typed failures."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

import envs
from agile_ray.agent.environment import Submission
from agile_ray.agent.lane import Lane
from agile_ray.config import Agent, Env, Memory
from agile_ray.errors import EndpointError, JudgeError, SessionError, TurnedAwayError
from agile_ray.types import Ending
from envs.endpoints import llm_judge
from envs.endpoints.chat import Chat
from envs.endpoints.llm_judge import LLMJudge, LLMJudgedStream
from tests.fakes.endpoint import Reply, serving
from tests.fakes.streams import script_rules
from tests.fakes.worlds import Says, SmallStream, question

RIGHT = Reply(said="It names the same city.\nVERDICT: right")
WRONG = Reply(said="Another city.\n\nVERDICT: wrong\n")
ASKED = {"question": "where is it ?", "gold": "the Paris of Texas", "said": "Paris, Texas"}


def judge(endpoint):
    return LLMJudge(Chat(url=endpoint.url, model="m", deadline_s=60.0, name="judge"))


@pytest.mark.parametrize(("reply", "right"), [(RIGHT, True), (WRONG, False)])
def test_the_verdict_is_the_last_line_and_the_rubric_is_told(reply, right):
    with serving(reply) as endpoint:
        assert judge(endpoint).right(**ASKED) is right
    system, user = endpoint.asked[0].body["messages"]
    assert "VERDICT: right\nVERDICT: wrong" in system["content"]
    for words in ASKED.values():
        assert words in user["content"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "right",
        "VERDICT: Right",
        "VERDICT: right.",
        "VERDICT: maybe",
        "VERDICT: right, I think",
        "VERDICT: wrong\nor not\nVERDICT: right",
        "VERDICT: right\nbut see above",
    ],
)
def test_any_other_reply_is_an_error_and_is_not_kept(said):
    with serving(Reply(said=said), RIGHT) as endpoint:
        one = judge(endpoint)
        with pytest.raises(JudgeError, match="must end with `VERDICT: right` or `VERDICT: wrong`"):
            one.right(**ASKED)
        assert one.right(**ASKED)
    assert issubclass(JudgeError, SessionError)


def test_equal_answers_are_judged_once_also_at_the_same_time():
    slow = Reply(said=RIGHT.said, waits_s=0.3)
    with serving(slow) as endpoint:
        one, found = judge(endpoint), []
        threads = [threading.Thread(target=lambda: found.append(one.right(**ASKED))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 5
        assert one.right(**(ASKED | {"said": " Paris,  Texas "}))
        assert len(endpoint.asked) == one.chat.usage.requests == 1
        one.right(**(ASKED | {"said": "Paris"}))
        assert len(endpoint.asked) == 2


def test_who_waits_for_the_request_of_another_session_waits_with_a_deadline(monkeypatch):
    monkeypatch.setattr(llm_judge, "REQUEST_S", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def ask(messages, *, max_tokens):
        begun.set()
        go_on.wait(60)
        return "VERDICT: right"

    one, found = LLMJudge(SimpleNamespace(ask=ask)), []
    first = threading.Thread(target=lambda: found.append(one.right(**ASKED)))
    first.start()
    assert begun.wait(60)
    with pytest.raises(JudgeError, match="another session asks for must come within 0.05 s"):
        one.right(**ASKED)
    go_on.set()
    first.join(60)
    assert found == [True]
    assert one.right(**ASKED) is True


def test_nothing_said_is_wrong_without_a_request():
    with serving(RIGHT) as endpoint:
        assert not judge(endpoint).right(**(ASKED | {"said": "  "}))
    assert not endpoint.asked


def test_the_endpoints_failures_stay_what_they_are():
    with serving(Reply(status=400)) as endpoint, pytest.raises(EndpointError, match="judge http.*status 400"):
        judge(endpoint).right(**ASKED)
    with serving(Reply(status=401)) as endpoint, pytest.raises(TurnedAwayError, match="status 401"):
        judge(endpoint).right(**ASKED)


def test_the_model_judges_only_words_that_the_environment_takes_for_wrong():
    said = []
    model = SimpleNamespace(right=lambda **told: not said.append(told))
    one = LLMJudgedStream(SmallStream(question(0, "is it wet")), model, finds_rows=True)
    asked = one.questions[0]
    assert one.judge(asked, Submission(text="yes", rows=None))
    assert one.judge(asked, Submission(text="", rows=("p1",)))
    assert not one.judge(asked, Submission(text="", rows=("p7",)))
    assert not one.judge(asked, Submission(text="no", rows=None, advised=True))
    assert said == []
    assert one.judge(asked, Submission(text="it surely is", rows=None))
    assert said == [{"question": "is it wet", "gold": "yes", "said": "it surely is"}]


def test_a_config_chooses_the_judge_and_a_session_is_judged_by_it():
    with serving(WRONG, RIGHT, Reply(said="no idea")) as endpoint:
        world = envs.build(Env(name="recurring", judge=f"{endpoint.url}#m"), seed=0)
        rules = script_rules(world, agent=Agent(), memory=Memory(threshold=0.65))
        lane = Lane(world.stream(split="test", index=0), rules)
        turns = ("[GetQuestion]", "[PredictAnswer] so they {} [SubmitAnswer] [ClearContext]")
        played = [asyncio.run(lane.play(Says(turns[0], turns[1].format(n)))) for n in ("one", "two", "three")]
    assert [one.ending for one in played] == [Ending.DONE, Ending.DONE, Ending.FAILED]
    assert [one.correct for one in played] == [False, True, False]
    assert played[2].error.startswith("JudgeError: judge: a reply must end with")


@pytest.mark.parametrize("name", ["http://localhost/v1", "http://localhost/v1#", "localhost:8000#m", "#m"])
def test_a_judge_is_named_by_the_address_and_the_model(name):
    with pytest.raises(ValueError, match="judge"):
        Env(name="shop", judge=name)
