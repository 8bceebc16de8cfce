"""`agile-ray inbox`.

FOLDER/inbox.sqlite    asks and answers
FOLDER/token           made unless AGILE_INBOX_TOKEN is set
FOLDER/lock            held by the process that serves the inbox
"""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.paths import as_path


def command(
    folder: Annotated[Path, typer.Argument(parser=as_path, metavar="FOLDER", help="Folder of the inbox.")],
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen at. With another one than the default, put a proxy with TLS in front: the token is "
            "sent as it is.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: any free port.")] = 8322,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", parser=as_path, metavar="FILE", help="Write asks and answers to a .jsonl or .parquet, and end."
        ),
    ] = None,
) -> None:
    """Let people answer what agents ask, in a browser, until Ctrl-C.

    A run asks here with env.expert.name=inbox, env.expert.url=URL, and AGILE_INBOX_TOKEN in its environment. An ask is
    there once, whatever is restarted, and is answered once, however many people are there. AGILE_INBOX_WEBHOOK is
    told when asks wait.

    \b
    Examples:
      agile-ray inbox inbox
      agile-ray inbox inbox --export asked.jsonl
    """
    if export is not None:
        from launch.inbox.export import export as write
        from launch.run.preflight import check_output

        check_output(export, option="--export")
        print(f"{export}: {write(folder, export)} asks")
        return
    from launch.inbox.server import serve

    serve(folder, host=host, port=port)
