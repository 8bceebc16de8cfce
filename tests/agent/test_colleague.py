"""Two experts at two prices: the policy chooses by function."""

import asyncio
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import envs
from agile_ray.agent.expert import COLLEAGUE, GoldExpert, Panel
from agile_ray.config import Agent, Env, Memory
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.prices import Prices
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.types import Ending, Outcome
from launch.run import shipped_configs
from launch.run.adoption import imitation_key
from rollout.experts import build_expert
from rollout.rules import build_rules
from tests.fakes.endpoint import Reply, serving
from tests.fakes.worlds import ASKS, OPENING, Says, SmallStream, lane, question, read, rules

WET = question(1, "is it waterproof ?")
BOTH = (*OPENING, "[AskColleague]", "[SeekAdvice]", "[UpdateMemory] [SubmitAnswer] [ClearContext]")
PAIR = {"colleague": {"wrong": 1.0, "price": 0.05}}


def with_expert(spec, *, agent=None, cost: float | tuple[float, ...] = 0.3):
    env = Env(name="shop", expert=spec, advice_cost=cost)
    return replace(rules(agent=agent or Agent()), expert=build_expert(env), prices=Prices.of(env, seed=0))


def play(by, *turns):
    return asyncio.run(lane(WET, with_rules=by).play(Says(*turns)))


def test_each_function_asks_its_own_expert_at_its_own_price():
    session = play(with_expert(PAIR), *BOTH)
    assert [(one.key, one.price, one.answer) for one in session.receipts] == [
        (f"{SmallStream.id}#0#0@colleague", 50, "no"),
        (f"{SmallStream.id}#0#0", 300, "yes"),
    ]
    assert [float(turn.rewards[-1]) for turn in session.turns[2:4]] == pytest.approx([-0.05, -0.3])
    assert (session.answer, session.correct, session.paid, session.price) == ("yes", True, 350, 300)


def test_both_share_the_budget_of_asks():
    session = play(with_expert(PAIR, agent=Agent(asks=1)), *BOTH)
    assert len(session.receipts) == 1
    assert "refused" in session.remarks


def test_without_a_colleague_nobody_answers_and_nothing_is_paid():
    session = play(with_expert("gold"), *OPENING, "[AskColleague]", "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")
    assert (session.receipts, session.paid, session.ending) == ((), 0, Ending.DONE)
    assert "refused" in session.remarks


def test_an_ask_without_an_answer_gives_nothing_to_submit_or_to_remember_and_is_counted():
    by = with_expert({"abstains": 1.0, "charges": "asks"})
    session = play(by, *OPENING, "[SeekAdvice]", "[UpdateMemory]", "[SubmitAnswer]", "[ClearContext]")
    assert (session.answer, session.writes, session.paid) == (None, (), 300)
    assert "advice_abstained" in session.remarks
    assert "advice : none" in read(session.turns[3].prompt_ids.tolist(), by.tokenizer)


def test_the_status_line_tells_both_prices_where_prices_vary():
    one = question(1, "is it waterproof ?")
    for spec, cost, shown in (
        (PAIR, 0.3, "knowledge 0\n"),
        (PAIR, (0.3,), "knowledge 0 price 0.3 colleague 0.05\n"),
        ({"price": {"kinds": {"fact": 0.4}}}, 0.3, "knowledge 0 price 0.4\n"),
        ({"price": {"token": 0.01, "most": 0.7}}, 0.3, "knowledge 0 price 0.7\n"),
    ):
        by = with_expert(spec, cost=cost)
        session = asyncio.run(lane(one, with_rules=by).play(Says(*ASKS)))
        assert shown in read(session.turns[1].prompt_ids.tolist(), by.tokenizer)
        assert session.paid <= session.price


def test_receipts_are_stored_with_their_rule_and_outcome(tmp_path):
    session = play(with_expert({**PAIR, "abstains": 1.0}), *BOTH[:-1], "[SubmitAnswer] [ClearContext]")
    store.write_sessions(RunFolder(tmp_path).evaluation_file("x"), [session])
    found = next(iter(store.read_sessions(RunFolder(tmp_path).evaluation_file("x"))))
    assert found.receipts == session.receipts
    assert [one.outcome for one in found.receipts] == [Outcome.ANSWERED, Outcome.ABSTAINED]


def test_receipts_of_an_earlier_version_are_read(tmp_path):
    session = play(with_expert("gold"), *ASKS)
    path = RunFolder(tmp_path).evaluation_file("x")
    store.write_sessions(path, [session])
    lines = pq.read_table(path)
    older = pa.list_(pa.struct(list(lines.schema.field("receipts").type.value_type)[:6]))
    receipts = [
        [{name: one[name] for name in one if name not in ("rule", "outcome")} for one in row]
        for row in lines["receipts"].to_pylist()
    ]
    at = lines.schema.get_field_index("receipts")
    pq.write_table(lines.set_column(at, "receipts", pa.array(receipts, older)), path)
    assert store.read_sessions(path)[0].receipts == session.receipts


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"colleague": "gold"}, "a colleague needs a price"),
        ({"colleague": {"price": 0.1, "colleague": {"price": 0.2}}}, "a colleague has no colleague"),
        ({"price": 0.2}, "is env.advice_cost; set that, found 0.2 here"),
        ({"price": {"token": 0.01}}, "token and most go together"),
        ({"price": {"token": 0.01, "most": 0.2}}, "most is at least advice_cost"),
        ({"price": {"kinds": {"fact": 0.1}, "steps": {3: 0.1}}}, "follows one rule, found kinds and steps"),
        ({"price": {"kinds": {"fact": 0.12345}}}, "whole number of thousandths"),
        ({"name": "http"}, "http needs a url"),
        ({"name": "chat", "url": "http://localhost/v1"}, "model belongs to chat"),
        ({"tokens": 5}, "gold has no tokens"),
        ({"name": "nobody"}, "found nobody"),
        ({"wrong": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_wrong_expert_is_refused_by_the_schema(spec, says):
    with pytest.raises(ValueError, match=says):
        Env(name="shop", expert=spec)


@pytest.mark.parametrize("spec", ["gold", "recorded:runs/x", {**PAIR, "wrong": 0.1}, {"price": {"steps": {3: 0.5}}}])
def test_an_expert_is_written_as_it_was_given(spec):
    env = Env(name="shop", expert=spec)
    written = env.model_dump(mode="json")["expert"]
    assert isinstance(written, str) == isinstance(spec, str)
    assert Env(name="shop", expert=written) == env


def references(name, spec, *, cost: float = 0.3):
    env = Env(name="shop", expert=spec, advice_cost=cost)
    shop = envs.build(env, seed=0)
    by = build_rules(shop, env=env, agent=Agent(), memory=Memory(threshold=0.72), model=None, seed=0)
    chosen = plays(shop, split="test", sessions=480)
    return play_sessions(reference(name, shop, Habits()), shop, split="test", plays=chosen, rules=by)


def test_the_oracle_asks_the_cheap_one_where_it_is_good_enough_and_never_loses_to_one_expert():
    pair = {"colleague": {"wrong": 0.2, "price": 0.05}}
    found = score(references("oracle", pair))
    assert set(found.experts) == {"expert", COLLEAGUE}
    assert found.experts[COLLEAGUE] > 0
    alone = score(references("oracle", "gold"))
    assert found.total_score > alone.total_score
    assert score(references("oracle", {"colleague": {"wrong": 0.2, "price": 0.3}})).experts == {}  # nobody asks it


def test_references_ask_whom_they_say():
    pair = {"colleague": {"price": 0.1}}
    assert score(references("always_ask", pair)).experts == {}
    assert score(references("always_colleague", pair)).experts == {"expert": 0.0, COLLEAGUE: 1.0}
    drawn = score(references("teacher", pair)).experts
    assert drawn["expert"] > 0 < drawn[COLLEAGUE]


@pytest.mark.parametrize("wrong", [pytest.param(0.1, marks=pytest.mark.long), 0.3])
def test_the_worse_the_expert_the_less_the_oracle_asks_and_it_beats_both_simple_rules(wrong):
    spec = {"wrong": wrong}
    oracle, always, never = (score(references(name, spec)) for name in ("oracle", "always_ask", "never_ask"))
    assert oracle.total_score > max(always.total_score, never.total_score)
    assert oracle.asked_share < score(references("oracle", "gold")).asked_share


def test_imitation_replaces_both_experts_by_the_gold_one():
    by = replace(with_expert(PAIR), expert=GoldExpert())
    assert play(by, *BOTH).receipts[0].answer == "yes"
    assert isinstance(with_expert(PAIR).expert, Panel)


def test_a_capped_expert_leaves_the_agent_alone_by_name():
    with serving(Reply(said="yes")) as endpoint:
        spec = {"name": "chat", "url": endpoint.url, "model": "m", "tokens": 10}
        session = play(with_expert(spec), *OPENING, "[SeekAdvice]", "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")
    assert (session.ending, session.paid, session.correct) == (Ending.DONE, 0, True)
    assert "advice_capped" in session.remarks
    assert endpoint.asked == []


def test_no_expert_of_this_name_can_be_built():
    with pytest.raises(ConfigError, match=r"env\.expert: json:nothing"):
        build_expert(Env(name="shop", expert="json:nothing"))


def test_runs_with_experts_at_the_same_prices_share_their_imitation():
    def key(*overrides):
        return imitation_key(shipped_configs.read("quickstart", overrides))

    assert key("env.expert.wrong=0.3") == key() == key("env.expert={name: gold, abstains: 0.5}")
    assert key("env.expert.colleague={price: 0.1}") != key()
    assert key("env.expert.colleague={price: 0.1, wrong: 0.4}") == key("env.expert.colleague={price: 0.1}")
    assert key("env.expert.price.kinds={fact: 0.5}") != key()
