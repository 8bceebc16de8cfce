"""The weight of the KL term: fixed, or moved until the divergence from the frozen policy is what was asked for."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from agile_ray.config import PPO

GAIN = 0.1
"""K of the controller: how much of the relative error one update makes up for."""
MAX_ERROR = 0.2
"""Relative errors beyond it count as this much, so that one update moves the weight by 2 % at most."""
FILE = "kl.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KLController:
    """The proportional controller of Ziegler et al. (2019), section 2.2."""

    coefficient: float  # beta, per action token
    target: float | None  # nats per action token; None: the coefficient never moves

    def after(self, kl_nats: float) -> "KLController":
        """One update later: e = clip(KL / target - 1, -0.2, 0.2), then beta <- beta * (1 + 0.1 e).

        Args:
            kl_nats: mean KL to the frozen policy over the update's action tokens.
        """
        if self.target is None:
            return self
        error = min(max(kl_nats / self.target - 1.0, -MAX_ERROR), MAX_ERROR)
        return replace(self, coefficient=self.coefficient * (1.0 + GAIN * error))


def configured(ppo: PPO) -> KLController:
    """The controller that no update has moved."""
    return KLController(coefficient=ppo.kl_coefficient, target=ppo.adaptive_kl_target)


def save(controller: KLController, ppo: PPO, folder: Path) -> None:
    """Write the coefficient beside the ranks' state, once it has moved: another run that begins there has its own."""
    if controller != configured(ppo):
        (folder / FILE).write_text(json.dumps({"kl_coefficient": controller.coefficient}))


def load(ppo: PPO, folder: Path) -> KLController:
    """Continue from what `save` wrote; from the configured value if it wrote nothing or nothing is to move."""
    file = folder / FILE
    if ppo.adaptive_kl_target is None or not file.exists():
        return configured(ppo)
    return replace(configured(ppo), coefficient=float(json.loads(file.read_text())["kl_coefficient"]))
