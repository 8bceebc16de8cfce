"""The credit modes: each computes A_i of every session of an iteration.

    none        0
    heuristic   the paper's bonus, eq. 7
    fitted      V is a regression on the state of memory                             (credit/fitted.py)
    linked      V is evaluated where later sessions retrieved what i wrote           (credit/linked.py, tail.py)

A mode is one function and one entry in MODES, or lies elsewhere. docs/credit.md describes them.

Dimensions: S = sessions of one iteration. Rewards and credit are in units of the reward for a right answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from agile_ray.config import Credit
from agile_ray.credit import fitted, linked, lstd, tail
from agile_ray.errors import ConfigError
from agile_ray.plugins.resolver import resolve
from agile_ray.types import Float64, Int64, Mask, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a mode computes credit from."""

    sessions: Sequence[Session]  # [S] of this iteration, in stream order within a stream
    past: Sequence[Sequence[Session]]  # of earlier iterations, the oldest first; empty unless the mode looks back
    # Of reads whose counterfactual was scored; all three are empty unless the mode needs counterfactuals.
    links: linked.Links  # among the sessions
    readings: Sequence[tail.Reading]  # of entries that anyone wrote
    outlook: tail.Outlook  # from the readings of earlier iterations


Amounts = tuple[Float64, dict[str, float]]
"""A_i of every session [S], and metrics of the mode by the names in record/metrics.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A way to compute credit, and what it needs for that."""

    amounts: Callable[[Evidence, Credit], Amounts]
    looks_back: bool = False  # at the sessions of earlier iterations
    needs_counterfactuals: bool = False  # the learner scores counterfactual prefixes
    shares: Callable[[Evidence], Float64] | None = None  # of each of the links [R]; None: no session gives a part alone


def none(evidence: Evidence, _: Credit) -> Amounts:
    """A_i = 0: every session is trained for its own reward alone."""
    return np.zeros(len(evidence.sessions)), {}


def heuristic(evidence: Evidence, config: Credit) -> Amounts:
    """A_i of AGILE, eq. 7; see `bonus`."""
    sessions = evidence.sessions
    amounts = bonus(
        wrote=np.array([bool(session.writes) for session in sessions], dtype=np.bool_),
        later=np.array([session.hindsight.later_similar for session in sessions], dtype=np.int64),
        stored=np.array([session.hindsight.stored_similar for session in sessions], dtype=np.int64),
        beta=config.beta,
    )
    return amounts, {}


def bonus(*, wrote: Mask, later: Int64, stored: Int64, beta: float) -> Float64:
    """Compute beta * 1[N > 0] / (M + 1) for sessions that wrote memory, else 0 (AGILE, eq. 7).

    The paper does not restrict the bonus to writers. Without that, it would not depend on what the session did.

    Args:
        wrote: bool [S], the session wrote an entry.
        later: int64 [S], N, `Hindsight.later_similar`.
        stored: int64 [S], M, `Hindsight.stored_similar`.
        beta: reward.

    Returns:
        float64 [S].
    """
    return np.where(wrote & (later > 0), beta / (stored + 1), 0.0)


def by_fit(evidence: Evidence, _: Credit) -> Amounts:
    """A_i by regressions of V on the state of memory, over this iteration and the past ones; see credit/fitted.py.

    The policy knows the price and acts by it, so each price has a fit of its own. A stream has one price.
    """
    everything = (*evidence.past, evidence.sessions)
    prices = np.array([one.price for sessions in everything for one in sessions])
    amounts, metrics = np.zeros(len(prices)), {}
    for price in np.unique(prices).tolist():
        places = np.flatnonzero(prices == price)
        iterations = [[one for one in sessions if one.price == price] for sessions in everything]
        suffix = "" if len(places) == len(prices) else f" at {price / 1000:g}"
        for topic in fitted.topics(iterations):
            schema = fitted.Schema.of(iterations, topic)
            steps = fitted.transitions(iterations, schema)
            fit = lstd.fit(steps, prior=schema.prior, td_lambda=fitted.TD_LAMBDA)
            amounts[places] += fitted.fitted(steps, fit, sessions=len(places))
            metrics |= fitted.metrics(fit, schema, suffix=suffix)
    return amounts[len(amounts) - len(evidence.sessions) :], metrics


def by_links(evidence: Evidence, _: Credit) -> Amounts:
    """A_i by what later sessions read; see `linked.linked`, and `tail.tail` for those that are still to come."""
    sessions, links = evidence.sessions, evidence.links
    rewards = np.array([session.own_reward for session in sessions])
    outlook = tail.updated(evidence.outlook, evidence.readings)
    window = linked.linked(rewards, links)
    beyond = tail.tail(sessions, outlook, linked.lacking(links, sessions=len(sessions)))
    described = tail.metrics(
        sessions, before=evidence.outlook, outlook=outlook, found=evidence.readings, window=window, beyond=beyond
    )
    return window + beyond, {"credit_overlap": links.overlap(rewards), **described}


def shares_of_links(evidence: Evidence) -> Float64:
    """What each link adds to A_i; see `linked.shares`."""
    return linked.shares(np.array([session.own_reward for session in evidence.sessions]), evidence.links)


MODES: Mapping[str, Mode] = {
    "none": Mode(amounts=none),
    "heuristic": Mode(amounts=heuristic),
    "fitted": Mode(amounts=by_fit, looks_back=True),
    "linked": Mode(amounts=by_links, needs_counterfactuals=True, shares=shares_of_links),
}


def mode(name: str) -> Mode:
    """The mode that `credit.mode` selects. One that lies elsewhere is a `Mode`, or its function `amounts` alone.

    Raises:
        ConfigError: there is no such mode, or it is neither.
    """
    found = resolve(name, key="credit.mode", kind="credit_modes", built_in=MODES)
    if isinstance(found, Mode):
        return found
    if not callable(found):
        raise ConfigError(f"credit.mode: {name} must be a Mode, or a function of evidence and config; found {found!r}")
    return Mode(amounts=cast(Callable[[Evidence, Credit], Amounts], found))
