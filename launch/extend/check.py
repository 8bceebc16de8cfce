"""Plays an environment without engine or Ray, and says what is wrong with it.

    error       the environment breaks its contract: a run would fail, or learn something else than what is meant
    warning     a run would work, but may have nothing to learn, or its test may not test it

What is looked at: the first streams of every split, their questions, judge and tool; the same streams in another
process; what splits share; and reference policies on validation.
"""

from collections.abc import Iterator

import envs
from agile_ray.agent.environment import Environment, Stream, taught_split
from agile_ray.config import RunConfig
from agile_ray.errors import AgileError, described
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.scripted.optimum import best_first
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.types import Ending
from launch.extend import contract, finding
from launch.extend.finding import Finding
from launch.extend.streams import first_streams, shared, undetermined
from rollout.rules import build_rules

SESSIONS = 200
"""Sessions of each reference policy."""
SPLITS = ("train", "validation", "test")
SIMPLE = ("always_ask", "never_ask", "ask_unless_search", "non_adaptive")
LOST = 0.1
"""Share of sessions that may not fit; imitation refuses to begin with more."""
ADVANTAGE = 0.005
"""Least total by which the oracle must beat the best simple policy, reward per session."""


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
            streams[split] = first_streams(environment, split)
        except Exception as error:  # noqa: BLE001  the environment's code may raise anything
            found.append(finding.error(f"{split}: must have streams, found {described(error)}"))
            continue
        found += contract.broken(split, streams[split])
    if any(one.severity == "error" for one in found):
        return found
    found += undetermined(config, streams)
    for ones in streams.values():
        found += contract.judgements(ones)
        found += contract.queries(ones)
    found += shared(environment, streams)
    if not any(one.severity == "error" for one in found):
        found += _played(config, environment)
    return found


def _played(config: RunConfig, environment: Environment) -> Iterator[Finding]:
    rules = build_rules(
        environment,
        env=config.env,
        agent=config.agent,
        memory=config.memory,
        model=config.model.path if (config.model.path / "tokenizer.json").is_file() else None,
        seed=config.seed,
    )
    chosen = plays(environment, split="validation", sessions=SESSIONS)
    streams = [environment.stream(split="validation", index=one.index) for one in chosen]
    questions = [stream.questions[: one.sessions] for stream, one in zip(streams, chosen, strict=True)]
    first = best_first(
        questions,
        prices=[rules.prices.quotes(stream.id, [one.kind for one in stream.questions]) for stream in streams],
        reliability=rules.expert.reliability,
    )
    totals: dict[str, float] = {}
    for name in ("oracle", *SIMPLE):
        policy = reference(name, environment, Habits(seed=config.seed, first=first))
        try:
            sessions = play_sessions(policy, environment, split="validation", plays=chosen, rules=rules)
            totals[name] = score(sessions, seed=config.seed).total_score
        except AgileError as error:
            yield finding.error(f"validation: {name} must be able to play, found {described(error)}")
            return
        failed = [one for one in sessions if one.ending is Ending.FAILED]
        cut = [one for one in sessions if one.ending is Ending.CUT]
        if failed:
            yield finding.error(
                f"validation: no session of {name} may fail, found {len(failed)}, such as: {failed[0].error}"
            )
            return
        if cut:
            severe = len(cut) > LOST * len(sessions)
            yield (finding.error if severe else finding.warning)(
                f"validation: {len(cut)} of {len(sessions)} sessions of {name} do not fit into agent.session_tokens "
                f"({config.agent.session_tokens}) or agent.turns ({config.agent.turns}); raise them"
            )
            return
    best = max(SIMPLE, key=lambda name: totals[name])
    if totals["oracle"] < totals[best] + ADVANTAGE:
        yield finding.warning(
            f"validation: there is nothing to learn about asking: the oracle's total is {totals['oracle']:.3f}, and "
            f"{best} has {totals[best]:.3f}; let questions recur (`item`), set guess and guess_probability, or another "
            "env.advice_cost"
        )
