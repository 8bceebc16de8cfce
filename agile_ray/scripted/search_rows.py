"""Rows of imitation that are only a question and its gold query, about half as long as a whole session.

    [GetQuestion] products : price dollar | brand : ... question : ... [SearchProduct] SELECT ... <end>

Only the words of the query and the end token are trained on. The function token before them is not: in a session, the
policy reads memory first. For a tool that is called several times, a row has the first query.
"""

from collections.abc import Iterator
from itertools import count, islice
from random import Random

import numpy as np

from agile_ray.agent.environment import Environment, Question
from agile_ray.agent.functions import Function
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Speaker, opening, said
from agile_ray.errors import ConfigError
from agile_ray.seeds import derive
from agile_ray.types import NO_TURN, NO_VERSION, Demonstration, Segment

FIRST_STREAM = 2_000_000
"""Index of the first stream that is read, of streams that never end."""
FRUITLESS = 32
"""Streams that never end have no question for the tool if that many have none."""

Placed = tuple[str, int, Question]
"""A question, after the id of its stream and its position there."""


def search_rows(
    number: int, environment: Environment, rules: Rules, *, split: str, seed: int
) -> tuple[list[Demonstration], dict[str, int]]:
    """Draw questions that the tool answers, each at most once. The same seed gives the same rows.

    Args:
        number: of rows; fewer are returned if the split has no more questions.
        environment: provides the streams.
        rules: of the lanes: the tokenizer and the budgets.
        split: of the streams.
        seed: root seed of the run.

    Returns:
        The rows, and how many are missing, by reason.

    Raises:
        ConfigError: no question of the split is answered by the tool.
    """
    if number == 0:
        return [], {}
    drawn = _drawn(number, environment, split=split, seed=seed)
    if not drawn:
        raise ConfigError(
            f"imitation.search_rows: a row is a question that the tool answers, found none in the {split} split; "
            "leave it out"
        )
    rows = [_row(placed, rules) for placed in drawn]
    fitting = [row for row in rows if _fits(row, rules)]
    missing = {
        "search rows that would need more questions": number - len(drawn),
        "search rows over a budget of tokens": len(rows) - len(fitting),
    }
    return fitting, {reason: times for reason, times in missing.items() if times}


def _drawn(number: int, environment: Environment, *, split: str, seed: int) -> list[Placed]:
    available = environment.streams(split)
    if available is None:
        return list(islice(_searches(environment, split=split), number))
    placed = [one for index in range(available) for one in _of_stream(environment, split=split, index=index)]
    distinct = list({one[2].shown: one for one in placed}.values())
    Random(derive(seed, "imitation", "search rows")).shuffle(distinct)
    return distinct[:number]


def _searches(environment: Environment, *, split: str) -> Iterator[Placed]:
    fruitless = 0
    for index in count(FIRST_STREAM):
        found = _of_stream(environment, split=split, index=index)
        fruitless = 0 if found else fruitless + 1
        if fruitless == FRUITLESS:
            return
        yield from found


def _of_stream(environment: Environment, *, split: str, index: int) -> list[Placed]:
    stream = environment.stream(split=split, index=index)
    return [(stream.id, place, question) for place, question in enumerate(stream.questions) if question.query]


def _row(placed: Placed, rules: Rules) -> Demonstration:
    stream, position, question = placed
    tokenizer = rules.tokenizer
    read = [
        *opening(tokenizer),
        tokenizer.function_id(Function.GET_QUESTION),
        *said(tokenizer, f"{question.query_shown or question.shown}\n", speaker=Speaker.USER),
        tokenizer.function_id(rules.search_function),
    ]
    written = [*tokenizer.encode(f" {question.query}"), tokenizer.eos_id]
    mask = np.repeat([False, True], [len(read), len(written)])
    zeros = np.zeros(len(mask), dtype=np.float32)
    return Demonstration(
        segment=Segment(
            stream=stream,
            position=position,
            index=0,
            token_ids=np.array([*read, *written], dtype=np.int32),
            action_mask=mask,
            turn_ids=np.where(mask, 0, NO_TURN).astype(np.int32),
            behavior_logprobs=zeros,
            versions=np.where(mask, 0, NO_VERSION).astype(np.int32),
            rewards=zeros,
            ask_probabilities=np.full(len(mask), np.nan, dtype=np.float32),
            last=False,
        ),
        returns=np.ones(len(written), dtype=np.float32),  # what the whole session would earn
        wrote=False,
    )


def _fits(row: Demonstration, rules: Rules) -> bool:
    agent = rules.agent
    return row.segment.actions < agent.turn_tokens and len(row.segment.token_ids) < agent.session_tokens
