"""Nobody's memory reaches anybody else: entries under one product, and the lanes of two customers."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from agile_ray.agent.lane import Lane
from agile_ray.agent.memory import QA, Entry, HashedEmbedder, Memory
from tests.fakes.worlds import ASKS, Says, SmallStream, question, rules

WORDS = st.text(alphabet="ab c", min_size=1, max_size=12).filter(str.strip)
SCOPES = st.sampled_from(["", " ", "p", "P", "p1", "p1 ", "p\0", "customer", "é", "é"])
EMBEDDER = HashedEmbedder()


@settings(max_examples=150)
@given(
    entries=st.lists(st.tuples(SCOPES, WORDS, WORDS), max_size=12),
    scope=SCOPES,
    asked=WORDS,
    top_k=st.integers(1, 20),
    threshold=st.sampled_from([-1.0, 0.0, 0.5]),
)
def test_a_question_finds_and_counts_only_what_was_written_in_its_own_scope(entries, scope, asked, top_k, threshold):
    memory = Memory(EMBEDDER, capacity=100)
    for writer, (written_in, key, text) in enumerate(entries):
        memory.write(Entry(kind=QA, scope=written_in, key=key, text=f"{written_in!r} {text}", writer=writer))
    found = memory.retrieve(asked, kind=QA, scope=scope, top_k=top_k, without=())
    assert all(match.entry.scope == scope and match.entry.text.startswith(f"{scope!r} ") for match in found)
    own = {writer for writer, (written_in, _, _) in enumerate(entries) if written_in == scope}
    assert {match.entry.writer for match in found} <= own
    assert memory.similar(asked, kind=QA, scope=scope, threshold=threshold, without=()) <= len(own)


@settings(max_examples=30)
@given(order=st.lists(st.booleans(), min_size=2, max_size=8))
def test_two_customers_that_ask_the_same_questions_in_turns_never_read_each_other(order):
    asked = [question(number, "where is my parcel ?", answer="yes", knowledge="k") for number in range(8)]
    shared = rules()

    class Customer(SmallStream):
        def __init__(self, name):
            super().__init__(*(one for one in asked))
            self.id = f"test/{name}/0"

    lanes = {name: Lane(Customer(name), shared) for name in (True, False)}
    played = {True: 0, False: 0}
    for name in order:
        session = asyncio.run(lanes[name].play(Says(*ASKS)))
        assert {use.writer for use in session.reads} <= set(range(played[name]))
        assert bool(session.reads) is (played[name] > 0)
        played[name] += 1
    for name, lane in lanes.items():
        assert {entry.writer for entry in lane.memory.change().entries} <= set(range(played[name]))
