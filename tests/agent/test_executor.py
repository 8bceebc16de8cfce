import asyncio
from dataclasses import replace

import numpy as np
import pytest

from agile_ray.agent.environment import Found
from agile_ray.agent.executor import Executor
from agile_ray.agent.expert import Advice, AskKey, GoldExpert
from agile_ray.agent.memory import Memory
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.agent.session_memory import SessionMemory
from agile_ray.config import Agent
from agile_ray.errors import ContractError, ExpertError, TurnedAwayError
from agile_ray.segments import cut
from agile_ray.types import Ending, Hindsight
from tests.fakes.worlds import ASKS, END, OPENING, PREDICTS, Says, lane, question, read, rules

RUST = question(0, "does it rust ?", answer="no")
WET = question(1, "is it waterproof ?")


def play(*turns, of=(WET,), **kwargs):
    one = lane(*of, **kwargs)
    return asyncio.run(one.play(Says(*turns))), one


def observed(session, tokenizer):
    """What the executor appended, in order."""
    [segment] = cut(session)
    return read(segment.token_ids[~segment.action_mask][1:], tokenizer)


def test_a_right_prediction_earns_one_on_its_submit_token():
    session, _ = play(*PREDICTS)
    assert session.ending is Ending.DONE
    assert (session.correct, session.answer, session.own_reward) == (True, "yes", 1.0)
    assert session.turns[-1].rewards.tolist() == [0, 0, 1, 0]
    assert session.turns[-1].rewards.dtype == np.float32


def test_advice_costs_its_price_on_the_ask_token_and_is_remembered():
    session, one = play(*ASKS, of=(RUST,))
    assert session.own_reward == pytest.approx(0.7)
    assert session.turns[2].rewards.tolist() == [pytest.approx(-0.3)]
    [receipt] = session.receipts
    assert (receipt.key, receipt.price, receipt.source) == ("test/small/0#0#0", 300, "gold")
    assert [entry.text for entry in one.memory.change().entries] == ["does it rust ? no", "steel rusts"]
    assert [use.kind for use in session.writes] == ["qa", "knowledge"]


def test_a_later_session_reads_the_entry_and_knows_its_writer():
    one = lane(RUST, RUST)
    asyncio.run(one.play(Says(*ASKS)))
    later = asyncio.run(one.play(Says(*PREDICTS)))
    assert [(use.kind, use.writer) for use in later.reads] == [("qa", 0), ("knowledge", 0)]
    assert later.reads[0].similarity == pytest.approx(1.0)
    assert later.hindsight.stored_similar == 1


def test_a_qa_pair_is_found_only_under_its_product_but_knowledge_everywhere():
    one = lane(RUST, question(1, "does it rust ?", product="p2"))
    asyncio.run(one.play(Says(*ASKS)))
    later = asyncio.run(one.play(Says(*PREDICTS)))
    assert [use.kind for use in later.reads] == ["knowledge"]


def test_a_session_never_retrieves_what_it_wrote_itself():
    session, _ = play(*OPENING, "[SeekAdvice]", "[UpdateMemory] [RetrieveMemory]", "[SubmitAnswer] [ClearContext]")
    assert session.writes
    assert session.reads == ()


def test_a_reflection_without_information_is_not_remembered():
    turns = (*OPENING, "[SeekAdvice]", "[Reflection] no information [UpdateMemory] [SubmitAnswer] [ClearContext]")
    session, _ = play(*turns)
    assert [use.kind for use in session.writes] == ["qa"]


def test_rows_are_submitted_when_nothing_was_predicted():
    session, _ = play(*OPENING, f"[SearchProduct] SELECT all {END}", "[SubmitAnswer] [ClearContext]")
    assert (session.correct, session.answer) == (True, "p1 p2")


@pytest.mark.parametrize(
    ("turns", "says", "remarks"),
    [
        (("[RetrieveMemory]",), "get the question first", ("refused",)),
        ((OPENING[0], "[SubmitAnswer]"), "nothing to submit", ("refused",)),
        ((OPENING[0], "[UpdateMemory]"), "memory is written only after advice", ("refused",)),
        ((OPENING[0], "[Search]"), "there is no such tool , use SearchProduct", ("refused",)),
        ((OPENING[0], f"[SearchProduct] DROP {END}"), "error : syntax", ("bad_query",)),
        ((OPENING[0], "[SearchProduct] SELECT all [SubmitAnswer]"), "a query ends with the end token", ("refused",)),
        ((OPENING[0], f"hm {END}"), "nothing to end here", ("refused",)),
        ((OPENING[0], OPENING[0]), "the question is shown above", ("refused",)),
    ],
)
def test_a_wrong_call_is_an_observation_and_the_session_continues(turns, says, remarks):
    with_rules = rules()
    session, _ = play(
        *turns,
        "[PredictAnswer] yes [SubmitAnswer] [ClearContext]" if OPENING[0] in turns else OPENING[0],
        *PREDICTS[2:],
        with_rules=with_rules,
    )
    assert says in observed(session, with_rules.tokenizer)
    assert (session.ending, session.correct, session.remarks) == (Ending.DONE, True, remarks)
    assert session.asks == 0


def test_a_bad_query_leaves_nothing_to_submit():
    with_rules = rules()
    session, _ = play(
        *OPENING, f"[SearchProduct] DROP {END}", "[SubmitAnswer]", "[ClearContext]", with_rules=with_rules
    )
    assert (session.correct, session.answer) == (False, None)
    assert "nothing to submit" in observed(session, with_rules.tokenizer)


def test_words_that_end_with_the_end_token_are_kept():
    session, _ = play(*OPENING, f"[PredictAnswer] yes {END}", "[SubmitAnswer] [ClearContext]")
    assert (session.answer, session.correct, session.remarks) == ("yes", True, ("refused",))
    session, one = play(
        *(*OPENING, "[SeekAdvice]", f"[Reflection] steel rusts {END}", "[UpdateMemory] [SubmitAnswer] [ClearContext]"),
        of=(RUST,),
    )
    assert [entry.text for entry in one.memory.change().entries] == ["does it rust ? no", "steel rusts"]


def test_after_the_submission_only_clearing_the_context_is_allowed():
    session, _ = play(*OPENING, "[PredictAnswer] no [SubmitAnswer] [SeekAdvice]", "[ClearContext]")
    assert (session.asks, session.correct, session.remarks) == (0, False, ("refused",))


def test_an_ask_above_the_limit_is_refused_and_not_paid():
    session, _ = play(
        *OPENING, "[SeekAdvice]", "[SeekAdvice]", "[SubmitAnswer] [ClearContext]", with_rules=rules(agent=Agent(asks=1))
    )
    assert (session.asks, session.paid) == (1, 300)


def test_what_was_written_after_a_refused_call_is_cut_off_and_counted():
    session, _ = play("[RetrieveMemory] [PredictAnswer] yes", *PREDICTS)
    assert session.turns[0].completion_ids.shape == (1,)
    assert session.remarks == ("refused", "past_stop")


@pytest.mark.parametrize("agent", [Agent(turns=3), Agent(session_tokens=16)])
def test_a_session_out_of_budget_is_cut_and_keeps_what_it_paid(agent):
    session, _ = play(*OPENING, "[SeekAdvice]", "[SeekAdvice]", with_rules=rules(agent=agent))
    assert session.ending is Ending.CUT
    assert session.own_reward == -session.paid / 1000


def test_a_broken_tool_fails_the_session_and_the_lane_continues():
    one = lane(WET, WET, broken_tool=True)
    session = asyncio.run(one.play(Says(*OPENING, f"[SearchProduct] SELECT all {END}")))
    assert (session.ending, session.error) == (Ending.FAILED, "ToolError: shop.db: disk gone")
    assert list(cut(session)) == []
    assert asyncio.run(one.play(Says(*PREDICTS))).ending is Ending.DONE


def test_what_a_session_wrote_before_it_failed_is_taken_back():
    one = lane(RUST, WET, WET, broken_tool=True)
    asyncio.run(one.play(Says(*ASKS)))
    before = one.memory.change().entries
    writes = "[Reflection] glue dries [UpdateMemory] [SearchProduct] x"
    failed = asyncio.run(one.play(Says(*OPENING, "[SeekAdvice]", f"{writes} {END}")))
    assert (failed.ending, failed.writes, failed.paid) == (Ending.FAILED, (), 300)
    assert one.memory.change().entries == before
    later = asyncio.run(one.play(Says(*ASKS)))
    assert [(use.kind, use.writer) for use in (*later.reads, *later.writes)] == [
        ("qa", 0),
        ("knowledge", 0),
        ("qa", 2),
        ("knowledge", 2),
    ]


def test_an_executor_plays_the_same_session_without_an_observer():
    watched, one = play(*ASKS, of=(RUST, RUST))
    with_rules = rules()
    memory = Memory(with_rules.embedder, capacity=9)
    executor = Executor(
        stream=one.stream,
        rules=with_rules,
        memory=SessionMemory(memory, questions=one.stream.questions, position=0, rules=with_rules, price=300),
        expert=PaidExpert(with_rules.expert, deadline_s=60.0),
        price=300,
    )
    policy = Says(*ASKS)
    while executor.ending is None:
        asyncio.run(executor.feed(asyncio.run(policy.write(executor))))
    alone = executor.session()
    assert (watched.hindsight.later_similar, alone.hindsight) == (1, Hindsight())
    assert [entry.text for entry in memory.change().entries] == ["does it rust ? no", "steel rusts"]
    for mine, its in zip(alone.turns, watched.turns, strict=True):
        assert mine.completion_ids.tolist() == its.completion_ids.tolist()
        assert mine.rewards.tolist() == its.rewards.tolist()


class Breaks:
    """Answers with an error, or with something that is no answer."""

    source = "odd"

    def __init__(self, answer):
        self.answer = answer

    def give(self, *_, **__):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    async def advise(self, question, *, key):
        return self.give()


ERRORS = [
    (KeyError("hits"), "KeyError: 'hits'"),
    (OSError(111, "Connection refused"), "ConnectionRefusedError: [Errno 111] Connection refused"),
    (ExceptionGroup("two", [ValueError()]), "ExceptionGroup: two (1 sub-exception)"),
    (ContractError("plain\ntext"), "ContractError: plain text"),
    (StopIteration(), "StopIteration"),
    (AssertionError(), "AssertionError"),
]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        *ERRORS,
        (TimeoutError("read timed out"), "TimeoutError: read timed out"),  # its own, before the deadline
        (asyncio.CancelledError(), "CancelledError"),  # of its own work: nobody stops the session
        (None, "advise() must return an Advice of two texts, found None"),
        (
            Advice(text=None, answer="yes"),
            "advise() must return an Advice of two texts, found Advice(text=None, answer='yes', "
            "outcome=<Outcome.ANSWERED: 'answered'>)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_an_expert_raises_ends_its_own_session_and_costs_nothing(answer, says):
    one = lane(RUST, WET, with_rules=rules(expert=Breaks(answer)))
    session = asyncio.run(one.play(Says(*ASKS)))
    if not isinstance(answer, StopIteration):  # Python makes it a RuntimeError where it leaves a coroutine
        assert session.error == f"ExpertError: expert odd: {says}"
    assert (session.ending, session.receipts, session.paid) == (Ending.FAILED, (), 0)
    assert asyncio.run(one.play(Says(*PREDICTS))).ending is Ending.DONE


@pytest.mark.parametrize(("answer", "says"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("part", ["search", "judge"])
def test_whatever_a_tool_or_a_judge_raises_ends_its_own_session(part, answer, says):
    one = lane(RUST, WET)
    setattr(one.stream, part, Breaks(answer).give)
    turn = f"[SearchProduct] x {END}" if part == "search" else PREDICTS[2]
    session = asyncio.run(one.play(Says(*OPENING, turn)))
    name = {"search": "tool", "judge": "judge"}[part]
    assert (session.ending, session.error) == (Ending.FAILED, f"ToolError: {name}: {says}")
    assert not session.correct
    delattr(one.stream, part)
    assert asyncio.run(one.play(Says(*PREDICTS))).ending is Ending.DONE


@pytest.mark.parametrize("part", ["search", "judge", "expert"])
def test_an_endpoint_that_would_refuse_all_other_sessions_ends_more_than_its_own(part):
    broken = Breaks(TurnedAwayError("endpoint http://h: status 401"))
    one = lane(RUST, WET, with_rules=rules(expert=broken) if part == "expert" else None)
    turn = {"search": f"[SearchProduct] x {END}", "judge": PREDICTS[2], "expert": "[SeekAdvice]"}[part]
    if part != "expert":
        setattr(one.stream, part, broken.give)
    with pytest.raises(TurnedAwayError, match="^endpoint http://h: status 401$"):
        asyncio.run(one.play(Says(*OPENING, turn)))


@pytest.mark.parametrize("found", [None, "rows : p1", Found(text=None, rows=(), bad_query=False)])
def test_a_tool_that_returns_something_else_has_broken(found):
    one = lane(WET)
    one.stream.search = Breaks(found).give
    session = asyncio.run(one.play(Says(*OPENING, f"[SearchProduct] x {END}")))
    assert session.error == f"ToolError: tool: search() must return a Found with a text, found {found!r}"


def test_a_session_that_is_stopped_from_outside_is_stopped():
    async def stop():
        task = asyncio.ensure_future(lane(WET, with_rules=rules(expert=Late())).play(Says(*ASKS)))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stop())


class Late:
    """An expert that answers after a minute."""

    source = "late"

    async def advise(self, question, *, key):
        await asyncio.sleep(60)
        return Advice(text="", answer="")


def test_an_expert_that_misses_its_deadline_fails_the_session_and_is_not_paid():
    session, _ = play(*ASKS, with_rules=rules(agent=Agent(expert_s=0.01), expert=Late()))
    assert session.error == f"{ExpertError.__name__}: expert late: no answer within agent.expert_s (0.01 s)"
    assert session.receipts == ()


def test_forced_functions_are_observations():
    session, _ = play(PREDICTS[2], with_rules=rules(agent=Agent(forced=True)))
    [segment] = cut(session)
    assert segment.actions == 4
    assert session.correct


def test_a_write_to_a_full_memory_is_remarked_but_one_that_memory_has_is_not(monkeypatch):
    monkeypatch.setattr("agile_ray.agent.lane.CAPACITY", 1)
    one = lane(RUST, RUST, WET, with_rules=rules())
    first, again, other = (asyncio.run(one.play(Says(*ASKS))) for _ in range(3))
    assert ([use.kind for use in first.writes], first.remarks) == (["qa", "knowledge"], ())
    assert (again.writes, again.remarks) == ((), ())
    assert ([use.kind for use in other.writes], other.remarks) == (["knowledge"], ("memory_full",))


def test_knowledge_that_memory_has_is_written_again_under_another_question(monkeypatch):
    monkeypatch.setattr("agile_ray.agent.lane.CAPACITY", 2)
    with_rules = rules()
    one = lane(RUST, WET, WET, with_rules=with_rules)
    first, again, reader = (asyncio.run(one.play(Says(*turns))) for turns in (ASKS, ASKS, PREDICTS))
    assert [use.kind for use in first.writes] == [use.kind for use in again.writes] == ["qa", "knowledge"]
    assert [(use.kind, use.writer) for use in reader.reads] == [("qa", 1), ("knowledge", 1)]
    assert [use.similarity for use in reader.reads] == pytest.approx([1.0, 1.0])
    [alone, *_] = reader.hindsight.counterfactuals
    assert alone.writers == (1,)
    assert "steel rusts" in read(alone.prefix_ids, with_rules.tokenizer)  # the first writer's key still finds it


@pytest.mark.parametrize("left", [-3, 0])
def test_forced_functions_that_fill_the_session_cut_it_before_the_first_call(left):
    opened = len(play(PREDICTS[2], with_rules=rules(agent=Agent(forced=True)))[0].turns[0].prompt_ids)
    agent = Agent.model_construct(**{**dict(Agent(forced=True)), "session_tokens": opened + left})
    one = lane(WET, WET, with_rules=rules(agent=agent))
    policy = Says(PREDICTS[2])
    session = asyncio.run(one.play(policy))
    assert session.ending is Ending.CUT
    assert (session.turns, list(cut(session))) == ((), [])
    assert (session.answer, session.own_reward, one.position) == (None, 0.0, 1)


def test_ids_in_the_segment_are_the_ids_that_were_written():
    with_rules = rules()
    session, _ = play(*ASKS, with_rules=with_rules)
    [segment] = cut(session)
    written = np.concatenate([turn.completion_ids for turn in session.turns])
    assert np.array_equal(segment.token_ids[segment.action_mask], written)
    for turn in session.turns:
        assert np.array_equal(segment.token_ids[: len(turn.prompt_ids)], turn.prompt_ids)


class AsksLikely(Says):
    """Gives [SeekAdvice] a probability before each turn: 1/2, 1/4, ..."""

    probability = 1.0

    async def write(self, view):
        self.probability /= 2
        return replace(await super().write(view), ask_probability=self.probability)


def test_a_turn_keeps_the_probability_of_asking_also_where_the_policy_did_not_ask():
    session = asyncio.run(lane(WET).play(AsksLikely(*PREDICTS)))
    assert [turn.ask_probability for turn in session.turns] == [0.5, 0.25, 0.125]
    assert session.asks == 0
    silent = asyncio.run(lane(WET).play(Says(*PREDICTS)))
    assert np.isnan([turn.ask_probability for turn in silent.turns]).all()


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ((*OPENING, "[SeekAdvice]", "[SeekAdvice]", *PREDICTS[-1:]), [0.125, 0.0625]),
        ((*OPENING, "[Reflection] so [SeekAdvice]", *PREDICTS[-1:]), [None]),  # that of [Reflection] is another one
    ],
)
def test_the_expert_is_told_the_probability_of_asking_where_it_is_known(turns, told):
    expert = GoldExpert()
    asked = []

    async def advise(question, *, key):
        asked.append(key)
        return Advice(text=question.advice, answer=question.answer)

    expert.advise = advise
    asyncio.run(lane(WET, with_rules=rules(agent=Agent(asks=2), expert=expert)).play(AsksLikely(*turns)))
    assert [key.ask_probability for key in asked] == told
    assert [str(key) for key in asked] == [f"test/small/0#0#{number}" for number in range(len(told))]
    assert asked[0] == AskKey.parse(str(asked[0]))  # so a replayed ask finds its receipt
