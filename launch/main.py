"""The command line `agile-ray`: one module in launch/commands for each command.

Importing this module imports no heavy library. A command module contains the signature and the help; its function
imports the modules that do the work.
"""

from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from launch.border import border, interrupted
from launch.commands import (
    demonstrate,
    evaluate,
    frontier,
    keys,
    model,
    replay,
    report,
    reprice,
    show,
    study,
    sweep,
    table,
    train,
)
from launch.commands.environments import check, data, new
from launch.commands.jobs import listing, logs, stop, submit
from launch.commands.sessions import export, inbox, view
from launch.commands.specs import plan, status, validate

if TYPE_CHECKING:
    from typer._click.core import Context  # the type that TyperGroup.invoke takes

HELP = """Train AGILE agents: language models that remember, use tools, reflect, and ask an expert at a price.

\b
First steps:
  agile-ray model tiny --output models/tiny        make a small model
  agile-ray train quickstart                       imitation, then PPO; the same command again resumes
  agile-ray report runs/quickstart                 tables, and a page with charts in runs/quickstart/report.html
  agile-ray show runs/quickstart --wrong           sessions with a wrong answer
  agile-ray view runs/quickstart                   every session, in a browser
\b
Next:
  agile-ray keys                                   every setting, its default and its meaning
  agile-ray validate spec.yaml                     check a spec, and start nothing
  agile-ray plan spec.yaml --cluster 2x8xH100-80   what it takes, and whether it fits
  agile-ray status runs/quickstart                 where a training is
  agile-ray train quickstart env.advice_cost=0.5 run.name=price-0.5
  agile-ray evaluate quickstart --policy always_ask
\b
On a Ray cluster:
  agile-ray submit spec.yaml --address http://10.0.0.1:8265
  agile-ray jobs --address http://10.0.0.1:8265    then status, logs and stop, by the name of a run
\b
`agile-ray COMMAND --help` explains a command and shows examples.
"""


class Commands(TyperGroup):
    """Passes Ctrl-C on to the border; Typer would end without a word."""

    def invoke(self, ctx: "Context") -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise interrupted() from None


app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"agile-ray {version('agile-ray')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


app.add_typer(model.app, name="model")
app.command("train")(train.command)
app.command("validate")(validate.command)
app.command("plan")(plan.command)
app.command("status")(status.command)
app.command("report")(report.command)
app.command("evaluate")(evaluate.command)
app.command("show")(show.command)
app.command("view")(view.command)
app.command("export")(export.command)
app.command("inbox")(inbox.command)
app.command("frontier")(frontier.command)
app.add_typer(new.app, name="new")
app.command("check")(check.command)
app.command("keys")(keys.command)
app.command("data")(data.command)
app.command("demonstrate")(demonstrate.command)
app.command("sweep")(sweep.command)
app.add_typer(study.app, name="study")
app.command("replay")(replay.command)
app.command("table")(table.command)
app.command("reprice")(reprice.command)
app.command("submit")(submit.command)
app.command("jobs")(listing.command)
app.command("logs")(logs.command)
app.command("stop")(stop.command)


def main() -> None:
    """Run the command line and exit with its code."""
    with border():
        app(prog_name="agile-ray")


if __name__ == "__main__":
    main()
