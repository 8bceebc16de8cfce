"""LoRA (Hu et al., 2021, eq. 3): the model's own weights stay frozen; beside each linear layer two thin matrices learn.

    output = W x + SCALE B A x        W [out, in] frozen; A [rank, in] random; B [out, rank], at first 0

The layers are those of attention and MLP: every linear layer but the output head. The embeddings of the function
tokens, and their rows of the head, are trained whole. They were added to the vocabulary with equal values, so without
that no layer could tell one function from another.

Only what learns has gradients, optimizer state and a place in checkpoints. Engines get W + SCALE B A, so they serve a
plain model. The reference policy is the same model with the adapter's values of the end of imitation: there is no
second copy of W.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from agile_ray.errors import ConfigError, LearnerError
from learner.model import Weight

SCALE = 2
"""LoRA's alpha over its rank."""
NAME = "default"
"""peft's name of the adapter in memory; it is in no file."""
WRAPPED = ".base_layer"
"""What peft adds to the name of a layer that has an adapter."""
FILE = "adapter_model.safetensors"


class Adapter(nn.Module):
    """What LoRA trains of one language model."""

    def __init__(self, model: PreTrainedModel, *, rank: int, token_ids: Sequence[int]) -> None:
        """Freeze the model, and put adapters beside its linear layers.

        Args:
            rank: of each layer's change.
            token_ids: of the function tokens.

        Raises:
            ConfigError: the model has no linear layers.
        """
        super().__init__()
        self.base = _checksum(model)
        """Identifies the frozen weights."""
        self._config = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules="all-linear")
        try:
            inject_adapter_in_model(self._config, model, adapter_name=NAME)
        except ValueError as error:
            raise ConfigError(f"learner.lora_rank: a {type(model).__name__} has no linear layers ({error})") from error
        self._layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear)}
        for layer in self._layers.values():
            layer.cast_input_dtype_enabled = False  # autocast casts; peft would cast to float32 first
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        assert isinstance(embeddings, nn.Module), "a language model has embeddings"
        assert head is not None, "a causal language model has an output layer"
        self.token_ids: Tensor
        self.register_buffer("token_ids", torch.tensor(list(token_ids), dtype=torch.int64), persistent=False)
        input_weight, output_weight = embeddings.get_parameter("weight"), head.get_parameter("weight")
        self.embedding_rows = self._copy_rows(input_weight)
        self.head_rows = None if output_weight is input_weight else self._copy_rows(output_weight)
        self._rows = {id(output_weight): self._output_rows, id(input_weight): self.embedding_rows}
        names = {id(module): name for name, module in model.named_modules()}
        self._rows_by_name = {names[id(embeddings)]: self.embedding_rows}
        if self.head_rows is not None:
            self._rows_by_name[names[id(head)]] = self.head_rows
        embeddings.register_forward_hook(self._embed)
        head.register_forward_hook(self._predict)

    def trained(self) -> dict[str, nn.Parameter]:
        """Everything that learns, by its name in peft's files."""
        found: dict[str, nn.Parameter] = {}
        for name, layer in self._layers.items():
            for part, matrices in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
                found[f"base_model.model.{name}.{part}.weight"] = matrices[NAME].get_parameter("weight")
        for name, rows in self._rows_by_name.items():
            found[f"base_model.model.{name}.token_adapter.trainable_tokens_delta"] = rows
        return found

    def merge(self, weights: Mapping[str, Weight]) -> dict[str, Weight]:
        """The weights of the plain model that predicts what this one does.

        Args:
            weights: of the model with its adapter, by their names in memory.

        Returns:
            the weights by their names in the model's folder.
        """
        own = {id(parameter) for parameter in self.trained().values()}
        return {
            name.replace(WRAPPED, ""): replace(weight, change=self._change(name, weight.parameter))
            for name, weight in weights.items()
            if id(weight.parameter) not in own
        }

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside the block, and without gradient, the adapter has other values."""
        trained = self.trained()
        own = {name: parameter.data for name, parameter in trained.items()}
        try:
            for name, parameter in trained.items():
                parameter.data = values[name]
            yield
        finally:
            for name, parameter in trained.items():
                parameter.data = own[name]

    def save(self, folder: Path) -> None:
        """Write the adapter as peft reads it."""
        folder.mkdir()
        values = {name: parameter.detach().cpu().clone() for name, parameter in self.trained().items()}
        token_ids = self.token_ids.tolist()
        self._config.trainable_token_indices = {name.rpartition(".")[2]: token_ids for name in self._rows_by_name}
        save_file(values, folder / FILE, metadata={"format": "pt", "base": str(self.base)})
        self._config.save_pretrained(str(folder))

    def read(self, folder: Path) -> dict[str, Tensor]:
        """The values that `save` wrote, for `holding`.

        Raises:
            LearnerError: there are none, or they belong to another model or another rank.
        """
        where = f"learner.set_reference: {folder}"
        try:
            with safe_open(folder / FILE, framework="pt") as file:
                base = (file.metadata() or {}).get("base")
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise LearnerError(f"{where} must hold an adapter of LoRA ({error})") from error
        trained = self.trained()
        shapes, expected = ({name: one.shape for name, one in part.items()} for part in (values, trained))
        if base != str(self.base) or shapes != expected:
            raise LearnerError(
                f"{where} must hold an adapter of the weights in model.path, of rank learner.lora_rank, found one of "
                "others; put the old model back"
            )
        return {name: values[name].to(parameter.device, parameter.dtype) for name, parameter in trained.items()}

    def _copy_rows(self, weight: Tensor) -> nn.Parameter:
        return nn.Parameter(weight.detach()[self.token_ids].clone())

    def _change(self, name: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor] | None:
        """What adds the adapter to a weight; None if the weight has none."""
        layer = self._layers.get(name.removesuffix(f"{WRAPPED}.weight"))
        if layer is not None:
            return lambda own: own + layer.get_delta_weight(NAME).detach()
        rows = self._rows.get(id(weight))
        if rows is not None:
            return lambda own: own.index_copy(0, self.token_ids, rows.detach().to(own.dtype))
        return None

    @property
    def _output_rows(self) -> nn.Parameter:
        return self.embedding_rows if self.head_rows is None else self.head_rows

    def _embed(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        match = inputs[0].unsqueeze(-1) == self.token_ids
        rows = functional.embedding(match.int().argmax(-1), self.embedding_rows)
        rows = rows * getattr(module, "embed_scale", 1.0)  # Gemma's embeddings scale what they return
        return torch.where(match.any(-1, keepdim=True), rows.to(output.dtype), output)

    def _predict(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        bias = getattr(module, "bias", None)
        logits = functional.linear(inputs[0], self._output_rows, None if bias is None else bias[self.token_ids])
        return output.index_copy_(-1, self.token_ids, logits.to(output.dtype))  # in place: the vocabulary is large


def _checksum(model: nn.Module) -> int:
    """Of every parameter, in order."""
    found = 0
    for parameter in model.parameters():
        found = zlib.crc32(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, found)
    return found
