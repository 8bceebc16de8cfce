"""One policy for all prices: each episode draws its price, and the agent is told."""

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from agile_ray.agent.lane import Lane
from agile_ray.config import Agent, Credit, Env, Memory
from agile_ray.credit import linked, tail
from agile_ray.credit.baseline import credit_baseline
from agile_ray.credit.modes import Evidence, by_fit
from agile_ray.evaluation.score import score
from agile_ray.prices import Prices
from agile_ray.scripted.optimum import best_first, worth_asking
from agile_ray.scripted.references import Habits, reference
from agile_ray.types import MemoryUse
from envs.shop import Shop
from launch.report.wording import cost
from tests.fakes.fitted_worlds import linear
from tests.fakes.streams import script_rules
from tests.fakes.worlds import SESSION, Says, changed, lane, question, read, rules

SHOP = Shop(seed=0)
NO_LINKS = linked.link([], [])
USE = MemoryUse(kind="qa", writer=0, similarity=1.0)
STREAMS = 30


def priced(*costs: float, seed: int = 0) -> Prices:
    return Prices.of(Env(name="shop", advice_cost=costs), seed=seed)


def play(name: str, prices: Prices, *, streams: int = STREAMS):
    """The first streams of the shop, each session with its question."""
    by = replace(script_rules(SHOP, agent=Agent(), memory=Memory(threshold=0.65)), prices=prices)
    policy = reference(name, SHOP, Habits(asking="judgement"))

    async def played():
        for index in range(streams):
            one = Lane(SHOP.stream(split="validation", index=index), by)
            for asked in one.stream.questions:
                yield asked, await one.play(policy), one.stream

    async def listed():
        return [found async for found in played()]

    return asyncio.run(listed())


def test_an_episode_keeps_the_price_that_seed_and_stream_draw():
    prices = priced(0.1, 0.3, 0.5)
    drawn = [prices.at(f"shop/train/{index}") for index in range(3000)]
    assert drawn == [priced(0.1, 0.3, 0.5).at(f"shop/train/{index}") for index in range(3000)]
    assert all(900 < count < 1100 for count in Counter(drawn).values())
    assert set(drawn) == {100, 300, 500}
    other = [priced(0.1, 0.3, 0.5, seed=1).at(f"shop/train/{index}") for index in range(3000)]
    assert 0.25 < np.mean(np.equal(drawn, other)) < 0.42
    found = play("always_ask", prices)
    assert {session.price for _, session, _ in found} == {100, 300, 500}
    for _, session, stream in found:
        assert session.price == prices.at(stream.id)
        assert all(receipt.price == session.price for receipt in session.receipts)


@pytest.mark.parametrize(("costs", "shown"), [((0.25,), " price 0.25"), ((0.5, 1.0), " price "), (0.25, "")])
def test_the_status_line_shows_the_price_of_a_list_and_no_other(costs, shown):
    by = replace(rules(), prices=Prices.of(Env(name="shop", advice_cost=costs), seed=0))
    one = lane(question(0, "is it wet"), with_rules=by)
    session = asyncio.run(one.play(Says("[GetQuestion]", "[PredictAnswer] yes [SubmitAnswer] [ClearContext]")))
    first = read(session.turns[1].prompt_ids.tolist(), by.tokenizer)
    expected = f" price {session.price / 1000:g}" if shown else ""
    assert shown in f" price {session.price / 1000:g}"
    assert f"progress 0 questions 0 knowledge 0{expected}\n" in first
    assert ("price" in first) == bool(shown)


def test_counterfactual_prefixes_show_the_price_too():
    by = replace(rules(), prices=priced(0.7))
    one = lane(question(0, "is it wet"), question(1, "is it wet"), with_rules=by)
    asks = ("[GetQuestion]", "[RetrieveMemory]", "[SeekAdvice]", "[UpdateMemory] [SubmitAnswer] [ClearContext]")
    asyncio.run(one.play(Says(*asks)))
    later = asyncio.run(one.play(Says(*asks)))
    (imagined,) = later.hindsight.counterfactuals
    assert "questions 0 knowledge 0 price 0.7\n" in read(imagined.prefix_ids.tolist(), by.tokenizer)


@pytest.mark.parametrize("name", ["oracle", pytest.param("teacher", marks=pytest.mark.long)])
def test_scripts_decide_by_the_price_of_their_own_episode(name: str):
    asked: dict[int, list[bool]] = {}
    for one, session, stream in play(name, priced(0.05, 0.3, 0.9)):
        left = [later for later in stream.questions[session.position :] if later.item == one.item]
        uses = len(left) if name == "oracle" else 1
        read_it = any(stream.questions[use.writer].item == one.item for use in session.reads)
        assert bool(session.asks) == (worth_asking(one, uses=uses, price=session.price) and not read_it)
        asked.setdefault(session.price, []).append(bool(session.asks))
    shares = [np.mean(asked[price]) for price in (50, 300, 900)]
    assert shares[0] > shares[1] > shares[2]


def test_the_baseline_of_credit_compares_sessions_at_one_price():
    sessions = [changed(SESSION, position=n, price=(100, 900)[n % 2]) for n in range(8)]
    amounts = np.array([1.0, 5.0, 2.0, 5.0, 3.0, 5.0, 2.0, 9.0])
    assert credit_baseline(sessions, amounts).tolist() == pytest.approx([2.0, 6.0] * 4)


def test_the_first_asks_are_chosen_by_the_price_of_each_episode():
    two = [(question(0, "a"), question(1, "b")), (question(2, "c"), question(3, "d"))]  # asking gains 0.5 - price
    assert best_first(two, prices=[400, 900]) == 0  # 0.1 - 0.4 < 0
    assert best_first(two, prices=[100, 800]) == 2  # 0.4 - 0.3 > 0
    with pytest.raises(ValueError, match="zip"):
        best_first(two, prices=[100])


def test_a_score_has_a_line_for_each_price_and_a_total_of_what_was_paid():
    receipt = play("always_ask", priced(0.2), streams=1)[0][1].receipts[0]
    paid = changed(SESSION, stream="b", price=800, correct=True, receipts=(replace(receipt, price=800),))
    found = score([changed(SESSION, correct=True), changed(SESSION, position=1), paid])
    assert found.total_score == pytest.approx((1 + 0 + 0.2) / 3)
    assert {price: (part.total_score, part.asked_share, part.sessions) for price, part in found.prices.items()} == {
        300: (0.5, 0.0, 2),
        800: (pytest.approx(0.2), 1.0, 1),
    }
    assert score([SESSION]).prices == {}


def test_prices_are_written_as_a_reader_writes_them():
    assert cost(0.3) == "0.3"
    assert cost((0.5,)) == "0.5"
    assert cost((0.1, 0.25, 1.0)) == "0.1, 0.25 or 1"


def test_fitted_credit_is_that_of_each_price_alone():
    one = [changed(session, price=100) for session in linear(np.random.default_rng(0), streams=20)]
    other = [
        changed(session, price=900, stream=f"other {session.stream}")
        for session in linear(np.random.default_rng(1), streams=30)
    ]

    def fitted(sessions):
        evidence = Evidence(sessions=sessions, past=(), links=NO_LINKS, readings=(), outlook={})
        return by_fit(evidence, Credit(mode="fitted"))

    together, metrics = fitted([*one, *other])
    np.testing.assert_allclose(together, np.concatenate([fitted(one)[0], fitted(other)[0]]))
    assert metrics["credit_worth/item at 0.1"] == fitted(one)[1]["credit_worth/item"]
    assert metrics["credit_worth/item at 0.9"] == fitted(other)[1]["credit_worth/item"]
    assert np.abs(together).max() > 0


def test_the_tail_of_linked_credit_knows_each_price_alone():
    def reading(price, gain):
        return tail.Reading(group=f"fact at {price}", gain=gain, write_probability=0.0, outside=True)

    outlook = tail.updated({}, [reading(100, 0.8)] * 20 + [reading(900, 0.2)] * 20)
    again = [
        changed(SESSION, stream=str(price), price=price, writes=(USE,), same_item=(0, 5), stream_length=6)
        for price in (100, 900)
    ]
    found = tail.tail(again, outlook, np.ones(2))
    assert found.tolist() == pytest.approx([0.8 * 20 / 40, 0.2 * 20 / 40])
