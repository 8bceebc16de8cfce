"""Where a submitted answer is a guess, and the environment knows the probability that it is right."""

import asyncio

import pytest

from tests.fakes.worlds import ASKS, END, OPENING, PREDICTS, Says, changed, lane, question

DRAWN = changed(question(0, "does it rust ?", answer="no"), guess_drawn=True)  # the best guess is "yes", at 0.5
SUBMITS = "[SubmitAnswer] [ClearContext]"


def chance(*turns, of=DRAWN):
    """What the session knows of its guess."""
    return asyncio.run(lane(of).play(Says(*turns))).hindsight.guess_probability


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (PREDICTS, 0.5),
        ((*OPENING, f"[SearchProduct] oops {END}", f"[PredictAnswer] yes {SUBMITS}"), 0.5),  # finds no rows
        ((*OPENING, f"[SearchProduct] SELECT all {END}", f"[PredictAnswer] yes {SUBMITS}"), None),
        ((*OPENING, f"[SearchProduct] SELECT all {END}", SUBMITS), None),
        ((*OPENING, f"[PredictAnswer] no {SUBMITS}"), None),  # right by luck too, but the question has no probability
        ((*OPENING, "[SeekAdvice]", f"[PredictAnswer] yes {SUBMITS}"), None),
        ((*OPENING, "[PredictAnswer] yes [ClearContext]"), None),
        (ASKS, None),
    ],
)
def test_the_best_guess_has_its_probability_if_neither_advice_nor_rows_stand_behind_it(turns, expected):
    assert chance(*turns) == expected


def test_an_answer_that_was_not_drawn_may_be_known_from_the_question():
    assert chance(*PREDICTS, of=changed(DRAWN, guess_drawn=False)) is None


def test_the_guess_is_compared_without_case_and_spaces():
    spaced = changed(DRAWN, guess="not at all", guess_probability=0.75)
    assert chance(*OPENING, f"[PredictAnswer] Not  at All {SUBMITS}", of=spaced) == 0.75


def test_an_answer_to_an_item_that_memory_holds_is_no_guess():
    one = lane(DRAWN, changed(DRAWN, id="q1"))
    asyncio.run(one.play(Says(*ASKS)))
    later = asyncio.run(one.play(Says(*PREDICTS)))
    assert (later.hindsight.known, later.hindsight.guess_probability) == (True, None)
