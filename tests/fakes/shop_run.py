"""A run of the shop as a training stores it: scripts play it, and what a model would compute is drawn from a seed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agile_ray.agent.functions import Function
from agile_ray.config import Agent, Credit, Env, Memory, Model, Run, RunConfig
from agile_ray.record import evaluations, provenance, store
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.references import Habits, reference
from agile_ray.segments import cut
from agile_ray.types import CreditShare, Ending, Segment, Session, TokenScores, TrainingRow
from envs.shop import Shop
from launch.plan.light_tokenizer import LightTokenizer
from tests.fakes.model_folder import encoder, write_tokenizer
from tests.fakes.streams import play_streams, script_rules

SHOP = Shop(seed=0)
STREAMS = 2
"""Of each policy, on test, and of each iteration, on train."""
ITERATIONS = (8, 9, 10)
THRESHOLD = 0.46
"""Of `linked` credit."""
ODD = "<img src=x onerror=alert(1)>"
"""A wrong answer: as markup, it would load a picture and run a script."""
GONE = "ToolError: the table is gone"


def write_shop_run(folder: Path) -> RunFolder:
    """Store `ppo`, which asks where it should and makes some mistakes, `sft`, which asks at random, and iterations."""
    config = RunConfig(
        run=Run(name="played", folder=folder),
        model=Model(path=folder / "gone"),
        env=Env(name="shop"),
        credit=Credit(mode="linked", threshold=THRESHOLD),
    )
    run = RunFolder.of(config)
    provenance.write(config)
    run.sft.path.mkdir(parents=True)
    write_tokenizer(run.sft.path, encoder(_texts()))
    tokenizer = LightTokenizer(run.sft.path)
    random = np.random.default_rng(29)
    for entry, name in (("ppo", "oracle"), ("sft", "random")):
        sessions = [
            _scored(one, tokenizer, random, version=10) for one in _play(name, "test", range(STREAMS), tokenizer)
        ]
        evaluations.keep(run, entry, _with_mistakes(sessions) if entry == "ppo" else sessions)
    for iteration in ITERATIONS:
        indices = range(STREAMS * iteration, STREAMS * (iteration + 1))
        played = _play("oracle", "train", indices, tokenizer)
        sessions = [_scored(one, tokenizer, random, version=iteration - 1) for one in played]
        rows = [row for one in sessions for row in _rows(one, sessions, random)]
        advantages = [random.normal(size=row.segment.actions).astype(np.float32) for row in rows]
        store.write(run, iteration, sessions, rows, advantages)
    return run


def _texts() -> Iterable[str]:
    """What is said in the streams that are played: frequent words become one token."""
    for split, count in (("test", STREAMS), ("train", STREAMS * (max(ITERATIONS) + 1))):
        for index in range(count):
            for question in SHOP.stream(split=split, index=index).questions:
                yield f"{question.shown} {question.text} {question.answer} {question.knowledge} {question.query}"
    yield from ["progress 10 questions knowledge history : none advice rows"] * 3


def _play(name: str, split: str, indices: Iterable[int], tokenizer: LightTokenizer) -> list[Session]:
    rules = script_rules(SHOP, agent=Agent(session_tokens=4096), memory=Memory(threshold=0.65))
    rules = replace(rules, tokenizer=tokenizer)
    policy = reference(name, SHOP, Habits(asked_share=0.3))
    return play_streams(policy, SHOP, split=split, indices=indices, rules=rules, price=300)


def _scored(one: Session, tokenizer: LightTokenizer, random: np.random.Generator, *, version: int) -> Session:
    """The session with what an engine reports: logprobs, versions, and probabilities of asking that fit the asks."""
    asks = tokenizer.function_id(Function.SEEK_ADVICE)
    turns = []
    for turn in one.turns:
        size = len(turn.completion_ids)
        asked = float(turn.completion_ids[0] == asks)
        turns.append(
            replace(
                turn,
                logprobs=-random.exponential(0.2, size).astype(np.float32),
                versions=np.full(size, version, np.int32),
                ask_probability=(asked + random.random()) / 2,
            )
        )
    return replace(one, turns=tuple(turns))


def _with_mistakes(sessions: Sequence[Session]) -> list[Session]:
    """Some sessions wrong although memory held the answer, for each of the reasons there are; and one that failed."""
    found = list(sessions)
    known = [i for i, one in enumerate(found) if one.hindsight.known and not one.asks and one.reads][::4]
    for number, index in enumerate(known):
        one = found[index]
        other = tuple(use for use in one.reads if use.writer not in one.hindsight.same_item)
        reads = (one.reads, (), other or one.reads)[number % 3]
        found[index] = replace(one, correct=False, answer=ODD, reads=reads)
    last = len(found) - 1
    found[last] = replace(found[last], ending=Ending.FAILED, error=GONE, answer=None, correct=False)
    return found


def _rows(one: Session, sessions: Sequence[Session], random: np.random.Generator) -> list[TrainingRow]:
    """The session's training rows, with credit where it wrote to memory, from those who read it and for later ones."""
    shares = tuple(_shares(one, sessions, random))
    credit = sum(share.amount for share in shares) + float(random.uniform(-0.2, 1.0)) if one.writes else 0.0
    decided = one.hindsight.decided_after
    found, before = [], 0
    for segment in cut(one):
        here = 0 < decided - before <= segment.actions
        found.append(
            TrainingRow(
                segment=segment,
                scores=_scores(segment, random),
                credit=credit if here else 0.0,
                credit_baseline=0.0,
                decided_after=decided - before if here else 0,
                wrote=bool(one.writes),
                credit_shares=shares if here else (),
            )
        )
        before += segment.actions
    return found


def _shares(one: Session, sessions: Sequence[Session], random: np.random.Generator) -> Iterator[CreditShare]:
    for other in sessions:
        alone = [without for without in other.hindsight.counterfactuals if without.writers == (one.position,)]
        if other.stream == one.stream and any(without.similarity >= THRESHOLD for without in alone):
            yield CreditShare(reader=other.position, amount=float(random.uniform(-0.2, 0.7)))


def _scores(segment: Segment, random: np.random.Generator) -> TokenScores:
    logprobs = segment.behavior_logprobs[segment.action_mask]
    drawn = random.random((3, segment.actions), np.float32)
    return TokenScores(
        logprobs=logprobs - drawn[0] / 9, reference_logprobs=logprobs - drawn[0], own_values=drawn[1],
        write_probabilities=drawn[2],
    )  # fmt: skip
