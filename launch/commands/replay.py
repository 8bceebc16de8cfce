"""`agile-ray replay`: trains again on the sessions that a run stored, with no engine, no tool and no expert.

RUN/sft          the policy after imitation, with the learners' state       read
RUN/segments     the sessions of each iteration                             read, in place of `collect`
RUN/history.jsonl                                                           read, to compare losses
<output>/        a run folder: config.yaml, run.json, history.jsonl, segments/, checkpoints/, events/
    replay.json  names RUN; once the replay has ended, also how it compares with RUN

The loop is that of training (agile_ray/loop.py); it ends with the last iteration that RUN stored.
"""

from pathlib import Path
from typing import Annotated

import typer

from agile_ray.record.folder import RunFolder
from launch.run.replay import replay


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished or stopped run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as credit.mode=none.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="NAME", help="Name of its folder beside RUN: RUN-replay.")
    ] = None,
) -> None:
    """Train again on the sessions that a run stored.

    Nothing is played: sessions, advice and prices are what they were, only the learning is done again, from the policy
    after imitation on. The same command resumes.

    Without overrides the replay must repeat the run: each iteration is compared, and the exit code is 1 if tokens,
    rewards, receipts or credit differ in a bit, or a loss by more than a thousandth of itself. With overrides it is an
    experiment on the same sessions, and the comparison shows what they changed.

    \b
    Examples:
      agile-ray replay runs/quickstart
      agile-ray replay runs/quickstart credit.mode=none --output no-credit
    """
    replay(RunFolder(run.resolve()), overrides or (), name=output)
