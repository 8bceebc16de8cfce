"""The learning rates."""

import math

from agile_ray.config import PPO, Imitation

WARM_UP = 1 / 20
"""Share of the steps in which the learning rate rises."""
FLOOR = 0.1
"""Share of the peak that it falls to."""


def imitation_rate(config: Imitation, step: int) -> float:
    """Learning rate of optimizer step `step`, from 0: a linear rise, then a cosine down to a tenth.

    Steps beyond the planned ones keep the last rate.
    """
    steps = math.ceil(config.sessions / config.batch)
    rising = max(1, round(steps * WARM_UP))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    passed = min(1.0, (step - rising) / max(1, steps - 1 - rising))
    return config.learning_rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * passed)) / 2)


def ppo_rate(config: PPO, done: float) -> float:
    """Learning rate when this share of the iterations is done: a straight line down to a tenth."""
    return config.learning_rate * (1 - (1 - FLOOR) * min(1.0, done))
