"""Our results on ProductQA beside the paper's Tables 4, 5 and 16: a pure function of finished runs' reports.

Which lines of the paper's Table 5 a run belongs to is read from its `agent.bar`:

    SeekAdvice     w/o Advice           UpdateMemory   w/o Memory           RetrieveMemory   w/o Memory
    Reflection     w/o Reflection       SearchProduct  w/o Tool-use
    nothing        the whole agent; its entry sft is w/o RL, and `own_non_adaptive` the non-adaptive advice
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agile_ray.config import RunConfig
from agile_ray.evaluation.score import PriceScore, Score
from agile_ray.scripted.guided import GUIDES
from agile_ray.scripted.references import REFERENCES as REFERENCE_POLICIES
from launch.report.paper.published import TABLE_4, TABLE_5, TABLE_16, Published
from launch.report.summary import Report

ABLATIONS = {
    "SeekAdvice": "w/o Advice",
    "UpdateMemory": "w/o Memory",
    "RetrieveMemory": "w/o Memory",
    "Reflection": "w/o Reflection",
    "SearchProduct": "w/o Tool-use",
}
"""The paper's line of a run that may not use one function."""
NON_ADAPTIVE = "Non-adaptive advice"
PROMPTED = {"prompt": "gpt4-prompt", "prompted_agent": "agile-gpt4-prompt"}
"""The paper's line of a policy that a chat model writes."""
WHOLE = "agile-vic13b-ppo"
"""The paper's line of the whole agent, in all three tables."""
REFERENCES = ("always_ask", "never_ask", "ask_unless_search", "ask_unless_own_search", "oracle")
"""Shown below the main table; `ask_unless_search` uses gold SQL."""
TITLES = {
    "4": "main results, the paper's Table 4 (c = 0.3)",
    "5": "ablations, the paper's Table 5 (c = 0.3)",
    "16": "prices, the paper's Table 16",
}
NOTE = (
    "Theirs: the paper's numbers, 13 B parameters unless named, over six whole test categories. Ours: over n sessions. "
    "The two are not like for like."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: a policy of ours, or one of the paper."""

    table: Literal["4", "5", "16"]
    price: float
    whose: Literal["ours", "theirs"]
    name: str
    beside: str  # the line of the paper that it is compared with; "" if none
    asked_share: float | None
    accuracy: float
    total: float | None
    ci95: tuple[float, float] | None = None  # of the total; theirs has none
    sessions: int | None = None  # n; None: the paper's


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One evaluation that no run stores: what `agile-ray evaluate --output` wrote."""

    policy: str  # as given to --policy
    name: str  # to show
    prices: tuple[float, ...]
    score: Score


Finished = Sequence[tuple[RunConfig, Report]]
"""Runs with their reports, in the order given."""


def rows(runs: Finished, singles: Sequence[Single] = ()) -> list[Row]:
    """Build the three tables.

    Args:
        runs: finished runs on ProductQA.
        singles: further evaluations. Prompted policies join the main table, `own_non_adaptive` the ablations; a
            checkpoint's folder, the prices.
    """
    kept = [one for one in singles if one.policy not in (*PROMPTED, *GUIDES) or one.prices == (0.3,)]
    return [*_main(runs, kept), *_ablations(runs, kept), *_prices(runs, kept)]


def _main(runs: Finished, singles: Sequence[Single]) -> Iterator[Row]:
    for one in TABLE_4:
        yield _theirs("4", 0.3, one)
    for one in singles:
        if one.policy in (*PROMPTED, "ask_unless_own_search", "own_answer"):
            yield _ours("4", 0.3, one.name, one.score, beside=PROMPTED.get(one.policy, ""))
    shown: set[str] = set()
    for config, report in _at_the_papers_price(runs):
        if not config.agent.bar:
            yield from _entries(report, shown)


def _entries(report: Report, shown: set[str]) -> Iterator[Row]:
    """What a run of the whole agent adds to the main table; `shown` collects references that all runs share."""
    for entry in ("ppo", "ppo_sampled", "sft", "sft_sampled"):
        if entry in report.entries:
            beside = WHOLE if entry == "ppo" else ""
            yield _ours("4", 0.3, f"{report.run} {entry}", report.entries[entry], beside=beside)
    for entry in REFERENCES:
        own = entry == "ask_unless_own_search"  # by the run's own query, so each run has another
        if entry in report.references and entry not in shown:
            shown |= set() if own else {entry}
            yield _ours("4", 0.3, f"{report.run} {entry}" if own else entry, report.references[entry])


def _ablations(runs: Finished, singles: Sequence[Single]) -> Iterator[Row]:
    ours: dict[str, list[Row]] = {}
    for one in singles:
        if one.policy == "own_non_adaptive":
            row = _ours("5", 0.3, one.name, one.score, beside=NON_ADAPTIVE)
            ours.setdefault(NON_ADAPTIVE, []).append(row)
    for config, report in _at_the_papers_price(runs):
        for beside, name, entry in _lines(config, report):
            ours.setdefault(beside, []).append(_ours("5", 0.3, name, entry, beside=beside))
    for one in TABLE_5:
        yield _theirs("5", 0.3, one)
        yield from ours.get(one.name, ())


def _lines(config: RunConfig, report: Report) -> Iterator[tuple[str, str, Score]]:
    """The paper's line, our name and the score of what a run adds to Table 5."""
    if report.ppo is None:
        return
    bar = config.agent.bar
    if bar:
        found = {ABLATIONS[name] for name in bar if name in ABLATIONS}
        if len(found) == 1:
            yield found.pop(), report.run, report.ppo
        return
    yield WHOLE, report.run, report.ppo
    if report.sft is not None:
        yield "w/o RL", f"{report.run} sft", report.sft
    if "non_adaptive" in report.references:
        yield NON_ADAPTIVE, "non_adaptive by script", report.references["non_adaptive"]


def _prices(runs: Finished, singles: Sequence[Single]) -> Iterator[Row]:
    ours: dict[float, list[Row]] = {}
    known = {*PROMPTED, *GUIDES, *REFERENCE_POLICIES}
    for one in singles:
        if one.policy not in known and len(one.prices) == 1:
            row = _ours("16", one.prices[0], one.name, one.score, beside=WHOLE)
            ours.setdefault(one.prices[0], []).append(row)
    for config, report in runs:
        if report.ppo is None or config.agent.bar:
            continue
        found: dict[int, Score | PriceScore] = dict(report.ppo.prices) or {config.env.prices[0]: report.ppo}
        for price, entry in found.items():
            row = _ours("16", price / 1000, report.run, entry, beside=WHOLE)
            ours.setdefault(price / 1000, []).append(row)
    published = dict(TABLE_16)
    for price in sorted({*published, *ours}, reverse=True):
        if price in published:
            yield _theirs("16", price, published[price])
        yield from ours.get(price, ())


def _at_the_papers_price(runs: Finished) -> Finished:
    return [(config, report) for config, report in runs if config.env.prices == (300,)]


def _theirs(table: Literal["4", "5", "16"], price: float, one: Published) -> Row:
    return Row(
        table=table,
        price=price,
        whose="theirs",
        name=one.name,
        beside=one.name,
        asked_share=one.asked_share,
        accuracy=one.accuracy,
        total=one.total,
    )


def _ours(
    table: Literal["4", "5", "16"], price: float, name: str, entry: Score | PriceScore, *, beside: str = ""
) -> Row:
    return Row(
        table=table,
        price=price,
        whose="ours",
        name=name,
        beside=beside,
        asked_share=entry.asked_share,
        accuracy=entry.accuracy,
        total=entry.total_score,
        ci95=entry.ci95 if isinstance(entry, Score) else None,
        sessions=entry.sessions,
    )
