"""The end of a training: the learned policy, the SFT policy and the reference policies on the same test questions."""

from collections.abc import Sequence
from dataclasses import replace

from agile_ray.agent.environment import Environment
from agile_ray.agent.rules import Rules
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError, StarvedError
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import best_checkpoint
from agile_ray.record.evaluations import Measured, PlayedParts
from agile_ray.replay.expert import RecordedExpert
from agile_ray.scripted.guided import Guide, GuideName
from agile_ray.scripted.optimum import best_first
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.types import RunState, Session
from launch.report import files, tables, wording
from launch.report.console import plain_console
from launch.run.assembly import Parts

SPLIT = "test"
ENTRIES: tuple[str, ...] = (
    "always_ask",
    "never_ask",
    "random",
    "non_adaptive",
    "ask_unless_search",
    "oracle",
    "non_adaptive_best",
)
"""The reference policies."""


def evaluate_policy(entry: str, parts: Parts, state: RunState) -> None:
    """Evaluate the weights that the engines serve, greedy and sampled, and store the sessions.

    What is stored of the same weights is not played again; an evaluation that was stopped goes on.

    Args:
        entry: name of the policy.
        parts: of the training.
        state: when the policy had these weights.

    Raises:
        StarvedError: none of its sessions can be scored; they are played again at the next start.
    """
    for name, greedy in ((entry, True), (f"{entry}_sampled", False)):
        if not evaluations.begin(parts.folder, name, Measured.of(parts.config, state)):
            parts.progress.say(f"evaluation {name} is stored")
            continue
        played = PlayedParts(parts.folder.evaluation_parts(name))
        if played.sessions:
            parts.progress.say(f"evaluation {name} goes on after {played.sessions} sessions")
        with parts.recorder.timed("evaluate"):
            sessions = parts.rollouts.evaluate(
                split=SPLIT, sessions=parts.config.evaluate.sessions, greedy=greedy, parts=played
            )
        try:
            parts.recorder.evaluation(state, name, sessions)
        except StarvedError:
            evaluations.discard(parts.folder, name)
            raise
        evaluations.keep(parts.folder, name, sessions)


def evaluate_guided(name: GuideName, parts: Parts, state: RunState) -> None:
    """Evaluate the weights that the engines serve where a script decides when to ask, greedily; store the sessions.

    Args:
        name: of the guide, and of the entry.
        parts: of the training.
        state: when the policy had these weights.
    """
    if not evaluations.begin(parts.folder, name, Measured.of(parts.config, state)):
        parts.progress.say(f"evaluation {name} is stored")
        return
    played = PlayedParts(parts.folder.evaluation_parts(name))
    with parts.recorder.timed("evaluate"):
        sessions = parts.rollouts.evaluate(
            split=SPLIT, sessions=parts.config.evaluate.sessions, greedy=True, parts=played, guide=Guide(name=name)
        )
    evaluations.keep(parts.folder, name, sessions)


def evaluate_start(parts: Parts, state: RunState) -> None:
    """Evaluate the SFT policy, which the engines serve, sampled on validation, and store the sessions."""
    with parts.recorder.timed("evaluate"):
        sessions = parts.rollouts.evaluate(
            split="validation", sessions=parts.config.evaluate.validation_sessions, greedy=False
        )
    evaluations.keep(parts.folder, evaluations.STARTING, sessions)
    parts.recorder.evaluation(state, evaluations.STARTING, sessions)


def compare(parts: Parts, state: RunState) -> None:
    """Evaluate the best checkpoint and the reference policies, write the report and show it."""
    best, measured = best_checkpoint(parts.folder), state
    if best is not None:
        parts.progress.say(wording.choice(best.choice))
        evaluations.keep_choice(parts.folder, best.choice)
        measured = best.checkpoint.state
    if best is not None and measured != state:
        parts.learners.load(best.checkpoint.folder.learners)
        parts.rollouts.load(parts.learners.publish(measured.version))
    evaluate_policy("ppo", parts, measured)
    if searches(parts.config, parts.environment):
        evaluate_guided("ask_unless_own_search", parts, measured)
    with parts.recorder.timed("references"):
        _evaluate_references(parts, measured)
    parts.recorder.close()
    found = files.compose(parts.folder)
    files.write(parts.folder, found)
    tables.show(found, plain_console())
    print(parts.folder.report_page)


def _evaluate_references(parts: Parts, state: RunState) -> None:
    """Play the reference policies whose evaluation beside these weights is not stored, and store it."""
    measured = Measured.of(parts.config, state, "evaluate.validation_sessions")  # decides `non_adaptive_best`
    trained = evaluations.read(parts.folder, "ppo")
    for entry in ENTRIES:
        if evaluations.begin(parts.folder, entry, measured):
            played = references(parts.config, parts.environment, parts.rules, trained=trained, entries=(entry,))
            evaluations.keep(parts.folder, entry, played[entry])


def references(
    config: RunConfig,
    environment: Environment,
    rules: Rules,
    *,
    trained: list[Session],
    entries: Sequence[str] = ENTRIES,
) -> dict[str, list[Session]]:
    """Play reference policies on the questions of the final evaluation, by the rules of the run.

    Args:
        rules: of the run's lanes.
        entries: names of the policies.
        trained: sessions of the trained policy. `random` asks in the same share of sessions. `non_adaptive` asks as
            often, in the first sessions of each stream. `non_adaptive_best` asks in the first K, with the best K on
            validation.
    """
    asks = round(sum(session.asks for session in trained) / len({session.stream for session in trained}))
    like_trained = Habits(seed=config.seed, asked_share=score(trained).asked_share, first=asks)
    validation = [
        (environment.stream(split="validation", index=play.index), play.sessions)
        for play in plays(environment, split="validation", sessions=config.evaluate.validation_sessions)
    ]
    best = best_first(
        [
            [replace(one, query="") if _tool_is_barred(config) else one for one in stream.questions[:sessions]]
            for stream, sessions in validation
        ],
        prices=[rules.prices.at(stream.id) for stream, _ in validation],
        reliability=rules.expert.reliability,
    )
    habits = dict.fromkeys(ENTRIES, like_trained)
    habits["non_adaptive_best"] = replace(like_trained, first=best)
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    return {
        name: play_sessions(
            reference(name.removesuffix("_best"), environment, habits[name]),
            environment,
            split=SPLIT,
            plays=chosen,
            rules=rules,
        )
        for name in entries
    }


def searches(config: RunConfig, environment: Environment) -> bool:
    """Whether the tool answers questions of the final evaluation."""
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    streams = (environment.stream(split=SPLIT, index=play.index).questions[: play.sessions] for play in chosen)
    return not _tool_is_barred(config) and any(question.query for questions in streams for question in questions)


def _tool_is_barred(config: RunConfig) -> bool:
    return any(name in config.agent.bar for name in ("SearchProduct", "Search"))


def check_advice(config: RunConfig, environment: Environment) -> None:
    """Refuse a recording without advice on any question of the final evaluation: no ask there could be scored.

    Raises:
        ConfigError: it has none.
    """
    if config.env.recorded is None:
        return
    recorded = RecordedExpert(config.env.recorded)
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    streams = ((environment.stream(split=SPLIT, index=play.index), play.sessions) for play in chosen)
    if not any(
        recorded.knows(question, stream=stream.id)
        for stream, sessions in streams
        for question in stream.questions[:sessions]
    ):
        raise ConfigError(
            f"env.recorded: {config.env.recorded} must hold advice on questions of the {SPLIT} split, found none; name "
            "a finished run with the same environment, seed and categories"
        )
