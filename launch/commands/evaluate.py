"""`agile-ray evaluate`: plays a policy, prints a table of its score, and can write it as JSON.

--policy                    needs
a reference policy's name   no Ray and no engine; plays by the config's rules, with the tokenizer of model.path if that
                            folder exists, else with words as tokens
a checkpoint's folder       Ray and an engine, as in training; greedy, lanes in lockstep
ask_unless_own_search,      the same; --checkpoint names the folder, and a script decides when to ask
own_non_adaptive, own_answer
prompt, prompted_agent      no Ray and no engine, but an OpenAI-compatible endpoint, by --endpoint and --model; its key
                            is read from OPENAI_API_KEY
"""

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError
from agile_ray.units import Split
from launch.commands.paths import as_path
from launch.commands.reference_policies import GUIDES, PROMPTED, REFERENCE_POLICIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agile_ray.agent.environment import Environment
    from agile_ray.agent.rules import Rules
    from agile_ray.config import RunConfig
    from agile_ray.evaluation.score import Score
    from agile_ray.scripted.references import Habits
    from agile_ray.types import Session
    from envs.endpoints.chat import Usage

Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="OpenAI-compatible endpoint, such as http://localhost:8000/v1. Key: OPENAI_API_KEY."
    ),
]
"""Of commands that a chat model may play."""
EndpointModel = Annotated[str | None, typer.Option(metavar="NAME", help="Model of --endpoint.")]
TokenPrices = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="IN OUT", help="Prices of a million tokens of --endpoint, read and written."),
]


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a shipped config, or a YAML file.")],
    policy: Annotated[
        str,
        typer.Option(
            help=f"A checkpoint's folder, or one of: {', '.join(REFERENCE_POLICIES)}. With --checkpoint, one of: "
            f"{', '.join(GUIDES)}. With --endpoint, one of: {', '.join(PROMPTED)}."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as env.advice_cost=0.5.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Split to play.")] = "test",
    categories: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Categories of that split. Default: those of env.categories.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", parser=as_path, metavar="FILE", help="JSON file for the metrics.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            parser=as_path,
            metavar="FOLDER",
            help="Folder for the answers, CATEGORY.jsonl each, as AGILE's data/eval.py reads them.",
        ),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="For random and teacher: probability to ask; see --first. Default: imitation.asked_share.",
        ),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="For non_adaptive and own_non_adaptive: how many first sessions of a stream ask. Default: --share of "
            "the stream.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(parser=as_path, metavar="FOLDER", help="Policy that answers where a script decides when to ask."),
    ] = None,
    endpoint: Endpoint = None,
    model: EndpointModel = None,
    token_prices: TokenPrices = None,
) -> None:
    """Measure a policy: total score, asked share, accuracy.

    evaluate.sessions says how many sessions are played, shared among all streams of a split that ends;
    evaluate.sessions=null plays every stream to its end.

    \b
    Examples:
      agile-ray evaluate quickstart --policy oracle --output oracle.json
      agile-ray evaluate quickstart --policy random --share 0.4 env.advice_cost=0.5
      agile-ray evaluate productqa --policy always_ask --categories all_pans env.data=FOLDER
      agile-ray evaluate quickstart --policy runs/quickstart/checkpoints/best
      agile-ray evaluate quickstart --policy prompted_agent --endpoint http://localhost:8000/v1 --model NAME
      agile-ray evaluate quickstart --policy ask_unless_own_search --checkpoint runs/quickstart/checkpoints/best
    """
    given = [] if categories is None else [f"env.categories.{split}=[{categories}]"]
    from launch.run.shipped_configs import read

    settings = read(config, [*(overrides or ()), *given])
    _check(policy, settings, share=share, first=first, checkpoint=checkpoint)
    _check_endpoint(policy, endpoint=endpoint, model=model, token_prices=token_prices)
    _check_outputs(output, predictions)

    import envs
    from agile_ray.evaluation.score import score
    from agile_ray.record.json_files import write_json
    from envs.predictions import exported
    from launch.report.skipped import print_skipped

    environment = envs.build(settings.env, seed=settings.seed)
    if predictions is not None:
        exported(environment, ())  # an environment without them is an error here, not after hours
    habits = _habits(environment, settings, split=split, share=share, first=first)
    usage = None
    if endpoint is not None and model is not None:
        sessions, usage = _play_prompted(settings, environment, policy, split=split, endpoint=endpoint, model=model)
    else:
        sessions = play(settings, environment, policy, habits, split=split, checkpoint=checkpoint)
    result = score(sessions, seed=settings.seed)
    print_skipped(environment)
    _print(policy, settings, result, split=split)
    _print_usage(environment, usage, token_prices)
    if policy in (*REFERENCE_POLICIES, *PROMPTED) and _tokenizer_folder(settings) is None:
        print(f"model.path: no folder {settings.model.path}, so tokens are words; agent.session_tokens counts words")
    if predictions is not None:
        _write_predictions(environment, sessions, predictions)
    if output is not None:
        told = {} if usage is None else {"model": model, "usage": asdict(usage), "token_prices": token_prices}
        metrics = {
            "policy": policy,
            **told,
            "habits": asdict(habits),
            **_origin(settings, split=split),
            **asdict(result),
        }
        write_json(output, metrics)


def _check_outputs(output: Path | None, predictions: Path | None) -> None:
    """Refuse files that can't be written."""
    from launch.run.preflight import check_output

    for path in (output, None if predictions is None else predictions / "predictions.jsonl"):
        if path is not None:
            check_output(path)


def _write_predictions(environment: "Environment", sessions: "Sequence[Session]", folder: Path) -> None:
    from agile_ray.record.json_files import write_json_lines
    from envs.predictions import exported

    for name, rows in exported(environment, sessions).items():
        write_json_lines(folder / f"{name}.jsonl", rows)


def _print_usage(environment: "Environment", usage: "Usage | None", token_prices: tuple[float, float] | None) -> None:
    """Print what chat models were used for; a checkpoint's sessions are judged in the actors, which don't tell."""
    from envs.endpoints.llm_judge import LLMJudged
    from launch.run.play_prompted import used

    if usage is not None:
        print(used(usage, token_prices))
    if isinstance(environment, LLMJudged):
        print(used(environment.judge.chat.usage, None, of="judge"))


def _play_prompted(
    config: "RunConfig", environment: "Environment", policy: str, *, split: Split, endpoint: str, model: str
) -> "tuple[list[Session], Usage]":
    """Play a prompted policy.

    Returns:
        The sessions, and what the endpoint was used for.

    Raises:
        ConfigError: the endpoint refuses the key, has no such model, or nothing is there.
    """
    from agile_ray.evaluation.plays import plays
    from envs.endpoints.chat import Chat
    from launch.run.play_prompted import REQUEST_S, play_prompted, prompted

    chat = Chat(url=endpoint, model=model, deadline_s=REQUEST_S)
    chat.check()
    sessions = play_prompted(
        prompted(policy, chat, environment),
        environment,
        split=split,
        plays=plays(environment, split=split, sessions=config.evaluate.sessions),
        rules=_rules(config, environment),
    )
    return sessions, chat.usage


def _rules(config: "RunConfig", environment: "Environment") -> "Rules":
    from rollout.rules import build_rules

    return build_rules(
        environment,
        env=config.env,
        agent=config.agent,
        memory=config.memory,
        model=_tokenizer_folder(config),
        seed=config.seed,
    )


def play(
    config: "RunConfig",
    environment: "Environment",
    policy: str,
    habits: "Habits",
    *,
    split: Split,
    checkpoint: Path | None = None,
) -> "list[Session]":
    """Play a policy on as many sessions of a split as `evaluate.sessions` says.

    Raises:
        ConfigError: no such checkpoint or category.
    """
    if policy not in REFERENCE_POLICIES:
        from agile_ray.scripted.guided import GUIDES, Guide
        from launch.run.play_checkpoint import play_checkpoint

        guide = next((Guide(name=name, first=habits.first) for name in GUIDES if name == policy), None)
        return play_checkpoint(config, checkpoint or Path(policy).expanduser(), split=split, guide=guide)
    from agile_ray.evaluation.plays import plays
    from agile_ray.scripted.references import play_sessions, reference

    return play_sessions(
        reference(policy, environment, habits),
        environment,
        split=split,
        plays=plays(environment, split=split, sessions=config.evaluate.sessions),
        rules=_rules(config, environment),
    )


def _tokenizer_folder(config: "RunConfig") -> Path | None:
    """The model's folder; None if there is none."""
    return config.model.path if config.model.path.is_dir() else None


def _check_endpoint(
    policy: str, *, endpoint: str | None, model: str | None, token_prices: tuple[float, float] | None
) -> None:
    """Refuse a prompted policy without an endpoint, and the reverse."""
    if (policy in PROMPTED) != (endpoint is not None) or (endpoint is None) != (model is None):
        raise ConfigError(
            f"--endpoint: {' and '.join(PROMPTED)} need --endpoint URL and --model NAME, and nothing else takes them; "
            f"found --policy {policy}"
        )
    if token_prices is not None and endpoint is None:
        raise ConfigError("--token-prices: they are those of --endpoint; leave them out")


def _check(
    policy: str, config: "RunConfig", *, share: float | None, first: int | None, checkpoint: Path | None
) -> None:
    """Refuse an unknown policy, and options that it would ignore."""
    if (policy in GUIDES) != (checkpoint is not None):
        raise ConfigError(
            f"--checkpoint: {', '.join(GUIDES)} need the folder of a policy that answers, and nothing else takes it; "
            f"found --policy {policy}"
        )
    if checkpoint is not None and not checkpoint.is_dir():
        raise ConfigError(f"--checkpoint {checkpoint}: no such folder")
    if policy not in (*REFERENCE_POLICIES, *GUIDES, *PROMPTED) and not Path(policy).expanduser().is_dir():
        near = difflib.get_close_matches(policy, (*REFERENCE_POLICIES, *GUIDES, *PROMPTED), n=1)
        raise ConfigError(
            f"--policy {policy}: no such folder{f'; did you mean {near[0]}?' if near else ''}; reference policies are "
            f"{', '.join(REFERENCE_POLICIES)}"
        )
    if first is not None and policy not in ("non_adaptive", "own_non_adaptive"):
        raise ConfigError(
            f"--first: only non_adaptive and own_non_adaptive take it, found --policy {policy}; leave it out"
        )
    if share is None:
        return
    if policy not in ("random", "teacher", "non_adaptive", "own_non_adaptive"):
        raise ConfigError(
            "--share: only random, teacher, non_adaptive and own_non_adaptive take it, found "
            f"--policy {policy}; leave it out"
        )
    if first is not None:
        raise ConfigError("--share: --first says already how many sessions ask; give one of the two")
    if policy == "teacher" and config.imitation.asking != "random":
        raise ConfigError(
            f"--share: this teacher asks by {config.imitation.asking}; leave it out, or set imitation.asking=random"
        )


def _habits(
    environment: "Environment", config: "RunConfig", *, split: Split, share: float | None, first: int | None
) -> "Habits":
    from agile_ray.scripted.references import Habits

    if share is None:
        share = config.imitation.asked_share
    if first is None:
        first = round(share * len(environment.stream(split=split, index=0).questions))
    return Habits(seed=config.seed, asked_share=share, first=first, asking=config.imitation.asking)


def _origin(config: "RunConfig", *, split: Split) -> dict[str, object]:
    return {
        "env": config.env.name,
        "split": split,
        "categories": config.env.categories.get(split),
        "seed": config.seed,
        "advice_cost": config.env.advice_cost,
        "config_hash": config.digest,
    }


def _print(policy: str, config: "RunConfig", result: "Score", *, split: Split) -> None:
    from rich.table import Table

    from launch.report.console import plain_console
    from launch.report.wording import answered, cost, price_cells

    title = f"{policy} on {config.env.name}/{split}, advice at {cost(config.env.advice_cost)}, {result.units}"
    table = Table(title=title)
    for name in ("kind", "sessions", "asked share", "accuracy", "commonest error"):
        table.add_column(name, justify="left" if name in ("kind", "commonest error") else "right")
    for kind, part in result.kinds.items():
        cause, times = max(part.wrong.items(), key=lambda item: item[1])
        error = f"{cause} ({times})" if times else ""
        table.add_row(kind, str(part.sessions), f"{part.asked_share:.4f}", f"{part.accuracy:.4f}", error)
    table.add_section()
    table.add_row("all", str(result.sessions), f"{result.asked_share:.4f}", f"{result.accuracy:.4f}", "")
    console = plain_console(soft_wrap=True)
    console.print(table)
    for kind, part in result.kinds.items():
        if part.known is not None:
            others = "" if part.new is None else f", {answered(part.new)} others"
            console.print(f"{kind}: right {answered(part.known)} sessions whose answer memory held{others}")
    for price, part in result.prices.items():
        total, right, asked, sessions = price_cells(part)
        console.print(f"at {price / 1000:g}: total {total}, right {right}, asked {asked}, {sessions} sessions")
    ends = "no interval" if result.ci95 is None else "[{:.4f}, {:.4f}]".format(*result.ci95)
    console.print(
        f"total score {result.total_score:.4f} {ends}, "
        f"{result.asks_per_session:.4f} asks per session, {result.failed} failed",
    )
