"""A stuck session is named, whatever else goes on; and what goes on never runs into a deadline."""

import asyncio
import threading
from collections.abc import Callable, Coroutine

import pytest

from agile_ray.agent.environment import Question, Submission
from agile_ray.agent.expert import Advice, AskKey, GoldExpert
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, SessionView
from agile_ray.errors import DeadlineError
from agile_ray.types import Session
from rollout import waiting
from rollout.engine_policy import EnginePolicy, Lockstep
from rollout.timed_session import play_session
from rollout.waiting import wait
from tests.fakes.clock import LONG_S, HandMoved, run
from tests.fakes.engine import FakeEngine
from tests.fakes.worlds import ASKS, Says, SmallStream, lane, question, rules

LIMIT_S = 1.0


class Slow(Says):
    """Writes prepared turns; the first one after longer than the limit."""

    def __init__(self, clock: HandMoved, *turns: str) -> None:
        super().__init__(*turns)
        self.clock = clock

    async def write(self, view: SessionView) -> Completion:
        if len(self.turns) == len(ASKS):
            await self.clock.move(1.3 * LIMIT_S)
        return await super().write(view)


class Thinks(GoldExpert):
    """Answers after longer than the limit."""

    def __init__(self, clock: HandMoved) -> None:
        self.clock = clock

    async def advise(self, question: Question, *, key: AskKey) -> Advice:
        self.clock.passes(1.3 * LIMIT_S)
        return await super().advise(question, key=key)


class Stuck(SmallStream):
    """Judges after longer than the limit, which begins once the others wait in their policy."""

    def __init__(self, clock: HandMoved, others_wait: threading.Event, *questions: Question) -> None:
        super().__init__(*questions)
        self.clock, self.others_wait = clock, others_wait

    def judge(self, question: Question, submission: Submission) -> bool:
        assert self.others_wait.wait(LONG_S)
        self.clock.passes(1.3 * LIMIT_S)
        return super().judge(question, submission)


class Tells:
    """A policy that says when it is waited for."""

    def __init__(self, policy: Policy, waited_for: threading.Event) -> None:
        self.policy, self.waited_for = policy, waited_for

    async def write(self, view: SessionView) -> Completion:
        self.waited_for.set()
        return await self.policy.write(view)


@pytest.fixture
def hand_moved() -> HandMoved:
    return HandMoved()


def session(one: Lane, policy: Policy, stepped: Callable[[], None] = lambda: None) -> Coroutine[None, None, Session]:
    return play_session(one, policy, deadline_s=LIMIT_S, stepped=stepped)


def questions(number: int) -> list[Question]:
    return [question(n, "does it rust ?") for n in range(number)]


def test_the_time_that_a_policy_takes_does_not_count(hand_moved: HandMoved) -> None:
    one, steps = lane(*questions(1)), []
    run(session(one, Slow(hand_moved, *ASKS), lambda: steps.append(one.position)), hand_moved)
    assert (one.position, len(steps)) == (1, 2 * len(ASKS))


def test_the_time_that_an_expert_takes_does_not_count(hand_moved: HandMoved) -> None:
    one = lane(*questions(1), with_rules=rules(expert=Thinks(hand_moved)))
    played = run(session(one, Says(*ASKS)), hand_moved)
    assert (one.position, len(played.receipts), played.error) == (1, 1, None)


def test_in_lockstep_the_stuck_session_is_named_and_not_those_that_wait_for_it(hand_moved: HandMoved) -> None:
    others_wait = threading.Event()
    waiting_lane = lane(*questions(9))
    stuck = Lane(Stuck(hand_moved, others_wait, *questions(9)), rules())
    stuck.position, waiting_lane.position = 7, 3

    async def both() -> None:
        seat = Lockstep(FakeEngine(), seats=2, temperature=0.0, seed=0).seat(0)
        await asyncio.gather(session(waiting_lane, Tells(seat, others_wait)), session(stuck, Says(*ASKS)))

    with pytest.raises(DeadlineError, match=r"session 7 of stream test/small/0: .* longer than .*\(1 s\)"):
        run(both(), hand_moved)


def test_a_request_that_is_late_names_its_session() -> None:
    class Late(FakeEngine):
        async def _call(self, name: str) -> None:
            raise DeadlineError("rollout: vLLM's generate took longer than cluster.deadline_s (9 s)")

    one = lane(*questions(2))
    one.position = 1
    with pytest.raises(DeadlineError, match=r"\(9 s\), in session 1 of stream test/small/0"):
        asyncio.run(one.play(EnginePolicy(Late(), temperature=1.0)))


class Clock:
    """Stands for time and Ray: a wait takes half a second, and an answer is there from a given time on."""

    def __init__(self, ready: dict[str, float]) -> None:
        self.now, self.ready = 0.0, ready

    def monotonic(self) -> float:
        return self.now

    def wait(self, answers: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        self.now += 0.5
        found = [answer for answer in answers if self.ready[answer] <= self.now][:num_returns]
        return found, [answer for answer in answers if answer not in found]

    def get(self, answer: str, *, timeout: float) -> str:
        return answer.upper()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def start(**ready: float) -> Clock:
        found = Clock(ready)
        monkeypatch.setattr(waiting, "ray", found)
        monkeypatch.setattr(waiting, "time", found)
        return found

    return start


def test_a_call_whose_actors_make_steps_outlasts_its_deadline(clock: Callable[..., Clock]) -> None:
    clock(a=100.0, b=250.0)
    found = wait("evaluate test", ["a", "b"], deadline_s=10.0, meanwhile=lambda: [0, 1])  # pyright: ignore[reportArgumentType]
    assert found == ["A", "B"]


def test_an_actor_that_makes_no_step_is_named_while_another_goes_on(clock: Callable[..., Clock]) -> None:
    one = clock(a=100.0, b=100.0)
    with pytest.raises(DeadlineError, match=r"evaluate test: .* report a step within 10 s, these did not: 1$"):
        wait("evaluate test", ["a", "b"], deadline_s=10.0, meanwhile=lambda: [0])  # pyright: ignore[reportArgumentType]
    assert one.now == pytest.approx(10.5)


def test_a_call_without_reports_keeps_its_deadline(clock: Callable[..., Clock]) -> None:
    clock(a=3.0, b=11.0)
    with pytest.raises(DeadlineError, match=r"load: every actor must answer within 10 s, these did not: 1$"):
        wait("load", ["a", "b"], deadline_s=10.0)  # pyright: ignore[reportArgumentType]
