"""HotpotQA (AGILE, section 4.3): questions that need two paragraphs of the ten given with each (distractor setting).

The tool looks only into the question's own paragraphs: it returns the one whose title is most like the query, among
those that the session has not read, at most five times. The answer is a span, yes or no. Nothing is worth remembering:
paragraphs and facts belong to one question. Scripts read perfectly, so a reference policy that need not ask is always
right: an upper bound. Imitation, PPO and validation play 3, 2 and 1 sixths of the training file.

    [GetQuestion]     question : which country is the author of ... from ?
    [Search]          Nineteen Eighty-Four
                      Nineteen Eighty-Four : Nineteen Eighty-Four is a novel by George Orwell ...
    [Search]          George Orwell
                      George Orwell : Eric Arthur Blair was an English ...
    [PredictAnswer]   England
    [SeekAdvice]      advice : England

<data>/train.jsonl    a question a line; or hotpot_train_v1.1.json, the official JSON list
       test.jsonl     or hotpot_dev_distractor_v1.json, or test/data.jsonl, where the AGILE release expects it
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from pydantic import AliasChoices, Field

from agile_ray.agent.environment import Found, Question
from agile_ray.agent.functions import Function
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from envs.one_stream import OneStream
from envs.rows import Row, Rows, Text, clean, commonest, read_splits, short
from envs.splits import share

SEARCHES = 5
"""Most searches in one session (AGILE's released code)."""
PARAGRAPH_WORDS = 100  # that the policy reads; the answer is among them in 99 % of the gold paragraphs that hold it
TRAIN_SHARES, SHARES = 2, 6  # of the training file: 1 is for validation, 2 are for PPO, the others for imitation
FILES = {
    "train": ("train.jsonl", "hotpot_train_v1.1.json"),
    "test": ("test.jsonl", "hotpot_dev_distractor_v1.json", "test/data.jsonl"),
}
"""Names of each split's file, the first one that exists."""
SOURCE = "name a folder with hotpot_train_v1.1.json and hotpot_dev_distractor_v1.json from hotpotqa.github.io"


class HopQuestion(Row):
    """One row of the files."""

    id: Text = Field(validation_alias=AliasChoices("_id", "id"))
    question: Text
    answer: Text
    type: Text = "bridge"
    supporting_facts: tuple[tuple[Text, int], ...]  # title of a paragraph, number of its sentence
    context: tuple[tuple[Text, tuple[Text, ...]], ...]  # title, sentences

    @property
    def gold(self) -> tuple[str, ...]:
        """Titles of the paragraphs that the answer needs."""
        return tuple(dict.fromkeys(title for title, _ in self.supporting_facts))


def read(folder: Path | None, *, skip_bad: bool) -> dict[str, Rows[HopQuestion]]:
    """The rows of each split's file.

    Raises:
        ConfigError: a file is missing; the message says what to get. Or it has a broken row.
    """
    return read_splits(
        folder,
        HopQuestion,
        FILES,
        needed=FILES,
        of="hotpotqa",
        source=SOURCE,
        problem=_problem,
        skip_bad=skip_bad,
    )


def build(env: Env, *, seed: int) -> OneStream:
    """Build from the config. The questions and their order come from the files and do not depend on the seed.

    Raises:
        ConfigError: the folder lacks a file or a file has a broken row, or the config names categories.
    """
    del seed
    if env.categories:
        raise ConfigError(f"env.categories: hotpotqa has none, found {dict(env.categories)}; leave it out")
    files = read(env.data, skip_bad=env.skip_bad)
    rows = {split: read.rows for split, read in files.items()}
    learned = [row for row in rows["train"] if share(row.id, of=SHARES) > 0]
    guesses = commonest((row.type, clean(row.answer)) for row in learned)
    paragraphs = {row.id: _paragraphs(row) for split in rows.values() for row in split}

    def questions(chosen: Sequence[HopQuestion]) -> tuple[Question, ...]:
        return tuple(_question(row, guess=guesses.get(row.type, ("no", 0.0))) for row in chosen)

    def part(lowest: int, highest: int) -> tuple[Question, ...]:
        return questions([row for row in rows["train"] if lowest <= share(row.id, of=SHARES) < highest])

    return OneStream(
        "hotpotqa",
        search_function=Function.SEARCH,
        splits={
            "imitation": part(1 + TRAIN_SHARES, SHARES),
            "train": part(1, 1 + TRAIN_SHARES),
            "validation": part(0, 1),
            "test": questions(rows["test"]),
        },
        search=lambda query, question, found: _search(query, paragraphs[question.id], found),
        judge=lambda question, text: exact(text, question.answer),
        skipped=[problem for read in files.values() for problem in read.broken],
    )


def exact(predicted: str, gold: str) -> bool:
    """HotpotQA's exact match: of words in lower case, without punctuation and articles."""
    return plain(predicted) == plain(gold)


def f1(predicted: str, gold: str) -> float:
    """HotpotQA's F1 of the words that two answers share, 0 to 1; yes, no and noanswer match themselves only."""
    one, other = plain(predicted), plain(gold)
    if one != other and {one, other} & {"yes", "no", "noanswer"}:
        return 0.0
    shared = sum((Counter(one.split()) & Counter(other.split())).values())
    return 2 * shared / (len(one.split()) + len(other.split())) if shared else 0.0


def plain(answer: str) -> str:
    """An answer in the form that HotpotQA compares (hotpot_evaluate_v1.py)."""
    words = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split())


def _question(row: HopQuestion, *, guess: tuple[str, float]) -> Question:
    text, answer = clean(row.question), clean(row.answer)
    said = {title: clean(" ".join(sentences)).lower() for title, sentences in row.context}
    nearest = sorted(row.gold, key=lambda title: _likeness(text, title), reverse=True)
    first, *others = sorted(nearest, key=lambda title: answer.lower() in said[title])  # the answer comes last
    return Question(
        id=row.id,
        product=row.id,
        kind=row.type,
        topic=row.type,
        text=text,
        shown=f"question : {text}",
        item=row.id,
        answer=answer,
        advice=answer,
        knowledge="",
        query=clean(first),
        guess=guess[0],
        guess_probability=guess[1],
        more_queries=tuple(clean(title) for title in others),
    )


Paragraphs = dict[str, str]
"""Title -> what the policy reads."""


def _paragraphs(row: HopQuestion) -> Paragraphs:
    return {clean(title): f"{clean(title)} : {short(' '.join(said), PARAGRAPH_WORDS)}" for title, said in row.context}


def _search(query: str, paragraphs: Paragraphs, found: Sequence[Found]) -> Found:
    if len(found) >= SEARCHES:
        return _refused(f"at most {SEARCHES} searches")
    seen = {one.text for one in found}
    unread = [title for title, text in paragraphs.items() if text not in seen]
    if not unread:
        return _refused("every paragraph is shown above")
    if not query.strip():
        return _refused("the query is empty")
    best = max(unread, key=lambda title: _likeness(query, title))
    return Found(text=paragraphs[best], rows=None, bad_query=False)


def _refused(reason: str) -> Found:
    return Found(text=f"error : {reason}", rows=None, bad_query=True)


def _likeness(query: str, title: str) -> tuple[float, float]:
    """How much a query is like a title: shared words first, then shared letters."""
    return f1(query, title), SequenceMatcher(None, query.lower(), title.lower()).ratio()


def _problem(row: HopQuestion) -> str:
    for name in ("question", "answer"):
        if not clean(getattr(row, name)):
            return f"{name}: must hold a text, found {getattr(row, name)!r}"
    titles = {title for title, _ in row.context}
    lacking = [title for title in row.gold if title not in titles]
    if lacking or not row.gold:
        return f"supporting_facts: each must be of a paragraph in context, found {lacking or 'none'}"
    return ""
