"""Which questions ask for the same fact."""

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from envs.productqa_items import items

ROOT = Path(__file__).resolve().parents[2]
ASKED = [
    ("pan", "is it safe for the dishwasher?", "yes"),
    ("pan", "does the handle get hot on the stove?", "no"),
    ("pan", "is this safe for the dishwasher?", "yes"),
    ("pan", "is it safe for the dishwasher?", "no"),
    ("wok", "is it safe for the dishwasher?", "yes"),
    ("pan", "how heavy is it?", "two pounds"),
    ("wok", "does it come with a lid?", "yes"),
    ("pan", "does the long handle get hot on a gas stove?", "no"),
]


def test_paraphrases_on_one_product_with_one_answer_are_one_fact() -> None:
    names = items(ASKED)
    assert names[0] == names[2] == "pan/is it safe for the dishwasher?/yes"
    assert names[1] == names[7]
    assert len(set(names)) == len(ASKED) - 2


words = st.lists(st.sampled_from(["is", "it", "heavy", "round", "safe", "?"]), min_size=1, max_size=4)
facts = st.tuples(st.sampled_from(["a", "b"]), words.map(" ".join), st.sampled_from(["yes", "no"]))


@given(st.lists(facts, max_size=12))
@example([("a", text, "yes") for text in ("is", "is", "is it", "it", "is it")])
def test_equal_facts_have_one_product_and_answer_and_equal_questions_with_both_are_one_fact(
    asked: list[tuple[str, str, str]],
) -> None:
    named = list(zip(asked, items(asked), strict=True))
    about: dict[str, set[tuple[str, str]]] = {}
    for (product, _, answer), name in named:
        about.setdefault(name, set()).add((product, answer))
    assert all(len(of) == 1 for of in about.values())
    assert len(set(named)) == len(set(asked))


def test_every_process_gives_words_the_same_weights() -> None:
    texts = [question for _, question, _ in ASKED]
    code = f"from envs.productqa_items import _vectors\nfor v in _vectors({texts}): print(sorted(v.items()))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=110,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(found) == 1
