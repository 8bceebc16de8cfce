"""The learning rate of imitation."""

import math

from agile_ray.config import Imitation

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
