"""The training loop. It knows protocols, not Ray: a test runs it with fakes in milliseconds."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from agile_ray.config import RunConfig
from agile_ray.credit import assign
from agile_ray.errors import StarvedError
from agile_ray.protocols import Checkpoints, Learners, Recorder, Rollouts
from agile_ray.seeds import derive
from agile_ray.segments import cut
from agile_ray.types import Demonstration, RunState, Session


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
    """SFT: one optimizer step on each batch of the teacher's demonstrations that is still to be learned.

    Args:
        stopping: asked after each step; True saves a checkpoint and returns.
        progress: told how many steps are done.

    Raises:
        LearnerError: a learner rank died. The same run name resumes from the last checkpoint.
    """
    while state.imitation_steps < len(batches) and not stopping():
        with recorder.timed("imitate"):
            update = learners.imitate(batches[state.imitation_steps], step=state.imitation_steps)
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
    checkpoints: Checkpoints,
    recorder: Recorder,
    stopping: Callable[[], bool],
    past: Iterable[Sequence[Session]] = (),
    credit: assign.CreditAssigner | None = None,
) -> RunState:
    """PPO: collect, cut, score, credit, learn, publish, until `loop.iterations` are done.

    Args:
        stopping: asked after each iteration; True saves a checkpoint and returns.

    Raises:
        LearnerError: a learner rank died. The same run name resumes from the last checkpoint.
        StarvedError: a whole collection held nothing to train on.
        SyncError: an engine does not serve the weights that it was given.
    """
    with recorder.timed("publish"):
        rollouts.load(learners.publish(state.version))  # no token is ever sampled from unnamed weights

    window = deque(past, maxlen=config.credit.window - 1)
    while state.iteration < config.loop.iterations and not stopping():
        with recorder.timed("collect"):
            sessions = rollouts.collect()
        segments = [segment for session in sessions for segment in cut(session)]
        if not segments:
            raise StarvedError(f"iteration {state.iteration + 1}: {len(sessions)} sessions, none to train on")

        with recorder.timed("score"):
            scores = learners.score([*segments, *assign.prefixes(sessions, config.credit)])
        assigned = assign.assign(sessions, segments, scores, config.credit, past=window)
        window.append(sessions)
        with recorder.timed("learn"):
            done = state.iteration / config.loop.iterations
            update = learners.learn(assigned.rows, seed=derive(config.seed, "learn", state.iteration), done=done)
        state = state.next()
        with recorder.timed("publish"):
            rollouts.load(learners.publish(state.version))

        recorder.iteration(state, sessions=sessions, assigned=assigned, update=update)
        last = state.iteration == config.loop.iterations
        every = config.loop.evaluate_every
        if every is not None and (last or state.iteration % every == 0):
            with recorder.timed("validate"):
                validation = rollouts.evaluate(
                    split="validation", sessions=config.evaluate.validation_sessions, greedy=True
                )
            checkpoints.save(state, score=recorder.evaluation(state, "validation", validation))
        elif last or stopping() or state.iteration % config.loop.checkpoint_every == 0:
            checkpoints.save(state, score=None)

    return state
