"""Whether streams keep the contract of agile_ray/agent/environment.py: fields, judge and tool."""

import asyncio
import inspect
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from agile_ray.agent.environment import Found, Question, Stream, Submission, judged, reward_range, search
from agile_ray.errors import described
from launch.extend import finding

QUESTIONS = 50
"""Questions of a stream that are judged, and as many gold queries that are run."""


def broken(split: str, streams: Sequence[Stream]) -> Iterator[finding.Finding]:
    """Missing fields and impossible values."""
    if len({stream.id for stream in streams}) < len(streams):
        yield finding.error(f"{split}: each stream has an id of its own, found {[stream.id for stream in streams]}")
    for stream in streams:
        low, high = reward_range(stream)
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 < high):
            yield finding.error(f"{stream.id}: reward_range is from at most 0 to above 0, found {(low, high)}")
        if not stream.questions:
            yield finding.error(f"{stream.id}: a stream has at least one question, found none")
        wrong = next((why for one in stream.questions if (why := _wrong(one))), "")
        if wrong:
            yield finding.error(f"{stream.id}: {wrong}")
            return
        twice = [id for id, times in Counter(one.id for one in stream.questions).items() if times > 1]
        if twice:
            yield finding.error(f"{stream.id}: each question has an id of its own, found {twice[0]} again")
        answers: dict[str, set[str]] = defaultdict(set)
        for one in stream.questions:
            answers[one.item].add(one.answer)
        differing = next(((item, sorted(said)) for item, said in answers.items() if len(said) > 1), None)
        if differing:
            yield finding.error(
                f"{stream.id}: questions on one item have equal answers, found {differing[1][:3]} on item "
                f"{differing[0]!r}; give questions with different answers different items"
            )


def _wrong(one: Question) -> str:
    if not isinstance(one, Question):
        return f"questions are `Question`s, found {one!r}"
    where = f"question {one.id}"
    for name, value in asdict(one).items():
        if name in ("guess_probability", "guess_drawn", "more_queries"):
            continue
        if not isinstance(value, str):
            return f"{where}: {name} is a text, found {value!r}"
    for name in ("id", "text", "answer"):
        if not getattr(one, name).strip():
            return f"{where}: {name} must not be empty"
    number = one.guess_probability
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        return f"{where}: guess_probability is from 0 to 1, found {number!r}"
    return ""


def judgements(streams: Sequence[Stream]) -> Iterator[finding.Finding]:
    """Gold answers that are wrong, an empty one that is right, rewards out of range."""
    for stream in streams:
        low, high = reward_range(stream)
        for one in stream.questions[:QUESTIONS]:
            for name, submission in (
                ("the expert's answer", Submission(text=one.answer, rows=None, advised=True)),
                ("the answer in words", Submission(text=one.answer, rows=None)),
                ("an empty answer", Submission(text="", rows=None)),
            ):
                if one.query and name == "the answer in words":
                    continue  # rows may be what is judged
                try:
                    earned = float(asyncio.run(judged(stream, one, submission)))
                except Exception as error:  # noqa: BLE001  the environment's code may raise anything
                    yield finding.error(f"{stream.id}: question {one.id}: judge() of {name} raised {described(error)}")
                    return
                if not low <= earned <= high:
                    yield finding.error(
                        f"{stream.id}: question {one.id}: judge() of {name} must be from {low:g} to {high:g}, found "
                        f"{earned:g}; declare another reward_range"
                    )
                    return
                if submission.text and earned < high:
                    yield finding.error(
                        f"{stream.id}: question {one.id}: {name}, {one.answer!r}, must be right, found {earned:g}"
                    )
                    return
                if not submission.text and earned >= high:
                    yield finding.error(f"{stream.id}: question {one.id}: {name} must be wrong, found it right")
                    return


def queries(streams: Sequence[Stream]) -> Iterator[finding.Finding]:
    """Gold queries that the tool refuses or answers in two ways."""
    for stream in streams:
        for one in [one for one in stream.questions if one.query][:QUESTIONS]:
            try:
                replies = [_found(stream, one) for _ in range(2)]
            except Exception as error:  # noqa: BLE001  the environment's code may raise anything
                yield finding.error(
                    f"{stream.id}: question {one.id}: the tool raised {described(error)} on {one.query!r}"
                )
                return
            if any(reply.bad_query for reply in replies):
                yield finding.error(
                    f"{stream.id}: question {one.id}: the tool must take the gold query {one.query!r}, found "
                    f"{replies[0].text!r}"
                )
                return
            if replies[0].text != replies[1].text:
                yield finding.warning(
                    f"{stream.id}: question {one.id}: the tool should answer {one.query!r} the same way twice, found "
                    f"{replies[0].text!r} and {replies[1].text!r}; without that a run does not repeat"
                )
                return


def _found(stream: Stream, one: Question) -> Found:
    async def settled() -> Found:
        reply = search(stream, one.query, question=one, found=())
        return await reply if inspect.isawaitable(reply) else reply

    reply = asyncio.run(settled())
    if not isinstance(reply, Found):
        raise TypeError(f"search() returns a Found, not {reply!r}")
    return reply
