"""The weight of the KL term: constant, or adapted until the KL to the frozen policy meets a target."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from agile_ray.config import PPO

GAIN = 0.1
"""Gain K of the controller: the share of the relative error that one update corrects."""
MAX_ERROR = 0.2
"""Bound on the relative error: one update changes the weight by at most 2 %."""
FILE = "kl.json"
"""Name of the file in a checkpoint's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KLController:
    """The proportional controller of Ziegler et al. (2019), section 2.2."""

    coefficient: float  # beta, per action token
    target: float | None  # nats per action token; None: the coefficient is constant

    def after(self, kl_nats: float) -> "KLController":
        """The controller after one update: e = clip(KL / target - 1, -0.2, 0.2), then beta <- beta * (1 + 0.1 e).

        Args:
            kl_nats: mean KL to the frozen policy over the update's action tokens.
        """
        if self.target is None:
            return self
        error = min(max(kl_nats / self.target - 1.0, -MAX_ERROR), MAX_ERROR)
        return replace(self, coefficient=self.coefficient * (1.0 + GAIN * error))


def configured(ppo: PPO) -> KLController:
    """The controller before the first update."""
    return KLController(coefficient=ppo.kl_coefficient, target=ppo.adaptive_kl_target)


def save(controller: KLController, ppo: PPO, folder: Path) -> None:
    """Write the coefficient if it has been adapted; without the file, `load` returns the configured one."""
    if controller != configured(ppo):
        (folder / FILE).write_text(json.dumps({"kl_coefficient": controller.coefficient}))


def load(ppo: PPO, folder: Path) -> KLController:
    """Read what `save` wrote; the configured coefficient if there is no file, or if it is constant."""
    file = folder / FILE
    if ppo.adaptive_kl_target is None or not file.exists():
        return configured(ppo)
    return replace(configured(ppo), coefficient=float(json.loads(file.read_text())["kl_coefficient"]))
