import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agile_ray.agent.memory import KNOWLEDGE, QA, Entry, HashedEmbedder, Memory

WORDS = ["waterproof", "warranty", "dishwasher", "battery", "camping"]


def memory(capacity=100):
    return Memory(HashedEmbedder(), capacity=capacity)


def entry(key, *, kind=QA, scope="p1", writer=0, text=None):
    text = f"{key} yes" if text is None else text
    return Entry(kind=kind, scope=scope if kind == QA else "", key=key, text=text, writer=writer)


def test_retrieve_returns_the_most_similar_entry_first():
    one = memory()
    for writer, word in enumerate(WORDS):
        one.write(entry(f"what about its {word} ?", writer=writer))
    [first, second] = one.retrieve("tell me of the warranty", kind=QA, scope="p1", top_k=2, without={9})
    assert first.entry.writer == 1
    assert first.similarity > second.similarity


entries = st.builds(
    entry,
    st.sampled_from(WORDS),
    kind=st.sampled_from([QA, KNOWLEDGE]),
    scope=st.sampled_from(["p1", "p2"]),
    writer=st.integers(0, 5),
    text=st.sampled_from(["yes", "no", "it rusts", "it does not rust"]),
)


class Scan:
    """A memory that is a list of entries and looks at each of them."""

    def __init__(self, capacity):
        self.entries = []
        self.capacity = capacity

    def write(self, one):
        alike = [other for other in self.entries if (other.kind, other.scope) == (one.kind, one.scope)]
        texts = {(other.scope, other.text) for other in self.entries if other.kind == one.kind}
        new = (one.scope, one.text) not in texts
        if (new and len(texts) >= self.capacity) or (one.key, one.text) in {(other.key, other.text) for other in alike}:
            return False
        self.entries.append(one)
        return True

    def forget(self, writer):
        gone = [one for one in self.entries if one.writer == writer]
        self.entries = [one for one in self.entries if one.writer != writer]
        return gone

    def ranked(self, query, kind, scope, without):
        """Each text once, by its nearest key, the earliest in a tie: (cosine, entry), best first."""
        embed = HashedEmbedder().embed
        best = {}
        for one in self.entries:
            if (one.kind, one.scope) == (kind, scope) and one.writer not in without:
                cosine = float(embed([query])[0] @ embed([one.key])[0])
                if one.text not in best or cosine > best[one.text][0] + 1e-6:
                    best[one.text] = (cosine, one)
        return sorted(best.values(), key=lambda found: -found[0])


changes = st.lists(st.one_of(entries, st.integers(0, 5)), max_size=40)


@given(changes, st.sampled_from(WORDS), st.sampled_from(["p1", "p2"]), st.sets(st.integers(0, 5)), st.integers(1, 4))
def test_writes_searches_and_forgetting_agree_with_a_scan(happened, query, scope, without, capacity):
    one, scan = memory(capacity), Scan(capacity)
    for change in happened:
        if isinstance(change, int):
            assert one.forget(change) == scan.forget(change)
        else:
            assert one.write(change) == scan.write(change)
        assert one.similar(query, kind=KNOWLEDGE, scope="", threshold=0.46) == sum(
            cosine > 0.46 for cosine, _ in scan.ranked(query, KNOWLEDGE, "", ())
        )
    assert list(one.writers) == list(dict.fromkeys(written.writer for written in scan.entries))
    for searched in (one, Memory.restore(one.change(), HashedEmbedder(), capacity=capacity)):
        assert searched.change().entries == tuple(scan.entries)
        assert len(searched) == len(scan.entries)
        for kind, within in ((QA, scope), (KNOWLEDGE, "")):
            ranked = scan.ranked(query, kind, within, without)
            found = searched.retrieve(query, kind=kind, scope=within, top_k=3, without=without)
            assert [match.similarity for match in found] == pytest.approx(
                [cosine for cosine, _ in ranked[:3]], abs=1e-6
            )
            assert all(match.entry in {best for _, best in ranked} for match in found)
            similar = searched.similar(query, kind=kind, scope=within, threshold=0.46, without=without)
            assert similar == sum(cosine > 0.46 for cosine, _ in ranked)


def test_a_text_is_found_by_each_of_its_keys_and_shown_once():
    one = memory()
    for writer, word in enumerate(WORDS):
        assert one.write(entry(word, kind=KNOWLEDGE, writer=writer, text="steel rusts"))
    assert one.write(entry("weight", kind=KNOWLEDGE, writer=9, text="steel is heavy"))
    for writer, word in enumerate(WORDS):
        first, second = one.retrieve(word, kind=KNOWLEDGE, scope="", top_k=3, without=())
        assert (first.entry.writer, first.entry.text, second.entry.text) == (writer, "steel rusts", "steel is heavy")
        [first, *_] = one.retrieve(word, kind=KNOWLEDGE, scope="", top_k=3, without={writer, 9})
        assert (first.entry.writer != writer, first.entry.text) == (True, "steel rusts")
    assert one.similar("battery", kind=KNOWLEDGE, scope="", threshold=-1.0) == 2
    assert one.retrieve("battery", kind=KNOWLEDGE, scope="", top_k=1, without={*range(5), 9}) == []


def test_equal_keys_tie_and_the_earliest_is_found_whatever_else_memory_holds():
    one = memory()
    for writer in range(40):
        one.write(entry("does it rust", writer=writer, text=f"answer {writer}"))
        assert one.retrieve("does it rust", kind=QA, scope="p1", top_k=1, without=())[0].entry.writer == 0
        assert one.retrieve("rust", kind=QA, scope="p1", top_k=1, without=())[0].entry.writer == 0


def test_a_question_is_embedded_once_for_all_searches_of_a_session():
    class Counts(HashedEmbedder):
        calls = 0

        def embed(self, texts):
            self.calls += 1
            return super().embed(texts)

    embedder = Counts()
    one = Memory(embedder, capacity=100)
    for writer, word in enumerate(WORDS):
        one.write(entry(word, kind=KNOWLEDGE, writer=writer))
    embedder.calls = 0
    for without in ((), {1}, {1, 2}):
        one.similar("rust", kind=KNOWLEDGE, scope="", threshold=0.46, without=without)
        one.retrieve("rust", kind=KNOWLEDGE, scope="", top_k=2, without=without)
    assert embedder.calls == 1


@given(changes, st.lists(st.integers(0, 40), max_size=4))
def test_changes_between_any_moments_are_joined_to_all_that_memory_holds(happened, noted):
    one, since = memory(capacity=3), None
    joined = one.change()
    for step, change in enumerate(happened):
        if step in noted:
            joined, since = joined.then(one.change(since)), one.moment
        if isinstance(change, int):
            one.forget(change)
        else:
            one.write(change)
    last = one.change(since)
    joined, whole = joined.then(last), one.change()
    assert (joined.entries, joined.forgotten, joined.whole) == (whole.entries, (), True)
    assert np.array_equal(joined.vectors, whole.vectors)
    assert len(last.entries) <= len(happened) - (max(noted) if noted and max(noted) < len(happened) else 0)


def test_changes_are_joined_in_any_grouping():
    one = memory()
    parts, since = [], None
    for writers, gone in (((0, 1), ()), ((2, 3), (1,)), ((1, 4), (0, 3))):
        for writer in writers:
            one.write(entry(f"question {writer}", writer=writer))
        for writer in gone:
            one.forget(writer)
        parts.append(one.change(since))
        since = one.moment
    first, second, third = parts
    left, right = first.then(second).then(third), first.then(second.then(third))
    assert [written.writer for written in left.entries] == [2, 1, 4]
    assert (left.entries, left.vectors.tolist()) == (right.entries, right.vectors.tolist())
    assert (third.forgotten, third.whole, [written.writer for written in third.entries]) == ((0, 3), False, [1, 4])


def test_a_moment_of_another_memory_is_the_beginning():
    one, other = memory(), memory()
    for word in WORDS:
        one.write(entry(word))
        other.write(entry(word))
    change = one.change(other.moment)
    assert (change.whole, len(change.entries)) == (True, len(WORDS))
    assert (one.change(one.moment).whole, one.change(one.moment).entries) == (False, ())


@given(st.lists(entries, max_size=8))
def test_a_restored_memory_is_the_same_and_a_fork_is_independent(written):
    one = memory()
    for item in written:
        one.write(item)
    fork = Memory.restore(one.change(), HashedEmbedder(), capacity=100)
    assert fork.change().entries == one.change().entries
    fork.write(entry("something else entirely"))
    assert len(fork) == len(one) + 1


def test_an_equal_text_under_an_equal_key_is_stored_once_and_a_full_memory_takes_only_further_keys():
    one = memory(capacity=1)
    assert one.write(entry("warranty"))
    assert not one.write(entry("warranty", writer=3))
    assert not one.write(entry("battery"))
    assert one.write(entry("battery", text="warranty yes", writer=3))
    assert one.write(entry("battery", kind=KNOWLEDGE))


def test_forgetting_makes_room_in_a_full_memory():
    one = memory(capacity=2)
    assert one.write(entry("warranty", writer=0))
    assert one.write(entry("battery", scope="p2", writer=1))
    one.forget(0)
    assert one.write(entry("weight", writer=2))
    assert not one.write(entry("colour", writer=3))


def test_embeddings_have_length_one_even_for_empty_text():
    lengths = np.linalg.norm(HashedEmbedder().embed(["", "a b", "waterproof ?"]), axis=1)
    assert lengths == pytest.approx(1.0)


def test_forgetting_a_writer_equals_never_having_stored_its_entries():
    one, other = Memory(HashedEmbedder(), capacity=9), Memory(HashedEmbedder(), capacity=9)
    texts = ("is it heavy ?", "is it light ?", "is it round ?")
    for writer, text in enumerate(texts):
        entry = Entry(kind=QA, scope="p", key=text, text=text, writer=writer)
        assert one.write(entry)
        if writer != 1:
            assert other.write(entry)
    assert [gone.writer for gone in one.forget(1)] == [1]
    assert one.forget(7) == []
    assert one.change().entries == other.change().entries
    assert list(one.writers) == [0, 2]
    for text in texts:
        found = one.retrieve(text, kind=QA, scope="p", top_k=3, without=())
        assert found == other.retrieve(text, kind=QA, scope="p", top_k=3, without=())
    assert one.write(Entry(kind=QA, scope="p", key=texts[1], text=texts[1], writer=5))
