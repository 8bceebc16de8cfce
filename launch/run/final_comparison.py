"""The end of a training: the learned policy, the SFT policy and the reference policies on the same test questions."""

from collections.abc import Sequence
from dataclasses import replace

from agile_ray.agent.environment import Environment
from agile_ray.config import RunConfig
from agile_ray.errors import StarvedError
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import best_checkpoint
from agile_ray.record.evaluations import Measured, PlayedParts
from agile_ray.scripted.optimum import best_first
from agile_ray.scripted.references import Habits, play_sessions, reference, script_rules
from agile_ray.types import RunState, Session
from launch.report import files, tables
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


def compare(parts: Parts, state: RunState) -> None:
    """Evaluate the best checkpoint and the reference policies, write the report and show it."""
    leader, measured = best_checkpoint(parts.folder), state
    if leader is not None and leader.state != state:
        measured = leader.state
        parts.progress.say(f"best on validation: {leader.folder.path.name}")
        parts.learners.load(leader.folder.learners)
        parts.rollouts.load(parts.learners.publish(leader.state.version))
    evaluate_policy("ppo", parts, measured)
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
            played = references(parts.config, parts.environment, trained=trained, entries=(entry,))
            evaluations.keep(parts.folder, entry, played[entry])


def references(
    config: RunConfig, environment: Environment, *, trained: list[Session], entries: Sequence[str] = ENTRIES
) -> dict[str, list[Session]]:
    """Play reference policies on the questions of the final evaluation.

    Args:
        entries: names of the policies.
        trained: sessions of the trained policy. `random` asks in the same share of sessions. `non_adaptive` asks as
            often, in the first sessions of each stream. `non_adaptive_best` asks in the first K, with the best K on
            validation.
    """
    asks = round(sum(session.asks for session in trained) / len({session.stream for session in trained}))
    like_trained = Habits(seed=config.seed, asked_share=score(trained).asked_share, first=asks)
    validation = [
        environment.stream(split="validation", index=play.index).questions
        for play in plays(environment, split="validation", sessions=config.evaluate.validation_sessions)
    ]
    habits = dict.fromkeys(ENTRIES, like_trained)
    habits["non_adaptive_best"] = replace(like_trained, first=best_first(validation, price=config.env.price))
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    rules = script_rules(environment, agent=config.agent, memory=config.memory)
    return {
        name: play_sessions(
            reference(name.removesuffix("_best"), environment, habits[name]),
            environment,
            split=SPLIT,
            plays=chosen,
            rules=rules,
            price=config.env.price,
        )
        for name in entries
    }
