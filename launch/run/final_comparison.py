"""The end of a training: the learned policy, the SFT policy and the reference policies on the same test questions."""

from dataclasses import replace

from agile_ray.agent.environment import Environment
from agile_ray.config import RunConfig
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import best_checkpoint
from agile_ray.scripted.optimum import best_first
from agile_ray.scripted.references import Habits, play_sessions, reference, script_rules
from agile_ray.types import RunState, Session
from launch.report import files, tables, wording
from launch.report.console import plain_console
from launch.run.assembly import Parts

SPLIT = "test"
NAMES: tuple[str, ...] = ("always_ask", "never_ask", "random", "non_adaptive", "ask_unless_search", "oracle")


def evaluate_policy(entry: str, parts: Parts, state: RunState) -> None:
    """Evaluate the weights that the engines serve, greedy and sampled, and store the sessions.

    Args:
        entry: name of the policy.
        parts: of the training.
        state: when the policy had these weights.
    """
    for name, greedy in ((entry, True), (f"{entry}_sampled", False)):
        with parts.recorder.timed("evaluate"):
            sessions = parts.rollouts.evaluate(split=SPLIT, sessions=parts.config.evaluate.sessions, greedy=greedy)
        evaluations.keep(parts.folder, name, sessions)
        parts.recorder.evaluation(state, name, sessions)


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
    with parts.recorder.timed("references"):
        for name, sessions in references(
            parts.config, parts.environment, trained=evaluations.kept(parts.folder)["ppo"]
        ).items():
            evaluations.keep(parts.folder, name, sessions, tokens=False)
    parts.recorder.close()
    found = files.compose(parts.folder)
    files.write(parts.folder, found)
    tables.show(found, plain_console())
    print(parts.folder.report_page)


def references(config: RunConfig, environment: Environment, *, trained: list[Session]) -> dict[str, list[Session]]:
    """Play every reference policy on the questions of the final evaluation.

    Args:
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
    policies = dict.fromkeys(NAMES, like_trained)
    policies["non_adaptive_best"] = replace(like_trained, first=best_first(validation, price=config.env.price))
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    rules = script_rules(environment, agent=config.agent, memory=config.memory, tool_s=config.env.tool_s)
    return {
        name: play_sessions(
            reference(name.removesuffix("_best"), environment, habits),
            environment,
            split=SPLIT,
            plays=chosen,
            rules=rules,
            price=config.env.price,
        )
        for name, habits in policies.items()
    }
