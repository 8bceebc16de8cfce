"""`agile-ray replay`."""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import as_path


def command(
    run: Annotated[Path, typer.Argument(parser=as_path, metavar="RUN", help="Folder of a finished or stopped run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as credit.mode=none.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="NAME", help="Name of the new folder beside RUN; default: RUN-replay."),
    ] = None,
) -> None:
    """Repeat a run's training on the sessions that it stored.

    No session is played again: answers, advice and prices stay the same. Training starts from the policy after
    imitation and ends with the last stored iteration. Running the same command again resumes.

    Without overrides, the replay must repeat the run. Every iteration is compared, and the exit code is 1 if tokens,
    rewards, receipts or credit differ at all, or if a loss differs by more than a thousandth of its value. With
    overrides, the replay is an experiment on the same sessions, and the comparison shows what they change.

    \b
    Examples:
      agile-ray replay runs/quickstart
      agile-ray replay runs/quickstart credit.mode=none --output no-credit
    """
    from agile_ray.record.folder import RunFolder
    from launch.run.replay import replay

    replay(RunFolder(run.resolve()), overrides or (), name=output)
