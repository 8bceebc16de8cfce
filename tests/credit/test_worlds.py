"""Credit by links against the true difference of values, in worlds whose random events are all enumerated."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from agile_ray.credit.linked import Links, linked
from tests.fakes.paper_worlds import Ask, Entry, World, by_links, credit, expected, on, states, value, worth

PROBABILITIES = (0.0, 0.3, 0.8, 1.0)


def check_exact(world: World, writer: int) -> None:
    """Check that credit equals worth for every memory that the writer may leave."""
    for _, memory in states(world, writer):
        assert credit(world, memory, writer) == pytest.approx(worth(world, memory, writer), abs=1e-9)


def alone(one: Ask) -> float:
    """s: what a session earns without an entry to answer from, where advice is right."""
    return one.ask * (1 - one.price / 1000) + (1 - one.ask) * one.guess


@pytest.mark.parametrize("again", [1, 2, 3, 4])
@pytest.mark.parametrize("ask", PROBABILITIES)
@pytest.mark.parametrize("guess", PROBABILITIES)
def test_credit_is_exact_where_an_item_recurs(again, ask, guess):
    world = (on("a"),) + again * (on("a", ask=ask, guess=guess, price=700),)
    check_exact(world, 0)


@pytest.mark.parametrize("ask", PROBABILITIES)
@pytest.mark.parametrize("price", [100, 400, 550, 700])
def test_credit_is_the_closed_form_where_an_item_recurs_twice(ask, price):
    world = 3 * (on("a", ask=ask, price=price),)
    s = ask * (1 - price / 1000) + (1 - ask) / 2
    assert credit(world, (Entry(writer=0, name="a"),), 0) == pytest.approx((2 - ask) * (1 - s), abs=1e-9)
    assert worth(world, (Entry(writer=0, name="a"),), 0) == pytest.approx((2 - ask) * (1 - s), abs=1e-9)


def test_credit_is_exact_where_probabilities_and_prices_vary_from_session_to_session():
    world = (
        on("a", ask=0.9),
        on("a", ask=0.2, guess=0.1, price=900),
        on("a", ask=0.7, guess=0.6, price=100),
        on("a", ask=0.4, guess=0.0, price=500),
        on("a", ask=0.0, guess=0.3),
    )
    check_exact(world, 0)
    check_exact(world, 1)


def test_credit_is_exact_where_several_items_interleave():
    world = (on("a"), on("b", ask=0.7), on("a", guess=0.2), on("b", price=600), on("b", ask=0.1), on("a", ask=0.9))
    for writer in range(len(world)):
        check_exact(world, writer)


def test_credit_is_exact_where_a_repeat_finds_nothing():
    miss = Ask(reads={}, writes=("a",), ask=0.6, guess=0.3)
    world = (on("a"), miss, on("a", ask=0.3), Ask(reads={}, writes=()), miss, on("a"))
    check_exact(world, 0)
    check_exact(world, 1)


def idle(similarity: float) -> World:
    other = on("b", idle=frozenset({"a"}), similarity=similarity, ask=0.4)
    return (on("a"), other, on("a", ask=0.3), other, on("a"))


def test_credit_is_exact_where_reads_in_between_are_of_no_use():
    check_exact(idle(similarity=0.1), 0)
    check_exact(idle(similarity=0.1), 1)


def test_a_useless_read_above_the_threshold_counts_as_a_rival_and_shrinks_later_terms():
    world, memory = idle(similarity=0.9), (Entry(writer=0, name="a"),)
    first, second = 1 - alone(world[2]), (1 - 0.3) * (1 - alone(world[4]))
    assert worth(world, memory, 0) == pytest.approx(first + second, abs=1e-9)
    # the first of the two always reads only a's entry; the second has b's too if the first asked, and then won't ask
    kept = 1 - 0.4  # as if the reader of b could have written a's entry
    assert credit(world, memory, 0) == pytest.approx(kept * first + kept * (1 - 0.4 * kept) * second, abs=1e-9)


def both(help_: float) -> World:
    """An ask on x writes an answer to x, and knowledge that helps any question on the topic."""
    first = Ask(reads={"answer to x": 1.0, "knowledge": help_}, writes=("answer to x", "knowledge"))
    other = Ask(reads={"answer to y": 1.0, "knowledge": help_}, writes=("answer to y", "knowledge"), ask=0.3)
    return (first, other, first, other)


def test_credit_is_exact_where_one_ask_wrote_two_entries():
    either = {"reads": {"answer": 1.0, "knowledge": 0.9}, "writes": ("answer", "knowledge")}
    world = (
        Ask(**either),
        Ask(**{**either, "reads": {"knowledge": 0.9}}, ask=0.3),
        Ask(**{**either, "reads": {"answer": 1.0}}, guess=0.2),
        Ask(**either, together=True, ask=0.8, price=600),
        Ask(**either),
    )
    check_exact(world, 0)
    check_exact(world, 1)
    check_exact(both(help_=1.0), 0)


def test_a_rival_that_replaces_one_of_two_entries_also_ends_the_credit_of_the_other():
    world = both(help_=0.8)[:3]
    memory = (Entry(writer=0, name="answer to x"), Entry(writer=0, name="knowledge"))
    # where y asked in the world without them, x is answered from y's knowledge, right with 0.8 and not 1
    missing = 0.3 * (1 - 0.8)
    assert worth(world, memory, 0) - credit(world, memory, 0) == pytest.approx(missing, abs=1e-9)


@pytest.mark.parametrize("advice", [0.6, 0.9])
@pytest.mark.parametrize("ask", PROBABILITIES)
def test_with_fallible_advice_credit_is_exact_on_average_but_not_given_the_advice(ask, advice):
    world = 4 * (on("a", ask=ask, advice=advice),)
    lacking = [(1 - ask) ** k for k in range(3)]
    gap = 0.0
    for probability, memory in states(world, 0):
        error = credit(world, memory, 0) - worth(world, memory, 0)
        right = memory[0].right
        # after a rival the entry is right or not, the rival's on average: the estimate takes the two for alike
        assert error == pytest.approx(-(right - advice) * sum(1 - p for p in lacking), abs=1e-9)
        gap += probability * error
    assert gap == pytest.approx(0.0, abs=1e-9)


def several(*, together: bool) -> World:
    reader = Ask(reads={"a": 1.0, "b": 1.0}, writes=("a", "b"), together=together, ask=0.4, guess=0.3)
    return (on("a"), on("b"), reader, reader, reader)


WRITTEN = (Entry(writer=0, name="a"), Entry(writer=1, name="b"))


@pytest.mark.parametrize("together", [False, True])
def test_the_credit_of_each_of_several_writers_is_exact_given_the_others(together):
    world = several(together=together)
    check_exact(world, 1)
    for writer in (0, 1):
        true = value(world, WRITTEN, 2) - value(world, tuple(e for e in WRITTEN if e.writer != writer), 2)
        assert expected(world, WRITTEN, 2)[writer] == pytest.approx(true, abs=1e-9)


@pytest.mark.parametrize(("together", "sign"), [(False, -1), (True, +1)])
def test_gains_of_writers_read_at_once_do_not_add_up_and_overlap_is_the_difference(together, sign):
    world = several(together=together)
    gap = float(expected(world, WRITTEN, 2)[:2].sum()) - worth(world, WRITTEN, 0, 1)
    s, lacking = alone(world[2]), 1 + 0.6 + 0.6**2
    assert gap == pytest.approx(sign * (1 - s) * lacking, abs=1e-9)

    def overlap(rewards: Sequence[float], links: Links) -> NDArray[np.float64]:
        return np.array([links.overlap(np.array(rewards))])

    # the overlap counts every reader in full; the gap counts only the first one in full
    assert expected(world, WRITTEN, 2, estimate=overlap)[0] == pytest.approx(sign * (1 - s), abs=1e-9)
    assert expected(world[:3], WRITTEN, 2, estimate=overlap)[0] == pytest.approx(
        float(expected(world[:3], WRITTEN, 2)[:2].sum()) - worth(world[:3], WRITTEN, 0, 1), abs=1e-9
    )


@pytest.mark.parametrize("collected", [1, 2, 3, 4])
def test_credit_lacks_exactly_the_terms_of_readers_that_were_not_collected(collected):
    world, memory = 5 * (on("a", ask=0.3),), (Entry(writer=0, name="a"),)
    missing = sum((1 - 0.3) ** (k - 1) * (1 - alone(world[k])) for k in range(collected, 5))
    found = credit(world, memory, 0, collected=collected)
    assert worth(world, memory, 0) - found == pytest.approx(missing, abs=1e-9)


def test_a_discount_shrinks_the_term_of_every_reader():
    world, memory, gamma = 3 * (on("a", ask=0.3, price=400),), (Entry(writer=0, name="a"),), 0.9

    def discounted(rewards: Sequence[float], links: Links) -> NDArray[np.float64]:
        ages = gamma ** np.arange(len(rewards))  # since session 0, whose credit is looked at
        gains = np.array(rewards, np.float64)
        gains[links.readers] = links.own_values + ages[links.readers] * (gains[links.readers] - links.own_values)
        return linked(gains, links)

    gain = 1 - alone(world[1])
    missing = (1 - gamma) * gain + (1 - gamma**2) * 0.7 * gain
    found = credit(world, memory, 0, estimate=discounted)
    assert worth(world, memory, 0) - found == pytest.approx(missing, abs=1e-9)


def test_a_cap_removes_the_credit_above_it():
    world, memory = 3 * (on("a", ask=0.3, price=400),), (Entry(writer=0, name="a"),)

    def capped(rewards: Sequence[float], links: Links) -> NDArray[np.float64]:
        return np.minimum(by_links(rewards, links), 0.4)

    # with right advice every reader earns 1, so A is 1.7 (1 - s) = 0.799 in each trajectory
    assert worth(world, memory, 0) == pytest.approx(1.7 * (1 - 0.53), abs=1e-9)
    assert credit(world, memory, 0, estimate=capped) == pytest.approx(0.4, abs=1e-9)


@pytest.mark.parametrize("again", PROBABILITIES)
@pytest.mark.parametrize("ask", PROBABILITIES)
def test_if_readers_ask_although_they_found_the_entry_later_terms_shrink_twice(ask, again):
    world, memory = 4 * (on("a", ask=ask, again=again),), (Entry(writer=0, name="a"),)
    gain = 1 - again * 0.3 - alone(world[1])
    true = sum((1 - ask) ** k * gain for k in range(3))
    assert worth(world, memory, 0) == pytest.approx(true, abs=1e-9)
    # after l has asked, x_k contains its entry and the gain is 0 on average, besides the factor 1 - p_l
    twice = sum(((1 - ask) * (1 - again)) ** k * gain for k in range(3))
    assert credit(world, memory, 0) == pytest.approx(twice, abs=1e-9)


@pytest.mark.parametrize("again", [0.3, 0.8])
def test_dividing_by_the_probability_not_to_ask_corrects_the_second_factor(again):
    world, memory = 4 * (on("a", ask=0.9, again=again),), (Entry(writer=0, name="a"),)

    def corrected(rewards: Sequence[float], links: Links) -> NDArray[np.float64]:
        return by_links(rewards, replace(links, write_probabilities=1 - (1 - links.write_probabilities) / (1 - again)))

    assert credit(world, memory, 0, estimate=corrected) == pytest.approx(worth(world, memory, 0), abs=1e-9)


@pytest.mark.parametrize("again", [0.0, 0.4, 1.0])
def test_asking_for_what_memory_holds_earns_no_credit(again):
    world = 4 * (on("a", again=again),)
    memory = (Entry(writer=0, name="a"), Entry(writer=1, name="a"))
    assert credit(world, memory, 1) == pytest.approx(0.0, abs=1e-9)
    assert worth(world, memory, 1) == pytest.approx(0.0, abs=1e-9)
