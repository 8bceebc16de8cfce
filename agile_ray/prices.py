"""The prices of advice: what the agent is told of an ask, and what is paid for it.

    rule        told                             paid
    constant    the price of the episode         the same
    kind        the price of the question        the same
    schedule    the price at this session        the same
    tokens      the highest price                base + token * tokens of question, words and answer, at most that

So what is told is what is paid, or an upper bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from agile_ray.config import Env
from agile_ray.expert_spec import ExpertSpec, PriceRule
from agile_ray.seeds import derive
from agile_ray.types import Outcome
from agile_ray.units import thousandths

REFUNDED = frozenset({Outcome.CAPPED, Outcome.LATE, Outcome.BROKEN})
"""Outcomes of asks that are never paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What one ask costs, thousandths. The base price is drawn for every episode, from (seed, stream) alone."""

    amounts: tuple[int, ...]
    seed: int = 0
    told: bool = False  # the status line shows the price
    rule: PriceRule = field(default_factory=PriceRule)  # its base is one of `amounts`
    charges_asks: bool = False  # an expert that abstains or refuses is paid
    alone: bool = False  # a late or broken expert leaves the agent alone, instead of failing the session
    colleague: "Prices | None" = None  # of the second expert; None: there is none

    @classmethod
    def of(cls, env: Env, *, seed: int) -> "Prices":
        """The prices of `env.advice_cost` and `env.expert`; one that varies is told, a single number is not."""
        spec, second = env.expert, env.expert.colleague
        varies = any(one.price.name != "constant" for one in (spec, second) if one is not None)
        told = env.tells_price or varies
        colleague = None if second is None else cls._of(second, amounts=(_base(second),), seed=seed, told=told)
        return cls._of(spec, amounts=env.prices, seed=seed, told=told, colleague=colleague)

    @classmethod
    def _of(
        cls,
        spec: ExpertSpec,
        *,
        amounts: tuple[int, ...],
        seed: int,
        told: bool,
        colleague: "Prices | None" = None,
    ) -> "Prices":
        return cls(
            amounts=amounts,
            seed=seed,
            told=told,
            rule=spec.price,
            charges_asks=spec.charges == "asks",
            alone=spec.late == "alone",
            colleague=colleague,
        )

    def at(self, stream: str) -> int:
        """The base price of the episode that plays a stream, by the stream's id."""
        return self.amounts[derive(self.seed, "price", stream) % len(self.amounts)]

    def quote(self, stream: str, *, position: int, kind: str) -> int:
        """The price of an ask as the agent is told it: what will be paid, or the most that may be.

        Args:
            stream: id of the episode's stream.
            position: of the session in it.
            kind: of the session's question.
        """
        if self.rule.most is not None:
            return thousandths(self.rule.most)
        if kind in self.rule.kinds:
            return thousandths(self.rule.kinds[kind])
        begun = [step for step in self.rule.steps if step <= position]
        return thousandths(self.rule.steps[max(begun)]) if begun else self.at(stream)

    def quotes(self, stream: str, kinds: Iterable[str]) -> list[int]:
        """The price at every session of a stream, by the kinds of its questions."""
        return [self.quote(stream, position=position, kind=kind) for position, kind in enumerate(kinds)]

    def due(self, quoted: int, *, outcome: Outcome, stream: str, tokens: int) -> int:
        """What is paid for an ask.

        Args:
            quoted: what the agent was told.
            outcome: of the ask.
            stream: id of the episode's stream.
            tokens: of the question, the words of the ask, and the answer.
        """
        if outcome in REFUNDED or (outcome is not Outcome.ANSWERED and not self.charges_asks):
            return 0
        if not self.rule.token:
            return quoted
        return min(quoted, self.at(stream) + tokens * thousandths(self.rule.token))


def _base(colleague: ExpertSpec) -> int:
    assert colleague.price.base is not None, "a colleague has a price; its schema says so"
    return thousandths(colleague.price.base)
