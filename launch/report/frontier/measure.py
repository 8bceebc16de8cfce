"""The frontiers of runs: what a policy reaches at each price, and measures over all prices.

Runs that differ in seed and price alone share a frontier. So does one run whose episodes have several prices: its
sessions are split by price. What a measure needs of one seed, such as the points at all its prices, is computed for
each seed, and the mean over seeds has Student's interval. A single seed has the interval over its streams, where a
measure is a mean over sessions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from agile_ray.errors import ConfigError
from agile_ray.evaluation.frontier.closed import closed
from agile_ray.evaluation.frontier.deferral import area, deferral_curve, share_needed
from agile_ray.evaluation.frontier.hypervolume import hypervolume
from agile_ray.evaluation.frontier.needed import AskMatch, match_oracle
from agile_ray.evaluation.frontier.order import Violations, violations
from agile_ray.evaluation.frontier.selective import sampled_augrc
from agile_ray.evaluation.intervals import Estimate, estimate, interval
from agile_ray.types import Ending, Session
from launch.report.entries import LEARNED, NO_FUTURE, ORACLE

GAIN = 0.9
"""Share of the oracle's gain in accuracy for which the needed asks are counted."""
NEVER = "never_ask"
SAMPLED = "ppo_sampled"
"""The evaluation whose turns are read too: by chance, it shows answers without advice for every question."""
ALL_ASK = 1.0
"""Asked share of the reference point of the hypervolume; its accuracy is that of never_ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """The final evaluations of one run."""

    run: str
    policy: str  # what distinguishes its settings from those of other frontiers, such as credit.mode=linked
    seed: int
    sessions: Mapping[str, Sequence[Session]]  # by entry; those of SAMPLED with their turns if they are stored


class Point(BaseModel):
    """A policy at one price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price: float  # of one ask, in units of the reward for a right answer
    sessions: int  # of all seeds, without failed ones
    asked_share: Estimate
    accuracy: Estimate
    total_score: Estimate
    closed: Estimate | None  # None: references are missing, or the oracle is not ahead of them
    ask_precision: Estimate | None  # these three against the oracle's asks; None: no oracle, or nobody asks
    ask_recall: Estimate | None
    ask_f1: Estimate | None
    augrc: Estimate | None  # of the sampled policy; None: no probability of asking is stored


class Line(BaseModel):
    """A policy at all prices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: str  # ppo, oracle, ...
    points: tuple[Point, ...]  # by price
    hypervolume: Estimate | None  # these three are None without never_ask, asks_needed also without the oracle
    area: Estimate | None
    asks_needed: Estimate | None  # share of sessions; None as well if the policy's curve does not reach the gain
    violations: Violations


class Frontier(BaseModel):
    """What policies with the same settings reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    seeds: tuple[int, ...]
    prices: tuple[float, ...]
    reference_point: tuple[float, float] | None  # asked share and accuracy, the mean over seeds
    lines: tuple[Line, ...]
    notes: tuple[str, ...]  # what is missing, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """The sessions of one seed at one price that did not fail, by entry."""

    run: str
    sessions: Mapping[str, Sequence[Session]]


_Cells = dict[tuple[int, int], _Cell]  # by seed and price, thousandths


def frontiers(runs: Sequence[RunResults]) -> list[Frontier]:
    """Measure the frontier of each group of runs that differ in seed and price alone, in order of appearance.

    Raises:
        ConfigError: two runs have the same settings, seed and price.
    """
    return [
        _frontier(name, [run for run in runs if run.policy == name]) for name in dict.fromkeys(r.policy for r in runs)
    ]


def _frontier(policy: str, runs: Sequence[RunResults]) -> Frontier:
    cells = _cells(runs)
    prices = sorted({price for _, price in cells})
    seeds = sorted({seed for seed, _ in cells})
    whole = [seed for seed in seeds if all((seed, price) in cells for price in prices)]
    kept = {key: cell for key, cell in cells.items() if key[0] in whole}
    notes = [f"seed {seed} is left out: it has not all prices of the others" for seed in seeds if seed not in whole]
    if not whole:
        raise ConfigError(
            f"frontier of {policy}: at least one seed must have a finished run at every price, found none for prices "
            f"{', '.join(f'{price / 1000:g}' for price in prices)}"
        )
    shared = _entries(kept)
    entries = [name for name in shared if all(cell.sessions[name] for cell in kept.values())]
    notes += [f"{name} is left out: all its sessions failed at some price" for name in shared if name not in entries]
    lines = tuple(_line(entry, kept, whole, prices) for entry in entries)
    if SAMPLED in entries and all(point.augrc is None for line in lines for point in line.points):
        notes.append("no AUGRC: the runs do not store the probability of asking (schema 4 and later do)")
    unaided = [_unaided(kept, seed, prices) for seed in whole] if NEVER in entries else []
    return Frontier(
        policy=policy,
        seeds=tuple(whole),
        prices=tuple(price / 1000 for price in prices),
        reference_point=(ALL_ASK, sum(unaided) / len(unaided)) if unaided else None,
        lines=lines,
        notes=tuple(notes),
    )


def _cells(runs: Sequence[RunResults]) -> _Cells:
    cells: _Cells = {}
    for run in runs:
        for price in sorted({one.price for sessions in run.sessions.values() for one in sessions}):
            if (other := cells.get((run.seed, price))) is not None:
                raise ConfigError(
                    f"frontier of {run.policy}: each seed and price has one run, but {other.run} and {run.run} both "
                    f"have seed {run.seed} and price {price / 1000:g}; leave one out"
                )
            sessions = {
                entry: [one for one in played if one.price == price and one.ending is not Ending.FAILED]
                for entry, played in run.sessions.items()
            }
            cells[run.seed, price] = _Cell(run=run.run, sessions=sessions)
    return cells


def _entries(cells: _Cells) -> list[str]:
    """Policies that all cells have: learned ones, references, the oracle."""
    found = set.intersection(*(set(cell.sessions) for cell in cells.values()))
    others = sorted(found - {*LEARNED, *NO_FUTURE, ORACLE})
    return [name for name in (*LEARNED, *NO_FUTURE, *others, ORACLE) if name in found]


def _line(entry: str, cells: _Cells, seeds: Sequence[int], prices: Sequence[int]) -> Line:
    points = tuple(_point(entry, price, [cells[seed, price] for seed in seeds]) for price in prices)
    hypervolumes, areas, needed, found = [], [], [], Violations(violated=0, pairs=0)
    for seed in seeds:
        own = [cells[seed, price].sessions for price in prices]
        shares, accuracies = np.array([_asked(s[entry]) for s in own]), np.array([_right(s[entry]) for s in own])
        found += violations(list(prices), shares.tolist())
        if NEVER not in own[0]:
            continue
        unaided = _unaided(cells, seed, prices)
        hypervolumes.append(hypervolume(shares, accuracies, worst_share=ALL_ASK, worst_accuracy=unaided))
        curve = deferral_curve(shares, accuracies, unaided=unaided)
        areas.append(area(curve))
        if ORACLE in own[0]:
            best = max(_right(sessions[ORACLE]) for sessions in own)
            needed.append(share_needed(curve, unaided + GAIN * (best - unaided)))
    return Line(
        entry=entry,
        points=points,
        hypervolume=estimate(hypervolumes) if hypervolumes else None,
        area=estimate(areas) if areas else None,
        asks_needed=_known(needed),
        violations=found,
    )


def _point(entry: str, price: int, cells: Sequence[_Cell]) -> Point:
    played = [cell.sessions[entry] for cell in cells]
    matches = [match_oracle(cell.sessions[entry], cell.sessions.get(ORACLE, ())) for cell in cells]
    return Point(
        price=price / 1000,
        sessions=sum(map(len, played)),
        asked_share=_mean(played, lambda one: 1000 * (one.asks > 0)),
        accuracy=_mean(played, lambda one: 1000 * one.correct),
        total_score=_mean(played, lambda one: one.reward),
        closed=_known([_closed(entry, cell) for cell in cells]),
        ask_precision=_known([match.precision for match in matches]),
        ask_recall=_known([match.recall for match in matches]),
        ask_f1=_f1(matches),
        augrc=_known([sampled_augrc(sessions) for sessions in played]) if entry == SAMPLED else None,
    )


def _f1(matches: Iterable[AskMatch]) -> Estimate | None:
    return _known([match.f1 for match in matches])


def _closed(entry: str, cell: _Cell) -> float | None:
    references = [_total(cell.sessions[name]) for name in NO_FUTURE if cell.sessions.get(name)]
    if not references or not cell.sessions.get(ORACLE):
        return None
    return closed(_total(cell.sessions[entry]), start=max(references), oracle=_total(cell.sessions[ORACLE]))


def _unaided(cells: _Cells, seed: int, prices: Sequence[int]) -> float:
    """Accuracy of never_ask over the sessions at all prices."""
    return _right([one for price in prices for one in cells[seed, price].sessions[NEVER]])


def _mean(played: Sequence[Sequence[Session]], worth: Callable[[Session], float]) -> Estimate:
    """Mean over seeds of the mean over sessions, of values in thousandths."""
    means = [sum(map(worth, sessions)) / (1000 * len(sessions)) for sessions in played]
    if len(played) > 1:
        return estimate(means)
    ci95, _ = interval([(one, worth(one)) for one in played[0]], seed=0)
    return Estimate(mean=means[0], ci95=ci95)


def _known(values: Sequence[float | None]) -> Estimate | None:
    """Estimate over seeds; None if a seed has no value."""
    found = [value for value in values if value is not None]
    return estimate(found) if found and len(found) == len(values) else None


def _asked(sessions: Sequence[Session]) -> float:
    return sum(one.asks > 0 for one in sessions) / len(sessions)


def _right(sessions: Sequence[Session]) -> float:
    return sum(one.correct for one in sessions) / len(sessions)


def _total(sessions: Sequence[Session]) -> float:
    return sum(one.reward for one in sessions) / (1000 * len(sessions))
