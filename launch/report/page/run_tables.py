"""The tables of a run's page."""

from collections.abc import Iterable, Mapping

from agile_ray.evaluation import failures
from agile_ray.evaluation.score import Cause, Difference, Score
from agile_ray.record.history import FAILED
from launch.report import wording
from launch.report.page.table import Table, table
from launch.report.summary import Report

CAUSES = {
    Cause.PREDICTED_WRONG: "predicted wrong",
    Cause.ROWS_WRONG: "search: wrong rows",
    Cause.BAD_QUERY: "search: bad query",
    Cause.ADVICE_WRONG: "asked, still wrong",
    Cause.NO_ANSWER: "no answer",
    Cause.CUT: "cut by a budget",
}


def tables(report: Report) -> dict[str, Table | None]:
    """The tables that every run has, by the names that run.html.j2 uses; None: there is nothing to show."""
    training = {name.removeprefix(FAILED): count for name, count in report.counts.items() if name.startswith(FAILED)}
    return {
        "policies": policies(report),
        "failures": _failures("policy", [(name, entry.reasons) for name, entry in report.entries.items()]),
        "prices": _prices(report),
        "streams": _streams(report),
        "ledger": table("account", "asks", "charged", rows=wording.accounts(report.ledger)),
        "seconds": _seconds(report),
        "speed": _speed(report),
        "dropped": _dropped(report),
        "training_failures": _failures("sessions of", [("training", failures.joined(training.items()))]),
        "origin": _origin(report),
    }


def policies(report: Report) -> Table | None:
    """Every policy, the best one first."""
    entries = sorted(report.entries.items(), key=lambda item: -item[1].total_score)
    return table(
        *("policy", "total", "~95 % interval", "right", "asked", "~asked, new", "~asked, known"),
        *("~asks / session", "~sessions", "~failed"),
        rows=[_cells(name, entry) for name, entry in entries],
        own="ppo",
    )


def _cells(name: str, entry: Score) -> list[str]:
    return [
        name,
        f"{entry.total_score:.3f}",
        wording.interval(entry.ci95),
        f"{entry.accuracy:.3f}",
        f"{entry.asked_share:.3f}",
        _share(entry.asked_new),
        _share(entry.asked_known),
        f"{entry.asks_per_session:.3f}",
        f"{entry.sessions:,}",
        f"{entry.failed:,}",
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _prices(report: Report) -> Table | None:
    rows = [
        [name, f"{price / 1000:g}", *wording.price_cells(part)]
        for name, entry in report.entries.items()
        for price, part in entry.prices.items()
    ]
    return table("policy", "price", "total", "right", "asked", "~sessions", rows=rows)


def _streams(report: Report) -> Table | None:
    rows = [
        [stream, other, wording.signed(one.mean), wording.interval(one.ci95), f"{one.sessions:,}"]
        for stream, other, one in wording.stream_leads(report)
    ]
    return table("stream", "beside", f"ppo {wording.MINUS}", "95 % interval", "~sessions", rows=rows)


def _failures(of: str, found: Iterable[tuple[str, Mapping[str, int]]]) -> Table | None:
    rows = [[name, reason, f"{count:,}"] for name, reasons in found for reason, count in reasons.items()]
    return table(of, "=why sessions failed", "sessions", rows=rows)


def differences(found: Mapping[str, Difference]) -> Table | None:
    """Total score of a policy minus that of each other one."""
    return table(
        *("minus", "mean", "95 % interval", "~pairs", "~interval over"),
        rows=[
            [name, wording.signed(one.mean), wording.interval(one.ci95), f"{one.sessions:,}", one.units]
            for name, one in found.items()
        ],
    )


def wrong(entry: Score) -> Table | None:
    """By kind of question, the sessions without a right answer; causes without a session are left out."""
    causes = [cause for cause in CAUSES if any(kind.wrong[cause] for kind in entry.kinds.values())]
    return table(
        *("kind", "sessions", "right", "asked", *(CAUSES[cause] for cause in causes)),
        *("~right, answer in memory", "~right, not in memory"),
        rows=[
            [
                name,
                f"{kind.sessions:,}",
                f"{kind.accuracy:.3f}",
                f"{kind.asked_share:.3f}",
                *(f"{kind.wrong[cause]:,}" for cause in causes),
                *(wording.answered(part) for part in (kind.known, kind.new)),
            ]
            for name, kind in entry.kinds.items()
        ],
    )


def _seconds(report: Report) -> Table | None:
    total = sum(report.seconds.values())
    if not total:
        return None
    phases = sorted(report.seconds.items(), key=lambda item: -item[1])
    rows = [[phase, f"{seconds:,.1f}", f"{seconds / total:.1%}"] for phase, seconds in phases]
    return table("phase", "seconds", "share", rows=[*rows, ["all", f"{total:,.1f}", "100.0%"]])


def _speed(report: Report) -> Table | None:
    speed = report.throughput
    return table(
        *("", ""),
        rows=[
            ["sessions collected per second", f"{speed.sessions_per_second:,.1f}"],
            ["tokens learned per second, PPO", f"{speed.tokens_per_second:,.0f}"],
            ["tokens learned per second, imitation", f"{speed.imitation_tokens_per_second:,.0f}"],
            ["padding, share of processed tokens", f"{speed.padding:.2%}"],
            ["seconds per weight sync", f"{speed.sync_seconds:.2f}"],
        ],
    )


def _dropped(report: Report) -> Table | None:
    rows = [
        [entry.reason, "yes" if entry.asked else "no", f"{entry.tokens_up_to:,}", f"{entry.sessions:,}"]
        for entry in report.dropped
    ]
    return table("not trained on", "asked", "tokens up to", "sessions", rows=rows or [["none", "", "", "0"]])


def _origin(report: Report) -> Table | None:
    facts = [["configuration", report.config_hash]]
    if report.starts:
        start = report.starts[-1]
        facts += [
            ["started (UTC)", f"{report.starts[0].started}; starts in all: {len(report.starts)}"],
            ["commit", wording.commit(start.git)],
            ["machine", wording.machine(start.machine)],
            ["python", start.machine.python],
            *([name, version] for name, version in start.versions.items()),
        ]
    return table("", "=", rows=facts)
