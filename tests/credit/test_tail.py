"""Credit for readers after the collected window, against the true difference of values."""

from collections.abc import Iterator

import numpy as np
import pytest

from agile_ray.config import Credit
from agile_ray.credit import linked, tail
from agile_ray.credit.assign import CreditAssigner
from agile_ray.credit.modes import Evidence, by_links
from agile_ray.record.metrics import check_metrics
from agile_ray.scripted.reader import Scripted, at_random, best_guess, needs_advice
from agile_ray.segments import cut
from agile_ray.types import Ending, Session, TokenScores
from envs.recurring import ITEMS, LENGTH, RECUR, Recurring
from tests.credit.test_worlds import alone
from tests.envs.test_recurring import THREE_PRICES
from tests.fakes.paper_worlds import Ask, Entry, Learner, Memory, World, imagine, on, paths, played, states, worth
from tests.fakes.parts import zeros
from tests.fakes.streams import play_streams, script_rules
from tests.fakes.worlds import changed

ITERATIONS = 1e9
"""Weight of the evidence, so that shrinkage does not show."""


def seen(world: World, window: slice) -> dict[str, tail.Sums]:
    """What a topic's sums approach where each iteration collects this window of many streams of a world."""
    sums = np.zeros(4)
    for path in paths(world, (), 0):
        learner = Learner()
        sessions = played(world, path, 0, learner)[window]
        found = tail.readings(sessions, imagine(sessions, learner))
        if found:
            one = tail.updated({}, found)["fact at 300"]
            sums += path.probability * np.array([one.sessions, one.gain, one.read, one.write_probability])
    sessions, gain, read, write = (ITERATIONS * sums).tolist()
    return {"fact at 300": tail.Sums(sessions=sessions, gain=gain, read=read, write_probability=write)}


def credit(world: World, memory: Memory, writer: int, *, window: slice, outlook: tail.Outlook) -> float:
    """E[A_i | what memory holds after i], where the iteration collects a window of the stream that holds i."""
    total = 0.0
    for path in paths(world, memory, writer + 1):
        learner = Learner()
        sessions = played(world, path, writer + 1, learner)[window]
        links = linked.link(sessions, imagine(sessions, learner))
        amounts, metrics = by_links(
            Evidence(sessions=sessions, past=(), links=links, readings=(), outlook=outlook), Credit(mode="linked")
        )
        check_metrics(metrics)
        total += path.probability * amounts[writer - window.start]
    return total


def windows(world: World, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, len(world))) for start in range(0, len(world), size))


def check_windows(world: World, size: int) -> None:
    """Check the credit of every session that adds what memory lacks, with windows of this size."""
    checked, outlook = 0, seen(world, slice(size, len(world)))
    for window in windows(world, size):
        for writer in range(window.start, window.stop):
            for _, memory in states(world, writer):
                if sum(world[entry.writer].writes == world[writer].writes for entry in memory) == 1:
                    found = credit(world, memory, writer, window=window, outlook=outlook)
                    assert found == pytest.approx(worth(world, memory, writer), abs=1e-5)
                    checked += 1
    assert checked >= len(world)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("ask", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("price", "guess"), [(100, 0.5), (700, 0.5), (700, 0.2), (1000, 0.8)])
def test_window_and_tail_together_are_exact_where_two_items_recur(size, ask, price, guess):
    one, other = (on(item, ask=ask, price=price, guess=guess) for item in "ab")
    check_windows((one, other, other, one, one, other), size)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_single_item_that_recurs_often_is_exact(size):
    check_windows(6 * (on("a", ask=0.3, price=900),), size)


def test_the_tail_alone_is_the_closed_form_of_two_readers():
    world = 3 * (on("a", ask=0.4, price=700),)
    memory = (Entry(writer=0, name="a"),)
    found = credit(world, memory, 0, window=slice(0, 1), outlook=seen(world, slice(1, 3)))
    assert found == pytest.approx((2 - 0.4) * (1 - alone(world[0])), abs=1e-5)


def test_where_gains_differ_within_a_topic_the_tail_has_their_mean():
    cheap, dear = on("a", ask=0.5, guess=0.9), on("b", ask=0.5, guess=0.1)
    world = (cheap, dear, cheap, dear)
    outlook = seen(world, slice(2, 4))
    errors = [
        credit(world, (Entry(writer=w, name="ab"[w]),), w, window=slice(0, 2), outlook=outlook)
        - worth(world, (Entry(writer=w, name="ab"[w]),), w)
        for w in (0, 1)
    ]
    gap = (alone(cheap) - alone(dear)) / 2  # half of the difference between the two gains
    assert errors == pytest.approx([gap, -gap], abs=1e-5)


def test_a_miss_counts_as_no_gain():
    hit, miss = on("a", ask=0.0), Ask(reads={}, writes=("a",), ask=0.0)
    (path, *_) = paths((changed(hit, ask=1.0), hit, miss, hit), (), 0)
    learner = Learner()
    sessions = played((hit, hit, miss, hit), path, 0, learner)
    found = tail.readings(sessions, imagine(sessions, learner))
    assert [(one.gain, one.write_probability) for one in found] == [(0.5, 0.0), (0.0, None), (0.5, 0.0)]


def test_a_session_that_failed_or_whose_prefix_was_too_long_is_no_evidence():
    world = 3 * (on("a", ask=0.0),)
    (path, *_) = paths((changed(world[0], ask=1.0), *world[1:]), (), 0)
    sessions = played(world, path, 0, Learner())
    long = changed(sessions[1], counterfactuals=(), remarks=("long_counterfactual",))
    failed = changed(sessions[2], ending=Ending.FAILED, error="gone")
    assert tail.readings([sessions[0], long, failed], []) == []
    assert len(tail.readings(sessions, [])) == 2


def test_few_sessions_are_shrunk_and_old_ones_fade():
    reading = tail.Reading(group="fact at 300", gain=0.6, write_probability=0.5, outside=True)
    first = tail.updated({}, 20 * [reading])
    assert first["fact at 300"].mean_gain == pytest.approx(0.3)
    second = tail.updated(first, [])
    assert (second["fact at 300"].sessions, second["fact at 300"].mean_gain) == pytest.approx((10, 0.2))
    assert second["fact at 300"].mean_write_probability == pytest.approx(0.5)
    other = tail.updated(second, [changed(reading, group="other", gain=0.0)])
    assert (other["fact at 300"].sessions, other["other"].mean_gain) == (5, 0.0)


PRICE, SHARE = 700, 0.5
WITHOUT = SHARE * (1 - PRICE / 1000) + (1 - SHARE) * 0.5  # what a session earns where memory lacks the answer
WORLD = Recurring(seed=0)


@pytest.fixture(scope="module")
def streams() -> list[list[Session]]:
    """Streams of the toy, played by a teacher that asks half of what memory lacks."""
    rules = script_rules(WORLD, agent=THREE_PRICES.agent, memory=THREE_PRICES.memory)
    half = at_random(SHARE, seed=0)
    asker = Scripted(
        lambda view: needs_advice(view) and half(view), search_function=WORLD.search_function, guess=best_guess
    )
    sessions = play_streams(asker, WORLD, split="train", indices=range(120), rules=rules, price=PRICE)
    return [sessions[start : start + LENGTH] for start in range(0, len(sessions), LENGTH)]


def assigned(
    assigner: CreditAssigner, sessions: list[Session]
) -> tuple[dict[tuple[str, int], float], dict[str, float]]:
    """Credit by stream and position, and metrics, with a critic that is exact."""
    segments = [segment for session in sessions for segment in cut(session)]
    exact = [
        TokenScores(
            logprobs=np.zeros(1, np.float32),
            reference_logprobs=np.zeros(1, np.float32),
            own_values=np.array([WITHOUT], np.float32),
            write_probabilities=np.array([SHARE], np.float32),
        )
        for _ in assigner.prefixes(sessions)
    ]
    found = assigner.assign(sessions, segments, [zeros(segment) for segment in segments], exact)
    return {(row.segment.stream, row.segment.position): row.credit for row in found.rows}, found.metrics


def true_worth(session: Session) -> float:
    later = sum(position > session.position for position in session.hindsight.same_item)
    return sum((1 - SHARE) ** reader * (1 - WITHOUT) for reader in range(later))


@pytest.mark.parametrize("size", [4, 8])
def test_sessions_that_were_really_played_get_their_worth_though_windows_cut_their_streams(streams, size):
    assigner = CreditAssigner(Credit(mode="linked", threshold=0.65))
    metrics: dict[str, float] = {}
    errors: list[float] = []
    for start in range(0, LENGTH, size):
        window = [session for stream in streams for session in stream[start : start + size]]
        credits_, metrics = assigned(assigner, window)
        wrote = [session for session in window if session.writes]
        given = np.array([credits_[one.stream, one.position] for one in wrote])
        due = np.array([true_worth(one) for one in wrote])
        if start:  # hardly any item comes twice in the first window
            assert given.sum() / due.sum() == pytest.approx(1 - metrics["credit_truncated"], abs=0.01)
            assert metrics["credit_truncated"] < 0.15
            assert np.abs(given - due).max() < 0.15
            errors.append(metrics["credit_tail_error"])
            assert (metrics["credit_tail"] > 0.3) == (start + size < LENGTH)
    assert errors == sorted(errors)  # each reader gains 1 - WITHOUT, of which shrinkage takes less and less
    assert -0.1 < errors[-1] < 0
    assert metrics["credit_tail"] == metrics["credit_truncated"] == 0.0  # the last window ends its streams


def test_readers_give_evidence_for_writers_of_earlier_iterations(streams):
    first, second = ([one for stream in streams for one in stream[cut_]] for cut_ in (slice(0, 12), slice(12, 24)))
    assigner = CreditAssigner(Credit(mode="linked", threshold=0.65))
    assigned(assigner, first)
    inside = sum(one.hindsight.known for one in first)
    assert len(assigner.prefixes(second)) == sum(one.hindsight.known for one in second) > inside


def test_a_restored_assigner_expects_what_the_one_that_was_saved_expects(streams):
    first, second = ([one for stream in streams for one in stream[cut_]] for cut_ in (slice(0, 12), slice(12, 20)))
    saved, restored, fresh = (CreditAssigner(Credit(mode="linked", threshold=0.65)) for _ in range(3))
    assigned(saved, first)
    restored.restore(saved.state())
    assert assigned(restored, second) == assigned(saved, second) != assigned(fresh, second)


def test_whole_streams_have_exactly_the_credit_of_their_readers(streams):
    """Bit for bit, also after iterations that give evidence."""
    assigner = CreditAssigner(Credit(mode="linked", threshold=0.65))
    half = len(streams) // 2
    assigned(assigner, [one for stream in streams[:half] for one in stream])
    sessions = [one for stream in streams[half:] for one in stream]
    found, metrics = assigned(assigner, sessions)
    index = {(one.stream, one.position): number for number, one in enumerate(sessions)}
    due = np.zeros(len(sessions))
    reader_of: dict[int, int] = {}
    for one in sessions:  # without the package's links: each reader names its writer
        for use in one.reads:
            writer = index[one.stream, use.writer]
            earlier = reader_of.get(writer, 0)
            due[writer] += (1.0 - np.float64(np.float32(SHARE))) ** earlier * (
                one.own_reward - np.float64(np.float32(WITHOUT))
            )
            reader_of[writer] = earlier + 1
    assert [found[one.stream, one.position] for one in sessions] == due.tolist()
    assert (metrics["credit_tail"], metrics["credit_truncated"]) == (0.0, 0.0)
    assert sum(reader_of.values()) == sum(one.hindsight.known for one in sessions) > ITEMS * RECUR
