"""The end of a training: the learned policy, the SFT policy and the reference policies on the same test questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agile_ray.agent.environment import Environment
from agile_ray.agent.expert import COLLEAGUE
from agile_ray.agent.rules import Rules
from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError, StarvedError
from agile_ray.evaluation.plays import plays
from agile_ray.evaluation.score import score
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import Checkpoint, best_checkpoint, latest_checkpoint, read_checkpoint
from agile_ray.record.evaluations import Measured, PlayedParts
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.guided import Guide, GuideName
from agile_ray.scripted.optimum import best_first
from agile_ray.scripted.references import Habits, play_sessions, reference
from agile_ray.types import RunState, Session
from launch.report import files, tables, wording
from launch.report.console import plain_console
from launch.run.assembly import Parts
from rollout.experts import read_recording

SPLIT = "test"
VALIDATION_SESSIONS = "evaluate.validation_sessions"
"""Key that affects what is played on validation, or chosen by it."""
ENTRIES: tuple[str, ...] = (
    "always_ask",
    "never_ask",
    "random",
    "non_adaptive",
    "ask_unless_search",
    "oracle",
    "non_adaptive_best",
)
"""The reference policies; a run with a colleague has `always_colleague`, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation by the engines."""

    entry: str  # its name
    split: str
    sessions: int | None  # None: all
    greedy: bool
    measured: Measured
    guide: Guide | None = None  # script that decides when to ask; None: the policy decides


def tests(entry: str, config: RunConfig, state: RunState) -> list[Evaluation]:
    """The evaluations of a policy on the test questions, greedy and sampled.

    Args:
        entry: name of the policy.
        config: of the run.
        state: when the policy had its weights.
    """
    measured, sessions = Measured.of(config, state), config.evaluate.sessions
    return [
        Evaluation(entry=entry, split=SPLIT, sessions=sessions, greedy=True, measured=measured),
        Evaluation(entry=f"{entry}_sampled", split=SPLIT, sessions=sessions, greedy=False, measured=measured),
    ]


def guided(name: GuideName, config: RunConfig, state: RunState) -> Evaluation:
    """The evaluation of a policy on the test questions, greedy, where a script decides when to ask."""
    return Evaluation(
        entry=name,
        split=SPLIT,
        sessions=config.evaluate.sessions,
        greedy=True,
        measured=Measured.of(config, state),
        guide=Guide(name=name),
    )


def starting(config: RunConfig, state: RunState) -> Evaluation:
    """The evaluation of the SFT policy by which lanes are spread, sampled on validation."""
    return Evaluation(
        entry=evaluations.STARTING,
        split="validation",
        sessions=config.evaluate.validation_sessions,
        greedy=False,
        measured=Measured.of(config, state, VALIDATION_SESSIONS),
    )


def is_missing(run: RunFolder, one: Evaluation) -> bool:
    """Whether an evaluation is not stored, or only of other weights or settings."""
    return not evaluations.is_kept(run, one.entry, one.measured)


def play(parts: Parts, one: Evaluation) -> None:
    """Make an evaluation of the weights that the engines serve, and store its sessions.

    What is stored of the same weights is not played again; an evaluation that was stopped goes on.

    Raises:
        StarvedError: none of its sessions can be scored; they are played again at the next start.
    """
    if not evaluations.begin(parts.folder, one.entry, one.measured):
        parts.progress.say(f"evaluation {one.entry} is stored")
        return
    played = PlayedParts(parts.folder.evaluation_parts(one.entry))
    if played.sessions:
        parts.progress.say(f"evaluation {one.entry} goes on after {played.sessions} sessions")
    with parts.recorder.timed("evaluate"):
        sessions = parts.rollouts.evaluate(
            split=one.split, sessions=one.sessions, greedy=one.greedy, parts=played, guide=one.guide
        )
    try:
        parts.recorder.evaluation(one.measured.state, one.entry, sessions)
    except StarvedError:
        evaluations.discard(parts.folder, one.entry)
        raise
    evaluations.keep(parts.folder, one.entry, sessions)


def compare(parts: Parts, state: RunState) -> None:
    """Evaluate the best checkpoint and the reference policies, write the report and show it."""
    served = _evaluate_sft_again(parts) or state
    best = best_checkpoint(parts.folder)
    if best is not None:
        parts.progress.say(wording.choice(best.choice))
        evaluations.keep_choice(parts.folder, best.choice)
    chosen = best.checkpoint if best is not None else latest_checkpoint(parts.folder, parts.folder.sft)
    measured = state if chosen is None else chosen.state
    if chosen is not None and measured != served:
        _serve(parts, chosen)
    needed = tests("ppo", parts.config, measured)
    if searches(parts.config, parts.environment):
        needed.append(guided("ask_unless_own_search", parts.config, measured))
    for one in needed:
        play(parts, one)
    with parts.recorder.timed("references"):
        _evaluate_references(parts, measured)
    parts.recorder.close()
    found = files.compose(parts.folder)
    files.write(parts.folder, found)
    tables.show(found, plain_console())
    print(parts.folder.report_page)


def _evaluate_sft_again(parts: Parts) -> RunState | None:
    """Evaluate the SFT policy again if a key that affects evaluations has changed since it was evaluated.

    All policies must play the same test questions, or their totals can't be compared.

    Returns:
        when the policy had the weights that are served now; None: nothing was played, because nothing has changed, or
        the learners of the SFT policy are gone.
    """
    start = read_checkpoint(parts.folder.sft)
    if isinstance(start, str):
        return None
    again = [one for one in tests("sft", parts.config, start.state) if is_missing(parts.folder, one)]
    if not again:
        return None
    _serve(parts, start)
    for one in again:
        play(parts, one)
    return start.state


def _serve(parts: Parts, checkpoint: Checkpoint) -> None:
    parts.learners.load(checkpoint.folder.learners)
    parts.rollouts.load(parts.learners.publish(checkpoint.state.version))


def _evaluate_references(parts: Parts, state: RunState) -> None:
    """Play the reference policies whose evaluation beside these weights is not stored, and store it."""
    measured = Measured.of(parts.config, state, VALIDATION_SESSIONS)  # decides `non_adaptive_best`
    trained = evaluations.read(parts.folder, "ppo")
    for entry in entries_of(parts.config):
        if evaluations.begin(parts.folder, entry, measured):
            played = references(parts.config, parts.environment, parts.rules, trained=trained, entries=(entry,))
            evaluations.keep(parts.folder, entry, played[entry])


def entries_of(config: RunConfig) -> tuple[str, ...]:
    """Names of the reference policies of a run."""
    return ENTRIES if config.env.expert.colleague is None else (*ENTRIES, "always_colleague")


def references(
    config: RunConfig,
    environment: Environment,
    rules: Rules,
    *,
    trained: list[Session],
    entries: Sequence[str] | None = None,
) -> dict[str, list[Session]]:
    """Play reference policies on the questions of the final evaluation, by the rules of the run.

    Args:
        rules: of the run's lanes.
        entries: names of the policies; None: all of the run's.
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
        prices=[rules.prices.quotes(stream.id, [one.kind for one in stream.questions]) for stream, _ in validation],
        reliability=rules.expert.reliability,
    )
    names = entries_of(config) if entries is None else entries
    habits = dict.fromkeys(names, like_trained)
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
        for name in names
    }


def searches(config: RunConfig, environment: Environment) -> bool:
    """Whether the tool answers questions of the final evaluation."""
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    streams = (environment.stream(split=SPLIT, index=play.index).questions[: play.sessions] for play in chosen)
    return not _tool_is_barred(config) and any(question.query for questions in streams for question in questions)


def _tool_is_barred(config: RunConfig) -> bool:
    return any(name in config.agent.bar for name in ("SearchProduct", "Search", "CallTool"))


def check_advice(config: RunConfig, environment: Environment) -> None:
    """Refuse recordings without advice on any question of the final evaluation: no ask there could be scored.

    Raises:
        ConfigError: one has none.
    """
    chosen = plays(environment, split=SPLIT, sessions=config.evaluate.sessions)
    for key, path in config.env.expert.recordings.items():
        recorded = read_recording(path, to="" if key == "env.expert" else COLLEAGUE)
        streams = ((environment.stream(split=SPLIT, index=play.index), play.sessions) for play in chosen)
        if not any(
            recorded.knows(question, stream=stream.id)
            for stream, sessions in streams
            for question in stream.questions[:sessions]
        ):
            raise ConfigError(
                f"{key}: {path} must hold advice on questions of the {SPLIT} split, found none; name a finished run "
                "with the same environment, seed and categories"
            )
