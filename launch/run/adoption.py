"""Runs of a sweep that imitate alike share one imitation: the first trains it, the others copy its policy and critic.

Two runs imitate alike if they agree in every key that affects imitation, the price of advice included, except those
that the sweep's `imitation_ignores` names. The price is a key of imitation because the critic learns returns that
contain it. With `imitation_ignores: [env.advice_cost]` the critic of a run begins with the returns of another price.

They also share the evaluations of the SFT policy if they agree in every key that affects those.
"""

from collections.abc import Sequence

from agile_ray.config import RunConfig
from agile_ray.effects import imitation_of, sft_evaluation_of
from agile_ray.record import evaluations
from agile_ray.record.checkpoints import adopt as copy
from agile_ray.record.folder import RunFolder


def imitation_key(config: RunConfig, ignores: Sequence[str] = ()) -> str:
    """What runs agree in that share an imitation."""
    return repr(sorted((key, value) for key, value in imitation_of(config).items() if key not in ignores))


def has_begun(config: RunConfig) -> bool:
    """Whether the run has an imitation, or a checkpoint of its own."""
    run = RunFolder.of(config)
    return run.sft.path.exists() or run.checkpoints.exists()


def adopt(config: RunConfig, others: Sequence[RunConfig], ignores: Sequence[str] = ()) -> str | None:
    """Take over the imitation of a run that imitates alike, and its evaluations if they are the same too.

    Donors that share the evaluations are preferred.

    Args:
        config: of a run that has not begun.
        others: the runs of the sweep.
        ignores: keys that imitation disregards.

    Returns:
        The donor's name; None if no run has an imitation to give.
    """
    run, key, needed = RunFolder.of(config), imitation_key(config, ignores), sft_evaluation_of(config)
    donors = [
        other
        for other in others
        if imitation_key(other, ignores) == key and evaluations.has(RunFolder.of(other), "sft_sampled")
    ]
    donors.sort(key=lambda other: sft_evaluation_of(other) != needed)
    for donor in donors[:1]:
        source = RunFolder.of(donor)
        copy(source.sft.path, run.sft.path)
        if sft_evaluation_of(donor) == needed:
            copy(source.evaluations, run.evaluations, only="sft*")
        return source.name
    return None
