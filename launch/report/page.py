"""report.html: one file that needs no network and no other file.

Only a page with pictures imports matplotlib, which takes most of a second.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from agile_ray.evaluation import failures
from agile_ray.evaluation.score import Cause, Difference, Score
from agile_ray.record.history import FAILED
from launch.report.summary import Report
from launch.report.wording import accounts, agreement, cost, headline, interval, signed

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 900px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; }
p { margin: .4rem 0 .8rem; } .lead { font-size: 1.1rem; } .note { color: #555; font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4;
         font-variant-numeric: tabular-nums; }
th { font-weight: 600; white-space: normal; border-bottom: 1px solid #888; vertical-align: bottom; }
.names td, th:first-child, td:first-child { text-align: left; } tr.own td { font-weight: 600; }
img { width: 100%; height: auto; display: block; } code { font-size: .9em; overflow-wrap: anywhere; }
"""
CAUSES = {
    Cause.PREDICTED_WRONG: "predicted wrong",
    Cause.ROWS_WRONG: "search: wrong rows",
    Cause.BAD_QUERY: "search: bad query",
    Cause.ADVICE_WRONG: "asked, still wrong",
    Cause.NO_ANSWER: "no answer",
    Cause.CUT: "cut by a budget",
}


def render(report: Report) -> str:
    """The whole page."""
    parts = [
        f"<h1>{escape(report.run)}</h1>",
        f"<p>Environment <b>{escape(report.environment)}</b>, price of one ask <b>{cost(report.advice_cost)}</b>, "
        f"seed {report.seed}. Everything on this page is in <code>report.json</code> beside it.</p>",
        *(f'<p class="lead">{sentence}</p>' for sentence in headline(report)),
        *_results(report),
        *_course(report),
        *_budgets(report),
        *_ledger(report),
        *_machinery(report),
        *_origin(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.run)}: agile-ray report</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _results(report: Report) -> Iterable[str]:
    if not report.entries:
        return
    from launch.report import pictures

    yield "<h2>Policies on the test streams</h2>"
    yield _table(
        ["policy", "total score", "95 % interval", "accuracy", "asked", "asks / session", "sessions", "failed"],
        [_score_cells(name, entry) for name, entry in report.entries.items()],
        own="ppo",
    )
    yield (
        '<p class="note">Total score = accuracy minus prices paid per session. Asked: share of sessions that asked at '
        "least once. sft and ppo answer greedily, sft_sampled and ppo_sampled at temperature 1. The oracle knows what "
        f"will be asked again. Intervals over {next(iter(report.entries.values())).units}. Failed sessions "
        "are excluded from all other columns.</p>"
    )
    yield from _failures([(name, entry.reasons) for name, entry in report.entries.items()], of="policy")
    yield _image(pictures.totals(report), "Total score of every policy with its 95 % interval")
    for name, differences in (("ppo", report.differences), ("ppo_sampled", report.differences_sampled)):
        if differences:
            yield f"<h2>Total score of {name} minus each other policy</h2>"
            yield _difference_table(differences)


def _failures(found: Iterable[tuple[str, Mapping[str, int]]], *, of: str) -> Iterable[str]:
    """A table of failed sessions by reason, if there are any."""
    rows = [[name, reason, f"{count:,}"] for name, reasons in found for reason, count in reasons.items()]
    if rows:
        yield _table([of, "why sessions failed", "sessions"], rows)


def _score_cells(name: str, entry: Score) -> list[str]:
    return [
        name,
        f"{entry.total_score:.3f}",
        interval(entry.ci95),
        f"{entry.accuracy:.3f}",
        f"{entry.asked_share:.3f}",
        f"{entry.asks_per_session:.3f}",
        f"{entry.sessions:,}",
        f"{entry.failed:,}",
    ]


def _difference_table(differences: Mapping[str, Difference]) -> str:
    return _table(
        ["minus", "mean", "95 % interval", "pairs", "interval over"],
        [
            [name, signed(entry.mean), interval(entry.ci95), f"{entry.sessions:,}", entry.units]
            for name, entry in differences.items()
        ],
    )


def _course(report: Report) -> Iterable[str]:
    if not (report.progress or report.curves):
        return
    from launch.report import pictures

    if report.progress:
        yield "<h2>Over the iterations</h2>"
        yield _image(pictures.progress(report), "Total score, accuracy and asked share over iterations")
        yield (
            '<p class="note">Lines named at the right are the reference policies on the test streams; training and '
            "validation play other streams, so compare trends rather than levels.</p>"
        )
    if report.curves:
        yield "<h2>Along the stream</h2>"
        yield _image(pictures.along_the_stream(report), "Asked share and accuracy over the position in the stream")
        yield '<p class="note">Memory fills from left to right. Each point is a tenth of the stream.</p>'


def _budgets(report: Report) -> Iterable[str]:
    for name, entry in report.entries.items():
        if name not in ("sft", "ppo"):
            continue
        yield f"<h2>Where {name} goes wrong, by kind of question</h2>"
        yield _table(
            ["kind", "sessions", "asked", "accuracy", *CAUSES.values()],
            [
                [
                    kind,
                    f"{budget.sessions:,}",
                    f"{budget.asked_share:.3f}",
                    f"{budget.accuracy:.3f}",
                    *(f"{budget.wrong[cause]:,}" for cause in CAUSES),
                ]
                for kind, budget in entry.kinds.items()
            ],
        )
        endings = ", ".join(f"{ending} {count:,}" for ending, count in sorted(entry.endings.items()))
        yield f'<p class="note">Sessions by cause, one cause each. Endings: {escape(endings)}.</p>'


def _ledger(report: Report) -> Iterable[str]:
    yield "<h2>Ledger of the training</h2>"
    yield _table(["account", "asks", "charged"], accounts(report.ledger))
    yield f"<p>{agreement(report.ledger)}</p>"
    yield (
        '<p class="note">In units of the reward for a right answer. Failed: sessions that a broken tool or expert '
        "ended. Abandoned: asks after the checkpoint that the run resumed from, and asks in attempts that were "
        "repeated. Books agree if, in every session that was trained on, the learner was charged what the receipts say "
        "and rewarded as the answer was judged, and each iteration's total score equals that of the history.</p>"
    )


def _machinery(report: Report) -> Iterable[str]:
    if report.seconds:
        total = sum(report.seconds.values())
        yield "<h2>Wall time</h2>"
        phases = sorted(report.seconds.items(), key=lambda item: -item[1])
        yield _table(
            ["phase", "seconds", "share"],
            [[phase, f"{seconds:,.1f}", f"{seconds / total:.1%}"] for phase, seconds in phases]
            + [["all", f"{total:,.1f}", "100.0%"]],
        )
    speed = report.throughput
    yield "<h2>Throughput</h2>"
    yield _table(
        ["", ""],
        [
            ["sessions collected per second", f"{speed.sessions_per_second:,.1f}"],
            ["tokens learned per second, PPO", f"{speed.tokens_per_second:,.0f}"],
            ["tokens learned per second, imitation", f"{speed.imitation_tokens_per_second:,.0f}"],
            ["padding, share of processed tokens", f"{speed.padding:.2%}"],
            ["seconds per weight sync", f"{speed.sync_seconds:.2f}"],
        ],
    )
    yield "<h2>Dropped sessions and discarded work</h2>"
    gone = report.discarded
    yield (
        f"<p>Resumptions: {gone.resumptions}; {gone.lines:,} recorded events and {gone.rows:,} stored segments "
        f"({gone.seconds:,.0f} s) came after a checkpoint and were discarded.</p>"
    )
    yield _table(
        ["not trained on", "asked", "tokens up to", "sessions"],
        [
            [entry.reason, "yes" if entry.asked else "no", f"{entry.tokens_up_to:,}", f"{entry.sessions:,}"]
            for entry in report.dropped
        ]
        or [["none", "", "", "0"]],
    )
    failed = {name.removeprefix(FAILED): count for name, count in report.counts.items() if name.startswith(FAILED)}
    yield from _failures([("training", failures.joined(failed.items()))], of="sessions of")
    if report.counts:
        others = {name: count for name, count in report.counts.items() if not name.startswith(FAILED)}
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(others.items()))
        yield f'<p class="note">Training sessions by ending, and their remarks: {escape(counts)}.</p>'


def _origin(report: Report) -> Iterable[str]:
    yield "<h2>Where the numbers come from</h2>"
    facts = [["configuration", report.config_hash]]
    if report.starts:
        start = report.starts[-1]
        facts += [
            ["started (UTC)", f"{report.starts[0].started}; starts in all: {len(report.starts)}"],
            ["commit", start.git.commit + (" with uncommitted changes" if start.git.dirty else "")],
            ["machine", f"{start.machine.cores} cores, {start.machine.memory_gib:g} GiB, {start.machine.system}"],
            ["python", start.machine.python],
            *([name, version] for name, version in start.versions.items()),
        ]
    yield _table(["", ""], facts, code=True)


def _table(head: Sequence[str], body: Sequence[Sequence[str]], *, own: str | None = None, code: bool = False) -> str:
    """An HTML table; the line whose first cell is `own` is set in bold."""
    lines = ['<div class="scroll"><table>']
    if code:
        lines[0] = '<div class="scroll"><table class=names>'
    if any(head):
        lines.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>")
    for texts in body:
        cells = [f"<td>{escape(text)}</td>" for text in texts]
        if code:
            cells[1:] = [f"<td><code>{escape(text)}</code></td>" for text in texts[1:]]
        lines.append(f"<tr{' class=own' if texts[0] == own else ''}>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table></div>"])


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
