import asyncio
import pickle
from dataclasses import replace

import pytest

from agile_ray.agent.expert import Advice, AskKey, GoldExpert
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.config import Agent, Env
from agile_ray.errors import ConfigError, ContractError, ExpertError
from agile_ray.expert_spec import ExpertSpec
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import Journals, read_journals
from agile_ray.replay.expert import RecordedExpert
from agile_ray.types import Ending, Origin, Outcome, Receipt
from launch.run.preflight import check_recorded
from rollout.experts import build_expert
from tests.fakes.worlds import ASKS, OPENING, PREDICTS, SESSION, Says, changed, lane, question, rules

WET = question(1, "is it waterproof ?")
TWICE = (*OPENING, "[SeekAdvice]", "[SeekAdvice]", "[SubmitAnswer] [ClearContext]")


class Counting:
    """An expert that gives a new answer to every ask, and counts them."""

    source = "counting"

    def __init__(self):
        self.asked = []

    async def advise(self, question, *, key):
        self.asked.append(str(key))
        return Advice(text=f"say {len(self.asked)}", answer=f"answer {len(self.asked)}")


def open_lane(expert, *, asks=2):
    return lane(WET, WET, WET, with_rules=rules(agent=Agent(asks=asks), expert=expert))


def play(one, *turns):
    return asyncio.run(one.play(Says(*turns)))


def receipt(key, *, said="yes"):
    return Receipt(key=key, price=300, source="gold", latency_s=0.5, advice=f"it is {said}", answer=said)


def test_a_written_key_parses_to_the_same_key():
    key = AskKey(stream="train/a#b/0", position=3, number=1)
    assert str(key) == "train/a#b/0#3#1"
    assert AskKey.parse(str(key)) == key
    with pytest.raises(ContractError, match="stream#position#number, found 's#0'"):
        AskKey.parse("s#0")


def test_a_restored_lane_asks_and_pays_once():
    expert = Counting()
    one = open_lane(expert)
    play(one, *PREDICTS)
    boundary = one.state()
    first = [play(one, *ASKS), play(one, *TWICE)]
    one.restore(boundary)
    again = [play(one, *ASKS), play(one, *TWICE)]
    assert expert.asked == ["test/small/0#1#0", "test/small/0#2#0", "test/small/0#2#1"]
    assert [session.receipts for session in again] == [session.receipts for session in first]
    assert [session.answer for session in again] == ["answer 1", "answer 3"]
    assert again[0].turns[2].rewards.tolist() == first[0].turns[2].rewards.tolist() != [0.0]
    assert all(session.abandoned == () for session in again)


def test_a_replayed_ask_keeps_the_price_that_was_paid():
    expert, key = PaidExpert(Counting(), deadline_s=60.0), AskKey(stream="s", position=0, number=0)
    first = asyncio.run(expert.ask(WET, key=key, price=300))
    assert asyncio.run(expert.ask(WET, key=key, price=500)) == first
    assert first.price == 300


def test_a_journal_records_every_purchase_once_and_before_its_answer_is_used(tmp_path):
    run = RunFolder(tmp_path / "run")
    books = Journals(run, "0.0.ab")
    expert = PaidExpert(
        Counting(),
        deadline_s=60.0,
        asks=lambda key: books.ask(7, key),
        bought=lambda receipt: books.buy(7, receipt),
    )
    bought = []
    for key in ("s#0#0", "s#1#0", "s#0#0"):
        bought.append(asyncio.run(expert.ask(WET, key=AskKey.parse(key), price=300)))
        assert read_journals(run.journals()).receipts[-1] in bought
    assert run.journals() == {run.journal(7, "0.0.ab"): 7}
    found = read_journals(run.journals("0.0.ab"))
    assert (list(found.receipts), found.unsure) == (bought[:2], ())


def test_an_ask_whose_answer_was_lost_is_known_to_be_unsure(tmp_path):
    run = RunFolder(tmp_path)

    class Dies(Counting):
        async def advise(self, question, *, key):
            raise SystemExit

    books = Journals(run, "1.0.ab")
    expert = PaidExpert(Dies(), deadline_s=60.0, asks=lambda key: books.ask(3, key))
    with pytest.raises((SystemExit, ExpertError)):
        asyncio.run(expert.ask(WET, key=AskKey.parse("s#4#0"), price=300))
    found = read_journals(run.journals())
    assert (found.receipts, found.unsure) == ((), ("s#4#0",))


def test_a_session_lists_receipts_of_earlier_attempts_that_it_did_not_use_as_abandoned():
    one = open_lane(Counting())
    start = one.state()
    bought = play(one, *TWICE).receipts
    one.restore(start)
    later = play(one, *ASKS)
    assert (later.receipts, later.abandoned) == (bought[:1], bought[1:])
    one.restore(start)
    assert play(one, *PREDICTS).abandoned == bought


def test_a_checkpoint_contains_the_receipts_of_sessions_that_will_be_replayed_and_no_others():
    expert = Counting()
    one = open_lane(expert)
    start = one.state()
    receipts = [play(one, *ASKS).receipts[0] for _ in range(3)]
    assert one.state().receipts == ()
    one.restore(start)
    play(one, *ASKS)
    state = pickle.loads(pickle.dumps(one.state()))
    assert state.receipts == tuple(receipts[1:])
    other = open_lane(expert)
    other.restore(state)
    assert [play(other, *ASKS).receipts[0] for _ in range(2)] == receipts[1:]
    assert len(expert.asked) == 3


def test_a_lane_tells_what_each_session_was_told_last():
    one = open_lane(Counting())
    play(one, *TWICE)
    seen = []

    class Looks(Says):
        async def write(self, view):
            seen.append([view.told(position) and view.told(position).answer for position in range(2)])
            return await super().write(view)

    asyncio.run(one.play(Looks(*ASKS)))
    assert seen == [["answer 2", None]] * 3 + [["answer 2", "answer 3"]]


def test_two_lanes_of_one_stream_pay_separately():
    expert = Counting()
    first, second = (play(open_lane(expert), *ASKS) for _ in range(2))
    assert first.receipts[0].key == second.receipts[0].key
    assert len(expert.asked) == 2


def test_an_expert_that_failed_is_asked_again():
    class Once(Counting):
        async def advise(self, question, *, key):
            advice = await super().advise(question, key=key)
            if len(self.asked) == 1:
                raise ExpertError("expert once: gone")
            return advice

    one = open_lane(Once())
    start = one.state()
    assert play(one, *ASKS).ending is Ending.FAILED
    one.restore(start)
    assert play(one, *ASKS).answer == "answer 2"


@pytest.fixture
def run(tmp_path):
    """A run that asked twice on question q1, in session 3, and once in an evaluation."""
    asked = changed(SESSION, question_id="q1")
    trained = changed(asked, position=3, receipts=(receipt("s#3#0"), receipt("s#3#1", said="no")))
    evaluated = changed(asked, stream="test", receipts=(receipt("test#0#0", said="never"),))
    store.write(RunFolder(tmp_path), 1, [SESSION, trained], [])
    store.write_sessions(RunFolder(tmp_path).evaluation_file("ppo"), [evaluated])
    return tmp_path


@pytest.mark.parametrize(
    ("key", "answer"),
    [("s#3#0", "yes"), ("s#3#1", "no"), ("s#3#7", "yes"), ("test#0#0", "never"), ("s#9#1", "no")],
)
def test_a_recorded_expert_says_what_was_said_on_that_question_wherever_it_stands(run, key, answer):
    expert = RecordedExpert(run)
    assert asyncio.run(expert.advise(WET, key=AskKey.parse(key))) == Advice(text=f"it is {answer}", answer=answer)
    assert expert.source == "recorded"


@pytest.mark.parametrize("key", ["s#3#0", "s#3#7"])
def test_a_recorded_expert_repeats_an_answer_before_an_ask_that_was_late(tmp_path, key):
    late = replace(receipt("s#3#0"), advice="", answer="", outcome=Outcome.LATE)
    asked = changed(SESSION, question_id="q1", position=3)
    played = [changed(asked, receipts=(late,)), changed(asked, receipts=(replace(late, key="s#3#1"),))]
    store.write(RunFolder(tmp_path), 1, [*played, changed(asked, receipts=(receipt("s#3#0"),))], [])
    expert = RecordedExpert(tmp_path)
    assert asyncio.run(expert.advise(WET, key=AskKey.parse(key))) == Advice(text="it is yes", answer="yes")
    assert asyncio.run(expert.advise(WET, key=AskKey.parse("s#3#1"))).outcome is Outcome.LATE


@pytest.mark.parametrize("other", [{"id": "q2"}, {"kind": "search"}, {"topic": "reasoning open"}])
def test_a_recorded_expert_never_answers_another_question_at_the_same_place(run, other):
    with pytest.raises(ExpertError, match="has no receipt for the question; stream s, question"):
        asyncio.run(RecordedExpert(run).advise(replace(WET, **other), key=AskKey.parse("s#3#0")))


def test_a_recorded_expert_is_as_reliable_as_its_submitted_advice_was_right(run):
    assert RecordedExpert(run).reliability == 1.0
    advised = changed(SESSION, origin=Origin.ADVICE, answer="yes")
    sessions = [changed(advised, position=n, correct=n < 3) for n in range(4)]
    guessed = changed(SESSION, position=4, origin=Origin.WORDS, correct=False)
    store.write_sessions(RunFolder(run).evaluation_file("always_ask"), [*sessions, guessed])
    assert RecordedExpert(run).reliability == 0.75


def test_a_recorded_expert_knows_which_questions_were_asked(run):
    expert = RecordedExpert(run)
    assert [expert.knows(WET, stream=stream) for stream in ("s", "test", "other")] == [True, True, False]
    assert not expert.knows(replace(WET, id="q2"), stream="s")


def test_a_recorded_expert_fails_a_session_that_it_never_saw_by_name(run):
    session = play(open_lane(RecordedExpert(run)), *ASKS)
    assert session.ending is Ending.FAILED
    assert session.error == (
        f"ExpertError: expert recorded: {run} has no receipt for the question; "
        "stream test/small/0, question q1 (fact, fact)"
    )


def test_the_config_chooses_the_expert(run):
    assert isinstance(build_expert(Env(name="shop")), GoldExpert)
    assert isinstance(build_expert(Env(name="shop", expert=f"recorded:{run}")), RecordedExpert)


def test_a_folder_without_receipts_is_refused_before_anything_starts(run, tmp_path):
    there, gone = ExpertSpec(name=f"recorded:{run}"), ExpertSpec(name=f"recorded:{tmp_path}/nowhere")
    check_recorded(ExpertSpec())
    check_recorded(there)
    with pytest.raises(ConfigError, match="env.expert: .* must hold iterations, found none"):
        check_recorded(gone)
    with pytest.raises(ConfigError, match="env.expert.colleague: .* must hold iterations, found none"):
        check_recorded(there.model_copy(update={"colleague": gone}))
    with pytest.raises(ConfigError, match="env.expert: .* must hold iterations, found none"):
        RecordedExpert(tmp_path / "nowhere")
