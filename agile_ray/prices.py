"""The prices of advice: which one an episode has."""

from dataclasses import dataclass

from agile_ray.config import Env
from agile_ray.seeds import derive


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What one ask costs, thousandths. A price is drawn for every episode, from (seed, stream) alone."""

    amounts: tuple[int, ...]
    seed: int = 0
    told: bool = False  # the status line shows the episode's price

    @classmethod
    def of(cls, env: Env, *, seed: int) -> "Prices":
        """The prices of `env.advice_cost`; a list of them is told, a single number is not."""
        return cls(amounts=env.prices, seed=seed, told=env.tells_price)

    def at(self, stream: str) -> int:
        """The price of the episode that plays a stream, by the stream's id."""
        return self.amounts[derive(self.seed, "price", stream) % len(self.amounts)]
