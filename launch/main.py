"""The command line `agile-ray`: one file in this folder for each command.

Importing this module loads no heavy library: every command imports what it needs when it runs.
"""

import typer

from launch.border import border
from launch.commands import evaluate, keys, model, replay, report, reprice, submit, sweep, train

HELP = """Train AGILE agents: language models that remember, use tools, reflect, and ask an expert at a price.

\b
First steps:
  agile-ray model tiny --output models/tiny        a small model from scratch
  agile-ray train quickstart                       imitation, then PPO; `train quickstart` again resumes
  agile-ray train quickstart env.advice_cost=0.5 run.name=dear
  agile-ray report runs/quickstart                 tables and pictures of a run
  agile-ray evaluate quickstart --policy always_ask --output always.json
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("report")(report.command)
app.command("replay")(replay.command)
app.command("reprice")(reprice.command)
app.add_typer(model.app, name="model")
app.command("submit")(submit.command)
app.command("sweep")(sweep.command)
app.command("keys")(keys.command)


def main() -> None:
    """Run the command line and exit with its code."""
    with border():
        app(prog_name="agile-ray")


if __name__ == "__main__":
    main()
