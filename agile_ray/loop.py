"""The training loop. It depends on protocols, not on Ray, so tests run it with fakes in milliseconds."""

from collections.abc import Callable, Sequence

from agile_ray.config import RunConfig
from agile_ray.errors import StarvedError
from agile_ray.evaluation import failures
from agile_ray.evaluation.choice import validation_score
from agile_ray.protocols import Checkpoints, Credits, Learners, Recorder, Rollouts
from agile_ray.seeds import derive
from agile_ray.segments import cut
from agile_ray.types import Demonstration, RunState


def imitate(
    config: RunConfig,
    state: RunState,
    batches: Sequence[Sequence[Demonstration]],
    *,
    learners: Learners,
    checkpoints: Checkpoints,
    recorder: Recorder,
    stopping: Callable[[], bool],
    progress: Callable[[int], None],
) -> RunState:
    """SFT: one optimizer step on each remaining batch of the teacher's demonstrations.

    Args:
        state: progress of the run; the first `state.imitation_steps` batches are already learned.
        batches: of the whole run, in order.
        stopping: checked before each step; if True, saves a checkpoint and returns.
        progress: called with the number of finished steps.

    Raises:
        RankLostError: a learner rank died or hangs. Fresh ranks resume from the last checkpoint.
        LearnerError: a loss is not finite.
    """
    while state.imitation_steps < len(batches) and not stopping():
        with recorder.timed("imitate"):
            update = learners.imitate(batches[state.imitation_steps], step=state.imitation_steps, steps=len(batches))
        state = state.imitated()
        recorder.imitation(state, update)
        progress(state.imitation_steps)
        if state.imitation_steps % config.imitation.checkpoint_every == 0:
            checkpoints.save(state, score=None)
    checkpoints.save(state, score=None)
    return state


def train(
    config: RunConfig,
    state: RunState,
    *,
    rollouts: Rollouts,
    learners: Learners,
    credit: Credits,
    checkpoints: Checkpoints,
    recorder: Recorder,
    stopping: Callable[[], bool],
) -> RunState:
    """PPO: collect, cut, score, credit, learn, publish, until `loop.iterations` are done.

    Args:
        state: progress of the run, to which all parts were restored.
        stopping: checked after each iteration; if True, saves a checkpoint and returns.

    Raises:
        EngineError: a rollout engine died. The same run name resumes from the last checkpoint.
        RankLostError: a learner rank died or hangs. Fresh ranks resume from there.
        LearnerError: a loss is not finite.
        DeadlineError: one of them took too long.
        StarvedError: none of the collected sessions can be trained on, an expert answers no ask of an iteration, or
            none of a validation can be scored.
        SyncError: an engine does not serve the weights it was given.
    """
    with recorder.timed("publish"):
        rollouts.load(learners.publish(state.version))  # so that every sampled token names its version

    stop = stopping()
    while state.iteration < config.loop.iterations and not stop:
        with recorder.timed("collect"):
            sessions = rollouts.collect()
        if gone := failures.gone(sessions):
            raise StarvedError(f"iteration {state.iteration + 1}: {gone}")
        segments = [segment for session in sessions for segment in cut(session)]
        if not segments:
            raise StarvedError(
                f"iteration {state.iteration + 1}: {len(sessions)} sessions, none to train on"
                f"{failures.summary(sessions)}"
            )

        with recorder.timed("score"):
            scores, prefix_scores = learners.score(segments, credit.prefixes(sessions))
        assigned = credit.assign(sessions, segments, scores, prefix_scores)
        with recorder.timed("learn"):
            seed, progress = derive(config.seed, "learn", state.iteration), state.iteration / config.loop.iterations
            update = learners.learn(assigned.rows, seed=seed, progress=progress)
        state = state.next()
        with recorder.timed("publish"):
            rollouts.load(learners.publish(state.version))

        recorder.iteration(state, sessions=sessions, assigned=assigned, update=update)
        stop = stopping()  # read once, so that a run that stops here has saved a checkpoint
        last = state.iteration == config.loop.iterations
        every = config.loop.evaluate_every
        if every is not None and (last or state.iteration % every == 0):
            with recorder.timed("validate"):
                validation = rollouts.evaluate(
                    split="validation", sessions=config.evaluate.validation_sessions, greedy=True
                )
            recorder.evaluation(state, "validation", validation)
            checkpoints.save(state, score=validation_score(state.iteration, validation))
        elif last or stop or state.iteration % config.loop.checkpoint_every == 0:
            checkpoints.save(state, score=None)

    return state
