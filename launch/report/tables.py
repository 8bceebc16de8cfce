"""The tables that `agile-ray report` prints."""

from rich.console import Console
from rich.table import Table

from launch.report import wording
from launch.report.summary import Report


def show(report: Report, console: Console) -> None:
    """Print warnings, the policies with PPO's lead over each, the headline and the ledger, in at most 80 columns."""
    for sentence in report.warnings:
        console.print(f"WARNING: {sentence}", style="bold", highlight=False)
    title = f"{report.run}: {report.environment}, seed {report.seed}, one ask costs {wording.cost(report.advice_cost)}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for head in ("total", "95 % interval", "right", "asked", f"ppo {wording.MINUS}", "95 % interval"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, entry in report.entries.items():
        difference = report.differences.get(name)
        table.add_row(
            name,
            f"{entry.total_score:.3f}",
            wording.interval(entry.ci95),
            f"{entry.accuracy:.3f}",
            f"{entry.asked_share:.3f}",
            wording.signed(difference.mean) if difference else "",
            wording.interval(difference.ci95) if difference else "",
            style="bold" if name == "ppo" else None,
        )
    if report.entries:
        console.print(table)
    _show_prices(report, console)
    _show_streams(report, console)
    for sentence in wording.headline(report):
        console.print(sentence, highlight=False)
    _show_ledger(report, console)


def _show_prices(report: Report, console: Console) -> None:
    """A line for each policy and price, if episodes have different ones."""
    table = Table(title="by price", title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("policy")
    for head in ("price", "total", "right", "asked", "sessions"):
        table.add_column(head, justify="right")
    for name, entry in report.entries.items():
        for price, part in entry.prices.items():
            table.add_row(name, f"{price / 1000:g}", *wording.price_cells(part))
    if table.row_count:
        console.print(table)


def _show_streams(report: Report, console: Console) -> None:
    """PPO's lead in each stream, if there are few; intervals over runs of sessions in it."""
    table = Table(title="by stream", title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for head in ("stream", "beside"):
        table.add_column(head)
    for head in (f"ppo {wording.MINUS}", "95 % interval"):
        table.add_column(head, justify="right", no_wrap=True)
    for stream, other, lead in wording.stream_leads(report):
        table.add_row(stream, other, wording.signed(lead.mean), wording.interval(lead.ci95))
    if table.row_count:
        console.print(table)


def _show_ledger(report: Report, console: Console) -> None:
    table = Table(title="ledger of the training", title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("account")
    table.add_column("asks", justify="right")
    table.add_column("charged", justify="right")
    for cells in wording.accounts(report.ledger):
        table.add_row(*cells)
    console.print(table)
    console.print(wording.agreement(report.ledger), highlight=False)
