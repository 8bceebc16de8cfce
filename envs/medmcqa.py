"""MedMCQA (AGILE, section 4.2): questions of medical entrance exams with four options.

The expert says the right option. Before the first session, memory holds every training question with its answer, and
with its explanation where there is one; a session never finds its own question. There is no tool. Imitation plays two
thirds of the training questions, PPO the others.

    [GetQuestion]     question : which drug is used for ... ?
                      A : aspirin | B : ...
    [SeekAdvice]      advice : aspirin
    [PredictAnswer]   A                                                         the option's letter
    [Reflection]      aspirin inhibits ...                                      the explanation

<data>/train.jsonl       a question a line; or train.json, as the official release names it
       validation.jsonl  without it, every twentieth training question
       test.jsonl        or dev.json, the official labelled split; its test.json has no answers, and is not read
"""

from collections.abc import Sequence
from pathlib import Path

from agile_ray.agent.environment import Question, Remembered
from agile_ray.config import Env
from agile_ray.errors import ConfigError
from envs.one_stream import OneStream
from envs.rows import MaybeText, Row, Rows, Text, clean, commonest, normalised, read_splits, short
from envs.splits import share

LETTERS = ("A", "B", "C", "D")
QUESTION_WORDS = 80  # that the policy reads (99 % have at most 60)
OPTION_WORDS = 24  # of an option that the policy reads
KNOWLEDGE_WORDS = 40  # of an explanation (median 45) that the policy reads and remembers
SCOPE = "medicine"  # of all QA pairs: they belong to no product
IMITATION_SHARES, SHARES = 2, 3  # of the training questions, imitation plays two of three
VALIDATION_SHARES = 20  # without a validation file, one of so many training questions
FILES = {
    "train": ("train.jsonl", "train.json"),
    "validation": ("validation.jsonl",),
    "test": ("dev.json", "test.jsonl"),
}
"""Names of each split's file, the first one that exists."""
SOURCE = "name the unpacked folder of the MedMCQA release (github.com/medmcqa/medmcqa): train.json, dev.json"


class ExamQuestion(Row):
    """One row of the files."""

    question: Text
    opa: Text
    opb: Text
    opc: Text
    opd: Text
    cop: int  # right option, from 1
    exp: MaybeText = None
    choice_type: Text = "single"

    @property
    def options(self) -> tuple[str, str, str, str]:
        return self.opa, self.opb, self.opc, self.opd


def read(folder: Path | None, *, skip_bad: bool) -> dict[str, Rows[ExamQuestion]]:
    """The rows of each split's file; `validation` may be missing.

    Raises:
        ConfigError: a needed file is missing; the message says what to get. Or it has a broken row.
    """
    return read_splits(
        folder,
        ExamQuestion,
        FILES,
        needed=("train", "test"),
        of="medmcqa",
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
        raise ConfigError(f"env.categories: medmcqa has none, found {dict(env.categories)}; leave it out")
    files = read(env.data, skip_bad=env.skip_bad)
    training = files["train"].rows
    if "validation" in files:
        held = files["validation"].rows
    else:
        shares = [share(f"validation/{row.id}", of=VALIDATION_SHARES) for row in training]
        held = tuple(row for row, number in zip(training, shares, strict=True) if number == 0)
        training = tuple(row for row, number in zip(training, shares, strict=True) if number != 0)
    guesses = commonest((row.choice_type, LETTERS[row.cop - 1]) for row in training)

    def questions(rows: Sequence[ExamQuestion]) -> tuple[Question, ...]:
        return tuple(_question(row, guess=guesses.get(row.choice_type, (LETTERS[0], 0.25))) for row in rows)

    taught = [row for row in training if share(row.id, of=SHARES) < IMITATION_SHARES]
    others = [row for row in training if share(row.id, of=SHARES) >= IMITATION_SHARES]
    return OneStream(
        "medmcqa",
        splits={
            "imitation": questions(taught),
            "train": questions(others),
            "validation": questions(held),
            "test": questions(files["test"].rows),
        },
        judge=lambda question, text: normalised(text) == normalised(question.answer),
        remembered=Remembered(questions=questions(training)),
        skipped=[problem for rows in files.values() for problem in rows.broken],
    )


def _question(row: ExamQuestion, *, guess: tuple[str, float]) -> Question:
    text, right = short(row.question, QUESTION_WORDS), row.options[row.cop - 1]
    options = [f"{letter} : {short(one, OPTION_WORDS)}" for letter, one in zip(LETTERS, row.options, strict=True)]
    return Question(
        id=row.id,
        product=SCOPE,
        kind=row.choice_type,
        topic=row.choice_type,
        text=text,
        shown=f"question : {text}\n{' | '.join(options)}",
        item=f"{normalised(clean(row.question))}/{normalised(' '.join(row.options))}",
        answer=LETTERS[row.cop - 1],
        advice=short(right, OPTION_WORDS),
        knowledge=short(row.exp or "", KNOWLEDGE_WORDS),
        query="",
        guess=guess[0],
        guess_probability=guess[1],
    )


def _problem(row: ExamQuestion) -> str:
    if not 1 <= row.cop <= len(LETTERS):
        return f"cop: the right option is 1 to {len(LETTERS)}, found {row.cop}"
    for name in ("question", "opa", "opb", "opc", "opd"):
        if not clean(getattr(row, name)):
            return f"{name}: must hold a text, found {getattr(row, name)!r}"
    return ""
