"""Numbers and results in words, for the page and the printed tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agile_ray.evaluation.choice import Choice
    from agile_ray.evaluation.score import Answered, Difference, PriceScore
    from agile_ray.record.ledger import Ledger
    from agile_ray.record.provenance import Git, Machine
    from launch.report.summary import Report

MINUS = "\N{MINUS SIGN}"


def headline(report: "Report") -> list[str]:
    """The result in sentences, each backed by a number of the report."""
    if report.ppo is None:
        return ["The run is not finished: its final evaluation is missing."]
    sentences = [
        f"PPO's total score is {report.ppo.total_score:.3f} "
        f"({interval(report.ppo.ci95)}): it is right in {report.ppo.accuracy:.1%} of the sessions and asks in "
        f"{report.ppo.asked_share:.1%}."
    ]
    if report.chosen is not None:
        sentences.append(choice(report.chosen))
    for other in ("sft", report.best_reference):
        if other in report.differences:
            difference = report.differences[other]
            sentences.append(f"Against {other}: {signed(difference.mean)} ({interval(difference.ci95)}), paired.")
    if report.closed is not None and report.closed > 0:
        sentences.append(f"It closes {report.closed:.0%} of the distance from {report.best_reference} to the oracle.")
    return sentences


def stream_leads(report: "Report") -> list[tuple[str, str, "Difference"]]:
    """Stream, policy, and PPO's lead over it there: for the policies that a training is judged by."""
    shown = ("sft", "always_ask", report.best_reference, "ask_unless_own_search")
    return [
        (stream, other, leads[other])
        for other in dict.fromkeys(shown)
        for stream, leads in report.streams.items()
        if other in leads
    ]


def choice(chosen: "Choice") -> str:
    """Which iteration was chosen on validation, and why."""
    said, of = f"Iteration {chosen.iteration} was chosen", f"of {chosen.evaluated} evaluated"
    if chosen.unpaired:
        return (
            f"{said}: it has the highest validation total {of}, {chosen.total:.3f}. Only totals were compared, because "
            f"iterations {', '.join(map(str, chosen.unpaired))} keep no values on the latest one's streams."
        )
    if chosen.error is None:
        return f"{said}: it has the highest validation total {of}, {chosen.total:.3f} without the luck of guesses."
    return (
        f"{said}: it is the latest {of} whose validation total, {chosen.total:.3f} without the luck of guesses, is "
        f"within one standard error ({chosen.error:.2g}) of the highest, {chosen.highest_total:.3f} at iteration "
        f"{chosen.highest}."
    )


def card(report: "Report") -> list[tuple[str, str]]:
    """What was trained, with what, where and for how long: names and values."""
    found = [
        ("Environment", f"{report.environment}, one ask costs {cost(report.advice_cost)}, seed {report.seed}"),
    ]
    if report.card is not None:
        own = report.card
        size = "" if own.parameters is None else f", {own.parameters / 1e6:,.1f} M parameters"
        experts = ", ".join(
            f"{name} ({count:,} answers in the final evaluations)" for name, count in own.experts.items()
        )
        found += [
            ("Model", f"{own.model}: {own.kind}{size}"),
            ("Expert", experts or "asked nothing in the final evaluations"),
            ("Credit", own.credit),
            ("Training", f"{own.iterations} of {own.planned} iterations, {duration(own.duration_s)}"),
        ]
    if report.starts:
        start = report.starts[-1]
        found += [
            ("Commit", commit(start.git)),
            ("Machine", machine(start.machine)),
            ("Started", f"{report.starts[0].started} (starts in all: {len(report.starts)})"),
        ]
    return found


def commit(git: "Git") -> str:
    """The commit, and whether files differed from it."""
    return git.commit + (" with uncommitted changes" if git.dirty else "")


def machine(one: "Machine") -> str:
    """Cores, memory and system."""
    return f"{one.cores} cores, {one.memory_gib:g} GiB, {one.system}"


def duration(seconds: float) -> str:
    """`45 s`, `22.1 minutes` or `3.2 hours` of wall time."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def cost(advice_cost: float | tuple[float, ...]) -> str:
    """`0.3`, or `0.1, 0.3 or 0.5` if episodes have different prices."""
    costs = [f"{one:g}" for one in (advice_cost if isinstance(advice_cost, tuple) else (advice_cost,))]
    return " or ".join([", ".join(costs[:-1]), costs[-1]] if len(costs) > 1 else costs)


def price_cells(part: "PriceScore") -> tuple[str, str, str, str]:
    """Total, accuracy, asked share and sessions."""
    return f"{part.total_score:.3f}", f"{part.accuracy:.3f}", f"{part.asked_share:.3f}", str(part.sessions)


def interval(ci95: tuple[float, float] | None) -> str:
    """`0.601 to 0.652`, with real minus signs; `no interval` for a single unit."""
    if ci95 is None:
        return "no interval"
    return f"{ci95[0]:.3f} to {ci95[1]:.3f}".replace("-", MINUS)


def answered(part: "Answered | None") -> str:
    """How often the answers of some sessions were right, and of how many: `0.812 (0.78 to 0.84) of 640`."""
    return "" if part is None else f"{part.accuracy:.3f} ({interval(part.ci95)}) of {part.sessions:,}"


def signed(value: float) -> str:
    """`+0.041`, with a real minus sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def closed(share: float | None) -> str:
    """`24%` of the distance from the best reference policy to the oracle; `none` where a run is behind the former."""
    if share is None:
        return ""
    return f"{share:.0%}" if share > 0 else "none"


def accounts(ledger: "Ledger") -> list[list[str]]:
    """Cells per account: its name, its asks, their cost in units of the reward for a right answer."""
    named = {"trained": ledger.trained, "failed": ledger.failed, "abandoned": ledger.abandoned}
    lines = [[name, f"{account.asks:,}", _units(account.charged)] for name, account in named.items()]
    return [*lines, ["all", f"{ledger.asks:,}", _units(ledger.charged)]]


def agreement(ledger: "Ledger") -> str:
    """What the audit of the books checked, and the total score that follows from them."""
    if not ledger.iterations:
        return "Books agree: 0 iterations; nothing was trained on."
    total = f"{ledger.total_score:.3f}".replace("-", MINUS)
    return (
        f"Books agree: {len(ledger.iterations)} iterations, {ledger.sessions:,} sessions trained on. Their total score "
        f"is {ledger.accuracy:.3f} {MINUS} {_units(ledger.trained.charged)} / {ledger.sessions:,} = {total}."
    )


def _units(thousandths: int) -> str:
    return f"{thousandths // 1000:,}.{thousandths % 1000:03d}"
