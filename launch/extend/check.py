"""Plays an environment without engine or Ray, and says what is wrong with it.

    error       the environment breaks its contract: a run would fail, or learn something else than what is meant
    warning     a run would work, but may have nothing to learn, or its test may not test it

What is looked at: the first streams of every split, their questions, judge and tool; the same streams in another
process; what splits share; and reference policies on validation.
"""

import asyncio
import inspect
import json
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import envs
from agile_ray.agent.environment import (
    Environment,
    Found,
    Question,
    Stream,
    Submission,
    judged,
    reward_range,
    search,
    taught_split,
)
from agile_ray.config import Env, RunConfig
from agile_ray.errors import AgileError, described
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.scripted.optimum import best_first
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.types import Ending
from rollout.rules import build_rules

STREAMS = 4  # of each split that are looked at
QUESTIONS = 50  # of a stream that are judged
SESSIONS = 200  # of each reference policy
SPLITS = ("train", "validation", "test")
SIMPLE = ("always_ask", "never_ask", "ask_unless_search", "non_adaptive")
ADVANTAGE = 0.005
"""Least total by which the oracle must beat the best simple policy, reward per session."""
MEMORIZED = 0.2
"""By how much the commonest training answer may be right more often than the guess."""
OTHER_PROCESS_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    severity: str  # "error" or "warning"
    text: str  # where: the rule, what was found; what to do

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def check(config: RunConfig) -> list[Finding]:
    """Everything that is wrong with the environment of a config, each kind of fault once per split.

    Raises:
        ConfigError: the environment can't be built.
    """
    environment = envs.build(config.env, seed=config.seed)
    found: list[Finding] = []
    streams: dict[str, list[Stream]] = {}
    for split in dict.fromkeys((*SPLITS, taught_split(environment))):
        try:
            streams[split] = _streams(environment, split)
        except Exception as error:  # noqa: BLE001  the environment's code may raise anything
            found.append(_error(f"{split}: must have streams, found {described(error)}"))
            continue
        found += _broken(split, streams[split])
    if any(finding.severity == "error" for finding in found):
        return found
    found += _undetermined(config, streams)
    for split, ones in streams.items():
        found += _judgements(ones)
        found += _queries(ones)
    found += _shared(environment, streams)
    if not any(finding.severity == "error" for finding in found):
        found += _played(config, environment)
    return found


def _error(text: str) -> Finding:
    return Finding(severity="error", text=text)


def _warning(text: str) -> Finding:
    return Finding(severity="warning", text=text)


def _streams(environment: Environment, split: str) -> list[Stream]:
    available = environment.streams(split)
    if available is not None and (not isinstance(available, int) or available < 1):
        raise ValueError(f"streams({split!r}) is None or at least 1, found {available!r}")
    count = STREAMS if available is None else min(available, STREAMS)
    return [environment.stream(split=split, index=index) for index in range(count)]


def _broken(split: str, streams: Sequence[Stream]) -> Iterator[Finding]:
    """Missing fields and impossible values."""
    if len({stream.id for stream in streams}) < len(streams):
        yield _error(f"{split}: each stream has an id of its own, found {[stream.id for stream in streams]}")
    for stream in streams:
        low, high = reward_range(stream)
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 < high):
            yield _error(f"{stream.id}: reward_range is from at most 0 to above 0, found {(low, high)}")
        if not stream.questions:
            yield _error(f"{stream.id}: a stream has at least one question, found none")
        wrong = next((why for one in stream.questions if (why := _wrong(one))), "")
        if wrong:
            yield _error(f"{stream.id}: {wrong}")
            return
        twice = [id for id, times in Counter(one.id for one in stream.questions).items() if times > 1]
        if twice:
            yield _error(f"{stream.id}: each question has an id of its own, found {twice[0]} again")
        answers: dict[str, set[str]] = defaultdict(set)
        for one in stream.questions:
            answers[one.item].add(one.answer)
        differing = next(((item, sorted(said)) for item, said in answers.items() if len(said) > 1), None)
        if differing:
            yield _error(
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


def _undetermined(config: RunConfig, streams: dict[str, list[Stream]]) -> Iterator[Finding]:
    """Streams that are others when they are built again, here or in another process."""
    first = _printed(streams)
    again = _printed(_all_streams(envs.build(config.env, seed=config.seed), tuple(streams)))
    words = [sys.executable, "-c", f"from {__name__} import _print; _print()"]
    sent = json.dumps({"env": config.env.model_dump(mode="json"), "seed": config.seed, "splits": list(streams)})
    variables = os.environ | {
        "PYTHONHASHSEED": str(1 + int(os.environ.get("PYTHONHASHSEED", "0").replace("random", "0"))),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        words, input=sent, capture_output=True, text=True, check=False, timeout=OTHER_PROCESS_S, env=variables
    )
    other = done.stdout.strip().splitlines()[-1] if done.returncode == 0 and done.stdout.strip() else ""
    if again != first:
        yield _error(
            f"{_first_difference(first, again)}: the same arguments must give the same stream, found another when it "
            "was built again; draw from a generator that is seeded by (seed, split, index)"
        )
    elif not other:
        yield _error(f"streams: another process must be able to build them, found {done.stderr.strip()[-300:]}")
    elif other != first:
        yield _error(
            f"{_first_difference(first, other)}: every process must build the same stream, found another in a second "
            "one; the order of a set, and hash(), differ between processes: sort"
        )


def _all_streams(environment: Environment, splits: Sequence[str]) -> dict[str, list[Stream]]:
    return {split: _streams(environment, split) for split in splits}


def _printed(streams: dict[str, list[Stream]]) -> str:
    return json.dumps(
        {
            split: [[stream.id, [asdict(one) for one in stream.questions]] for stream in ones]
            for split, ones in streams.items()
        }
    )


def _print() -> None:
    """Print the streams of the environment that standard input describes."""
    sent = json.load(sys.stdin)
    environment = envs.build(Env.model_validate(sent["env"]), seed=sent["seed"])
    print(_printed(_all_streams(environment, sent["splits"])))


def _first_difference(one: str, other: str) -> str:
    left, right = json.loads(one), json.loads(other)
    for split, streams in left.items():
        for stream, counterpart in zip(streams, right[split], strict=False):
            if stream != counterpart:
                return str(stream[0])
    return "streams"


def _judgements(streams: Sequence[Stream]) -> Iterator[Finding]:
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
                    yield _error(f"{stream.id}: question {one.id}: judge() of {name} raised {described(error)}")
                    return
                if not low <= earned <= high:
                    yield _error(
                        f"{stream.id}: question {one.id}: judge() of {name} must be from {low:g} to {high:g}, found "
                        f"{earned:g}; declare another reward_range"
                    )
                    return
                if submission.text and earned < high:
                    yield _error(
                        f"{stream.id}: question {one.id}: {name}, {one.answer!r}, must be right, found {earned:g}"
                    )
                    return
                if not submission.text and earned >= high:
                    yield _error(f"{stream.id}: question {one.id}: {name} must be wrong, found it right")
                    return


def _queries(streams: Sequence[Stream]) -> Iterator[Finding]:
    """Gold queries that the tool refuses or answers in two ways."""
    for stream in streams:
        for one in [one for one in stream.questions if one.query][:QUESTIONS]:
            try:
                replies = [_found(stream, one) for _ in range(2)]
            except Exception as error:  # noqa: BLE001  the environment's code may raise anything
                yield _error(f"{stream.id}: question {one.id}: the tool raised {described(error)} on {one.query!r}")
                return
            if any(reply.bad_query for reply in replies):
                yield _error(
                    f"{stream.id}: question {one.id}: the tool must take the gold query {one.query!r}, found "
                    f"{replies[0].text!r}"
                )
                return
            if replies[0].text != replies[1].text:
                yield _warning(
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


def _shared(environment: Environment, streams: dict[str, list[Stream]]) -> Iterator[Finding]:
    """Questions that the weights can memorize in training, and that are asked again in validation or test."""
    taught = [
        one for split in {"train", taught_split(environment)} for stream in streams[split] for one in stream.questions
    ]
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for one in taught:
        answers[one.shown][one.answer] += 1
    for split in ("validation", "test"):
        held = [one for stream in streams[split] for one in stream.questions if not one.query]
        known = [one for one in held if one.shown in answers]
        if not known:
            continue
        right = sum(answers[one.shown].most_common(1)[0][0] == one.answer for one in known) / len(known)
        guessed = sum(one.guess_probability for one in known) / len(known)
        if right > guessed + MEMORIZED:
            yield _error(
                f"{split}: training must not answer its questions, found {len(known)} of {len(held)} in training, where "
                f"the same text has the same answer in {right:.0%} (a guess: {guessed:.0%}), such as {known[0].text!r}; "
                "keep questions apart, or draw their answers anew in every stream"
            )


def _played(config: RunConfig, environment: Environment) -> Iterator[Finding]:
    rules = build_rules(
        environment,
        env=config.env,
        agent=config.agent,
        memory=config.memory,
        model=config.model.path if config.model.path.is_dir() else None,
        seed=config.seed,
    )
    chosen = plays(environment, split="validation", sessions=SESSIONS)
    streams = [environment.stream(split="validation", index=one.index) for one in chosen]
    questions = [stream.questions[: one.sessions] for stream, one in zip(streams, chosen, strict=True)]
    first = best_first(
        questions,
        prices=[rules.prices.at(stream.id) for stream in streams],
        reliability=rules.expert.reliability,
    )
    totals: dict[str, float] = {}
    for name in ("oracle", *SIMPLE):
        policy = reference(name, environment, Habits(seed=config.seed, first=first))
        try:
            sessions = play_sessions(policy, environment, split="validation", plays=chosen, rules=rules)
            totals[name] = score(sessions, seed=config.seed).total_score
        except AgileError as error:
            yield _error(f"validation: {name} must be able to play, found {described(error)}")
            return
        failed = [one for one in sessions if one.ending is Ending.FAILED]
        cut = [one for one in sessions if one.ending is Ending.CUT]
        if failed:
            yield _error(f"validation: no session of {name} may fail, found {len(failed)}, such as: {failed[0].error}")
            return
        if cut:
            yield _warning(
                f"validation: {len(cut)} of {len(sessions)} sessions of {name} do not fit into agent.session_tokens "
                f"({config.agent.session_tokens}) or agent.turns ({config.agent.turns}); raise them"
            )
            return
    best = max(SIMPLE, key=lambda name: totals[name])
    if totals["oracle"] < totals[best] + ADVANTAGE:
        yield _warning(
            f"validation: there is nothing to learn about asking: the oracle's total is {totals['oracle']:.3f}, and "
            f"{best} has {totals[best]:.3f}; let questions recur (`item`), set guess and guess_probability, or another "
            "env.advice_cost"
        )
