"""`agile-ray demonstrate`: writes a file of demonstrations, which `imitation.sessions` then names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError
from launch.commands.evaluate import Endpoint, EndpointModel, TokenPrices
from launch.commands.paths import as_path
from launch.commands.reference_policies import PROMPTED

if TYPE_CHECKING:
    from agile_ray.scripted.demonstration_writer import Tally

TEACHER = "teacher"
EVERY = 50
"""Sessions between two lines about how far a model has come."""


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    policy: Annotated[
        str, typer.Option(help=f"{TEACHER}, the script of imitation; with --endpoint one of {', '.join(PROMPTED)}.")
    ],
    sessions: Annotated[int, typer.Option(min=1, help="Sessions that are played in all, earlier calls included.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", parser=as_path, metavar="FILE", help="File of demonstrations, JSON lines.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as imitation.wrong_queries=0.1.")
    ] = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    token_prices: TokenPrices = None,
) -> None:
    """Let a teacher play sessions, and write them as demonstrations for imitation.

    The scripted teacher's are those that a training with imitation.sessions=N would play. A model's are kept only where
    the judge says right; FILE.refused.jsonl counts the others by reason. The same command goes on where it was stopped,
    and plays nothing twice.

    No engine and no Ray. The tokenizer is that of model.path; without such a folder, tokens are words, and budgets
    count words.

    \b
    Examples:
      agile-ray demonstrate quickstart --policy teacher --sessions 3200 -o script.jsonl
      agile-ray demonstrate quickstart --policy prompted_agent --endpoint URL --model NAME --sessions 500 -o right.jsonl
      agile-ray train quickstart imitation.sessions=right.jsonl
    """
    if policy not in (TEACHER, *PROMPTED):
        raise ConfigError(f"--policy: one of {', '.join((TEACHER, *PROMPTED))}, found {policy}")
    if (policy in PROMPTED) != (endpoint is not None) or (endpoint is None) != (model is None):
        raise ConfigError(
            f"--endpoint: {' and '.join(PROMPTED)} need --endpoint URL and --model NAME, and {TEACHER} takes neither; "
            f"found --policy {policy}"
        )
    if token_prices is not None and endpoint is None:
        raise ConfigError("--token-prices: they are those of --endpoint; leave them out")
    import asyncio

    import envs
    from agile_ray.scripted.demonstration_writer import write_teacher
    from agile_ray.scripted.demonstrator import write_right
    from envs.endpoints.chat import Chat
    from launch.report.skipped import print_skipped
    from launch.run.play_prompted import REQUEST_S, prompted, used
    from launch.run.preflight import check_output
    from launch.run.shipped_configs import read
    from rollout.rules import build_rules

    settings = read(config, overrides or ())
    check_output(output)
    environment = envs.build(settings.env, seed=settings.seed)
    rules = build_rules(
        environment,
        env=settings.env,
        agent=settings.agent,
        memory=settings.memory,
        model=settings.model.path if settings.model.path.is_dir() else None,
        seed=settings.seed,
    )
    if endpoint is None or model is None:
        imitation = settings.imitation.model_copy(update={"sessions": sessions})
        tally = asyncio.run(
            write_teacher(output, imitation, environment, rules, seed=settings.seed, progress=lambda _: None)
        )
    else:
        chat = Chat(url=endpoint, model=model, deadline_s=REQUEST_S)
        chat.check()
        asked = prompted(policy, chat, environment)
        tally = asyncio.run(
            write_right(
                output, asked, environment, rules, sessions=sessions, progress=lambda found: _say(found, sessions)
            )
        )
        print(used(chat.usage, token_prices))
    print_skipped(environment)
    print(f"{output}: {tally.said}")


def _say(found: "Tally", sessions: int) -> None:
    if found.played % EVERY == 0:
        print(f"{found.played} of {sessions} sessions: {found.kept} kept", flush=True)
