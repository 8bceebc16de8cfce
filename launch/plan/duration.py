"""How long a run takes, judged by a finished one: each phase scales with what it does."""

from collections.abc import Sequence
from dataclasses import dataclass

from agile_ray.config import RunConfig
from agile_ray.record.history import Event, Line
from launch.plan.batches import Batches

BY_SESSIONS = ("collect", "score", "learn")
"""Phases that scale with the sessions of all iterations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds of the parts of a run."""

    teacher: float
    imitation: float
    ppo: float
    validation: float
    evaluation: float  # of SFT policy, final policy and references

    @property
    def total(self) -> float:
        """All of them; starting engines and writing checkpoints come on top."""
        return self.teacher + self.imitation + self.ppo + self.validation + self.evaluation


def estimate(config: RunConfig, planned: Batches, like: RunConfig, done: Batches, history: Sequence[Line]) -> Estimate:
    """The time of a run, from the wall times of a finished one.

    Args:
        config: of the run.
        planned: its arithmetic.
        like: configuration of the finished run.
        done: arithmetic of the finished run.
        history: of the finished run.
    """
    seconds: dict[str, float] = {}
    for line in history:
        for phase, value in line.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    steps = sum(line.event is Event.IMITATION for line in history)
    played = sum(line.event is Event.ITERATION for line in history)
    sessions = _ratio(planned.iterations * planned.sessions, played * done.sessions)
    validated = _ratio(
        planned.validations * config.evaluate.validation_sessions, done.validations * like.evaluate.validation_sessions
    )
    tested = 1.0
    if config.evaluate.sessions is not None and like.evaluate.sessions is not None:
        tested = config.evaluate.sessions / like.evaluate.sessions
    return Estimate(
        teacher=seconds.get("teach", 0.0) * _ratio(config.imitation.played, like.imitation.played),
        imitation=seconds.get("imitate", 0.0) * _ratio(planned.imitation_steps, steps),
        ppo=sum(seconds.get(phase, 0.0) for phase in BY_SESSIONS) * sessions
        + seconds.get("publish", 0.0) * _ratio(planned.iterations, played),
        validation=seconds.get("validate", 0.0) * validated,
        evaluation=sum(seconds.get(phase, 0.0) for phase in ("evaluate", "references", "spread")) * tested,
    )


def _ratio(planned: float, done: float) -> float:
    return planned / done if done else 0.0
