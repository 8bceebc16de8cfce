"""The queue: each ask once, whoever comes at the same time."""

import threading

import pytest

from agile_ray.inbox.asks import State, Told
from launch.inbox.queue import LEASE_S, MissingAskError, OtherAskError, Queue, TakenError
from tests.inbox.conftest import ask

YES = Told(state=State.ANSWERED, text="it is Ann", answer="Ann")
OPEN = Told(state=State.OPEN)


def close(queue, number=0, told=YES, who="a", now=1.0):
    queue.finish(ask(number).key, told, who=who, by=who, now=now)


def test_an_ask_that_is_posted_again_is_the_same_and_gets_its_answer(queue):
    assert [queue.post(ask(), deadline_s=9, now=now) for now in (0, 5)] == [True, False]
    assert queue.told(ask().key) == OPEN
    [waiting] = queue.waiting(5)
    assert (waiting.asked_s, waiting.due_s) == (0, 9)
    close(queue)
    assert not queue.post(ask(), deadline_s=9, now=50)
    assert queue.told(ask().key) == YES
    assert queue.counts() == {"open": 0, "answered": 1, "refused": 0, "unknown": 0, "late": 0}


@pytest.mark.parametrize("other", [{"text": "something else"}, {"context": "a lamp"}, {"question_id": "q9"}])
def test_a_key_keeps_its_question(queue, other):
    queue.post(ask(context="a table"), deadline_s=9, now=0)
    assert not queue.post(ask(context="a table", ask_probability=0.5, words="how wide ?"), deadline_s=9, now=0)
    with pytest.raises(OtherAskError, match="found another one"):
        queue.post(ask(**{"context": "a table", **other}), deadline_s=9, now=0)


def test_who_opens_an_ask_holds_it_until_the_lease_ends(queue):
    queue.post(ask(), deadline_s=1000, now=0)
    queue.claim(ask().key, who="a", now=0)
    with pytest.raises(TakenError, match="somebody else is answering"):
        queue.claim(ask().key, who="b", now=1)
    with pytest.raises(TakenError, match="somebody else is answering"):
        close(queue, who="b")
    queue.claim(ask().key, who="b", now=LEASE_S)
    with pytest.raises(TakenError):
        close(queue, who="a", now=LEASE_S + 1)
    queue.release(ask().key, who="b")
    close(queue, who="a", now=LEASE_S + 1)
    assert queue.told(ask().key) == YES


def test_an_answer_that_comes_twice_counts_once_and_another_one_is_refused(queue):
    queue.post(ask(), deadline_s=9, now=0)
    close(queue)
    close(queue)
    with pytest.raises(TakenError, match="closed already: answered by a"):
        close(queue, who="b")
    with pytest.raises(TakenError):
        close(queue, told=Told(state=State.REFUSED))
    assert queue.told(ask().key) == YES


def test_an_ask_is_late_once_its_deadline_passes_and_stays_so(queue):
    queue.post(ask(), deadline_s=9, now=0)
    assert queue.expire(8.9) == []
    with pytest.raises(TakenError):
        close(queue, now=9)
    assert queue.expire(9) == [ask().key]
    assert not queue.post(ask(), deadline_s=9, now=10)
    assert queue.told(ask().key).state is State.LATE


def test_an_ask_that_is_not_there_is_named(queue):
    for call in (lambda: close(queue), lambda: queue.claim("x", who="a", now=0), lambda: queue.told("x")):
        with pytest.raises(MissingAskError, match="no ask has this key"):
            call()


def test_similar_questions_are_found_by_their_words_and_odd_text_breaks_nothing(queue):
    texts = ["how wide is the red lamp", "how tall is the blue chair", '" OR NEAR( * lamp']
    for number, text in enumerate(texts):
        queue.post(ask(number, text=text), deadline_s=9, now=0)
        close(queue, number)
    queue.post(ask(9, text="red lamp : how long"), deadline_s=9, now=0)
    assert queue.similar("red lamp : how long")[0].question == texts[0]
    assert queue.similar('"*(') == []
    assert queue.similar("chair")[0].question == texts[1]


def test_of_many_who_answer_at_once_one_does(queue, tmp_path):
    people, asks = 6, 20
    for number in range(asks):
        queue.post(ask(number), deadline_s=99, now=0)
    begin, won = threading.Barrier(people), []

    def person(name):
        own = Queue(tmp_path / "inbox.sqlite")
        begin.wait(timeout=60)
        for number in range(asks):
            own.post(ask(number), deadline_s=99, now=0)
            try:
                own.finish(
                    ask(number).key, Told(state=State.ANSWERED, text=name, answer=name), who=name, by=name, now=1
                )
                won.append((number, name))
            except TakenError:
                pass
        own.close()

    threads = [threading.Thread(target=person, args=(f"p{index}",)) for index in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(number for number, _ in won) == list(range(asks))
    assert all(queue.told(ask(number).key).answer == name for number, name in won)
