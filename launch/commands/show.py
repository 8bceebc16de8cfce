"""`agile-ray show`.

RUN/evaluation/NAME.parquet    read: the sessions of an evaluation
RUN/segments/                  read: those of an iteration, and of earlier ones whose entries they read
RUN/sft/, or the run's model   read: the tokenizer
"""

from typing import TYPE_CHECKING, Annotated

import typer

from launch.commands.paths import RunPath

if TYPE_CHECKING:
    from launch.report.look.stored import Source, Stored


def command(
    run: RunPath,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only sessions without a right answer.")] = False,
    asked: Annotated[bool, typer.Option("--asked", help="Only sessions that asked.")] = False,
    known: Annotated[bool, typer.Option("--known", help="Only sessions whose answer memory held.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only sessions that a tool or the expert broke.")] = False,
    evaluation: Annotated[
        str | None,
        typer.Option("--evaluation", metavar="NAME", help="Look at this evaluation; default: ppo, if it is stored."),
    ] = None,
    iteration: Annotated[
        int | None, typer.Option("--iteration", metavar="I", help="Look at this iteration; default: the last one.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="X", help="Only this stream, named by its id or the end of it.")
    ] = None,
    session: Annotated[
        int | None, typer.Option("--session", metavar="N", help="Show session N of the stream, turn by turn.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Sessions to list.")] = 40,
) -> None:
    """List the sessions of a run, or show one turn by turn.

    A session shows who wrote what, with the policy's logprobs, its probability of asking, the critic's values,
    advantages and credit; which entries it read, who wrote them and what that cost; and who read its own.

    \b
    Examples:
      agile-ray show runs/quickstart --wrong --known
      agile-ray show runs/quickstart --iteration 9 --asked
      agile-ray show runs/quickstart --stream test/3 --session 12
    """
    from agile_ray.record.folder import RunFolder
    from launch.report.console import plain_console
    from launch.report.look import listing, stored

    source = stored.choose_source(RunFolder(run), evaluation=evaluation, iteration=iteration)
    sessions = stored.read(source)
    chosen = None if stream is None and session is None else stored.find_stream(sessions, stream)
    if session is not None and chosen is not None:
        _show_one(source, sessions, stored.find_session(sessions, stream=chosen, position=session))
        return
    kept = stored.Filter(wrong=wrong, asked=asked, known=known, failed=failed, stream=chosen)
    found = [one for one in sessions if kept.keeps(one.session)]
    print(f"{source}: {len(found):,} of {len(sessions):,} sessions")
    listing.show(found, plain_console(width=200), limit=limit)


def _show_one(source: "Source", sessions: "list[Stored]", one: "Stored") -> None:
    from launch.report.console import plain_console
    from launch.report.look import stored, transcript
    from launch.report.look.parts import lacks, parts
    from rollout.tokenizer import HFTokenizer

    has_tokens = any(line.segment is not None for line in one.segments)
    transcript.show(
        one,
        parts(one, HFTokenizer(stored.tokenizer_folder(source.run))) if has_tokens else [],
        plain_console(soft_wrap=True),
        source=str(source),
        writers=stored.writers(source, sessions, one.session),
        readers=stored.readers(sessions, one.session),
        lacks=lacks(one, trained=source.iteration is not None),
    )
