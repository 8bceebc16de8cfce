"""The policy with its critic: a Hugging Face causal model, and three small heads on its last hidden state.

The one door to transformers. Dimensions: B = rows, T = tokens, A = action tokens, H = hidden size, V = vocabulary.

Rows are padded on the right and no attention mask is given: a causal model's tokens never look to their right,
so padding can not change what an action token sees, whatever its id. Without a mask the fast kernels apply.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from agile_ray.errors import ConfigError

Attention = Literal["eager", "sdpa"]


class Predictions(NamedTuple):
    """What the model says at the places that predict action tokens."""

    logits: Tensor  # [A, V], in the model's dtype
    auxiliary_values: Tensor  # float32 [A], of own rewards to come; learned for the trunk's sake
    own_values: Tensor  # float32 [A], the critic: auxiliary_values, and what a reader says of their error
    write_logits: Tensor  # float32 [A], log-odds that the session writes an entry to memory


VALUE_SCALE = 0.1
"""Reward per unit of the hidden state, along the one direction that the auxiliary head reads."""


class AuxiliaryHead(nn.Module):
    """A linear value head whose weights turn but never grow, computed in float32.

        value = VALUE_SCALE * weight . hidden / |weight| + bias     float32 [A], reward

    With weights free to grow it reads whatever whisper of a question's worth the trunk happens to hold. Held short, it
    makes the trunk say it loudly, and the policy's own head, which reads the same hidden state, hears it too: it must
    decide by the same worth whether to ask. That is slow, as the trunk's steps are mostly the policy's, so the critic
    adds to what this head says (auxiliary value head: Cobbe et al., 2021, Phasic Policy Gradient).
    """

    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, hidden_size), hidden_size**-0.5, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, hidden_AH: Tensor) -> Tensor:
        weight = VALUE_SCALE * functional.normalize(self.weight.float(), dim=1)
        return functional.linear(hidden_AH.float(), weight, self.bias.float()).squeeze(-1)


class DetachedHead(nn.Module):
    """A linear head that reads the trunk and leaves it alone, computed in float32; says 0 at first."""

    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, hidden_AH: Tensor) -> Tensor:
        return functional.linear(hidden_AH.detach().float(), self.weight.float(), self.bias.float()).squeeze(-1)


class PolicyWithValue(nn.Module):
    """Predicts action tokens and what follows the state before them; observation logits are never computed."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = language_model
        hidden_size = language_model.config.get_text_config().hidden_size
        self.auxiliary_head = AuxiliaryHead(hidden_size, language_model.dtype)
        self.critic_head = DetachedHead(hidden_size, language_model.dtype)
        # A fact about the policy that the policy has no use for: it must not pull at the policy's state.
        self.write_head = DetachedHead(hidden_size, language_model.dtype)
        # Narrowing the input of the output layer, not calling it by hand, keeps what some models do to their
        # logits afterwards (Gemma caps them, Granite scales them).
        head = language_model.get_output_embeddings()
        assert head is not None, "a causal language model has an output layer"
        head.register_forward_pre_hook(self._narrow)
        self._predictors_A = torch.empty(0, dtype=torch.int64)
        self._hidden_AH = torch.empty(0)

    def forward(self, token_ids_BT: Tensor, predictors_A: Tensor, products: torch.dtype = torch.float32) -> Predictions:
        """Run the trunk over all tokens, and every head at the predictors only.

            own_values = auxiliary_values, held fixed, + critic_head(hidden)     reward

        Args:
            token_ids_BT: int64 [B, T], padded on the right.
            predictors_A: int64 [A], places in the flattened [B * T].
            products: bfloat16 takes the matrix products of float32 weights in it.
        """
        self._predictors_A = predictors_A
        with torch.autocast(token_ids_BT.device.type, dtype=torch.bfloat16, enabled=products == torch.bfloat16):
            logits_AV = self.language_model(input_ids=token_ids_BT, use_cache=False).logits
        auxiliary_values_A = self.auxiliary_head(self._hidden_AH)
        predictions = Predictions(
            logits=logits_AV,
            auxiliary_values=auxiliary_values_A,
            own_values=auxiliary_values_A.detach() + self.critic_head(self._hidden_AH),
            write_logits=self.write_head(self._hidden_AH),
        )
        self._hidden_AH = torch.empty(0)  # the graph of this pass must not outlive it
        return predictions

    def head_parameters(self) -> list[nn.Parameter]:
        """All parameters that the language model lacks: they learn at the critic's rate and are not exported."""
        heads = (self.auxiliary_head, self.critic_head, self.write_head)
        return [parameter for head in heads for parameter in head.parameters()]

    def _narrow(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        self._hidden_AH = inputs[0].flatten(0, 1)[self._predictors_A]
        return (self._hidden_AH,)


def load_language_model(folder: Path, *, dtype: torch.dtype, attention: Attention) -> PreTrainedModel:
    """Load a causal model with every dropout at 0: PPO's ratio compares two passes over the same tokens.

    Raises:
        ConfigError: the folder holds no model that transformers can read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _silence_dropout(config)
        return AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=attention, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: {folder} holds no causal language model ({error})") from error


def _silence_dropout(config: PreTrainedConfig) -> None:
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
