"""Rows of a `Ragged` as the padded tensors of one pass.

Dimensions: B = rows, T = tokens of the longest one, A = action tokens of all rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learner.ragged import Int64, Ragged


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch, actions in (row, position) order."""

    token_ids: Tensor  # int64 [B, T], padded with 0 on the right, where causal attention never looks back from
    predictors: Tensor  # int64 [A], place in the flattened [B * T] of the token before each action token
    actions: Tensor  # int64 [A], ids of the action tokens
    places: Int64  # [A], of the action tokens among all those of the `Ragged`


def make_batch(ragged: Ragged, rows: Int64, device: torch.device) -> Batch:
    """Pad these rows; no rows make one row of one token with nothing to predict, so that a rank can keep step."""
    if len(rows) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        lone = torch.zeros((1, 1), dtype=torch.int64, device=device)
        return Batch(token_ids=lone, predictors=none, actions=none, places=np.empty(0, np.int64))
    width = int(ragged.lengths[rows].max())
    token_ids_BT = np.zeros((len(rows), width), dtype=np.int64)
    flat_positions: list[Int64] = []
    places: list[Int64] = []
    for line, row in enumerate(rows.tolist()):
        start, end = ragged.starts[row], ragged.starts[row + 1]
        token_ids_BT[line, : end - start] = ragged.token_ids[start:end]
        first, last = ragged.action_starts[row], ragged.action_starts[row + 1]
        flat_positions.append(ragged.positions[first:last] + line * width)
        places.append(np.arange(first, last))
    flat_positions_A = np.concatenate(flat_positions)
    return Batch(
        token_ids=torch.from_numpy(token_ids_BT).to(device),
        predictors=torch.from_numpy(flat_positions_A - 1).to(device),
        actions=torch.from_numpy(token_ids_BT.reshape(-1)[flat_positions_A]).to(device),
        places=np.concatenate(places),
    )
