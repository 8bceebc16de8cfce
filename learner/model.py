"""The policy with its critic: a Hugging Face causal model, and three small heads on its last hidden state.

Dimensions: B = rows, T = tokens, A = action tokens, H = hidden size, V = vocabulary.

Rows are padded on the right, and there is no attention mask: tokens of a causal model never attend to their right, so
padding cannot affect an action token, whatever its id. Without a mask the fast attention kernels apply.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from agile_ray.errors import ConfigError
from learner.messages import Attention, Dtype


class Predictions(NamedTuple):
    """The model's outputs at the tokens that precede action tokens."""

    logits: Tensor  # [A, V], in the model's dtype
    auxiliary_values: Tensor  # float32 [A], own rewards to come; their loss trains the trunk
    own_values: Tensor  # float32 [A], the critic: auxiliary_values plus a correction that leaves the trunk unchanged
    write_logits: Tensor  # float32 [A], log-odds that the session writes an entry to memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight of the language model, as its folder and the engines have it."""

    parameter: nn.Parameter  # of the model in memory; a shard under ZeRO 3
    change: Callable[[Tensor], Tensor] | None = None  # adds what an adapter learned, in a new tensor

    def value(self) -> Tensor:
        """The weight, without gradient; complete only while the parameter is."""
        own = self.parameter.detach()
        return own if self.change is None else self.change(own)


VALUE_SCALE = 0.1
"""Norm of the auxiliary head's weight: reward per unit of the hidden state along the head's direction."""


class AuxiliaryHead(nn.Module):
    """A weight-normalized linear value head, computed in float32.

        value = VALUE_SCALE * weight . hidden / |weight| + bias     float32 [A], reward

    It is an auxiliary value head (Cobbe et al., 2021, Phasic Policy Gradient): its loss trains the trunk. A head of
    free norm could scale up a value signal that is weak in the hidden state. With a fixed norm the trunk must represent
    the value strongly, where the policy's output layer, which reads the same hidden state, can use it to decide whether
    to ask. The trunk learns this slowly, so `PolicyWithValue` adds a correction for the critic.
    """

    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, hidden_size), hidden_size**-0.5, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, hidden_AH: Tensor) -> Tensor:
        weight = VALUE_SCALE * functional.normalize(self.weight.float(), dim=1)
        return functional.linear(hidden_AH.float(), weight, self.bias.float()).squeeze(-1)


class DetachedHead(nn.Module):
    """A linear head whose gradient does not reach the trunk, computed in float32; its initial output is 0."""

    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, hidden_AH: Tensor) -> Tensor:
        return functional.linear(hidden_AH.detach().float(), self.weight.float(), self.bias.float()).squeeze(-1)


class PolicyWithValue(nn.Module):
    """Predicts action tokens, values and memory writes; logits of observation tokens are never computed."""

    def __init__(self, language_model: PreTrainedModel, adapter: nn.Module | None = None) -> None:
        """`adapter`: holds parameters that hooks of the language model use."""
        super().__init__()
        self.language_model = language_model
        self.adapter = adapter
        hidden_size = language_model.config.get_text_config().hidden_size
        self.auxiliary_head = AuxiliaryHead(hidden_size, language_model.dtype)
        self.critic_head = DetachedHead(hidden_size, language_model.dtype)
        # Its prediction serves credit, not the policy, so its loss must not change the policy's hidden state.
        self.write_head = DetachedHead(hidden_size, language_model.dtype)
        # The hook selects the output layer's inputs; calling that layer directly would skip what some models do to
        # their logits afterwards (Gemma caps them, Granite scales them).
        head = language_model.get_output_embeddings()
        assert head is not None, "a causal language model has an output layer"
        head.register_forward_pre_hook(self._select_hidden)
        self._logit_positions_A = torch.empty(0, dtype=torch.int64)
        self._hidden_AH = torch.empty(0)

    def forward(
        self, token_ids_BT: Tensor, logit_positions_A: Tensor, matmul_dtype: torch.dtype = torch.float32
    ) -> Predictions:
        """Run the trunk over all tokens, and every head at the given positions only.

            own_values = stop_gradient(auxiliary_values) + critic_head(hidden)     reward

        Args:
            token_ids_BT: int64 [B, T], padded on the right.
            logit_positions_A: int64 [A], indices in the flattened [B * T].
            matmul_dtype: bfloat16 computes the matrix products of float32 weights in bfloat16 (autocast).
        """
        self._logit_positions_A = logit_positions_A
        with torch.autocast(token_ids_BT.device.type, dtype=torch.bfloat16, enabled=matmul_dtype == torch.bfloat16):
            logits_AV = self.language_model(input_ids=token_ids_BT, use_cache=False).logits
        auxiliary_values_A = self.auxiliary_head(self._hidden_AH)
        predictions = Predictions(
            logits=logits_AV,
            auxiliary_values=auxiliary_values_A,
            own_values=auxiliary_values_A.detach() + self.critic_head(self._hidden_AH),
            write_logits=self.write_head(self._hidden_AH),
        )
        self._hidden_AH = torch.empty(0)  # frees the graph of this pass
        return predictions

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of all heads: they are trained at the critic's learning rate and are not exported."""
        heads = (self.auxiliary_head, self.critic_head, self.write_head)
        return [parameter for head in heads for parameter in head.parameters()]

    def _select_hidden(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        self._hidden_AH = inputs[0].flatten(0, 1)[self._logit_positions_A]
        return (self._hidden_AH,)


def plain_weights(model: PreTrainedModel, *, tied_twice: bool) -> dict[str, Weight]:
    """The parameters by their names in memory.

    Args:
        tied_twice: tied parameters appear under both names.
    """
    named = model.named_parameters(remove_duplicate=not tied_twice)
    return {name: Weight(parameter=parameter) for name, parameter in named}


def torch_dtype(name: Dtype) -> torch.dtype:
    """The torch dtype of a configured one."""
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def load_language_model(folder: Path, *, dtype: torch.dtype, attention: Attention) -> PreTrainedModel:
    """Load a causal model with every dropout at 0, since PPO's ratio compares two passes over the same tokens.

    Raises:
        ConfigError: the folder holds no model that transformers can read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        silence_dropout(config)
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=attention, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: {folder} holds no causal language model ({error})") from error
    for module in model.modules():
        if isinstance(module, nn.Dropout):  # of a probability that is not in the config
            module.p = 0.0
    return model


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute each layer's activations in the backward pass.

    transformers does so in training mode only, and loads a model in evaluation mode.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()


def silence_dropout(config: PreTrainedConfig) -> None:
    """Set every dropout probability of a configuration, and of those inside it, to 0."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            silence_dropout(value)
        elif isinstance(value, float) and "drop" in name:
            setattr(config, name, 0.0)
