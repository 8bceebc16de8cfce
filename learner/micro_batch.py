"""Rows of a `Ragged` as the padded tensors of one forward pass.

Dimensions: B = rows, T = tokens of the longest one, A = action tokens of all rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agile_ray.types import Float32, Int32, Int64
from learner.ragged import Ragged


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The tensors of one forward pass; action tokens are in (row, position) order."""

    token_ids: Tensor  # int64 [B, T], padded with 0 on the right, which no earlier token attends to
    logit_positions: Tensor  # int64 [A], index in the flattened [B * T] of the token before each action token
    actions: Tensor  # int64 [A], ids of the action tokens
    indices: Int64  # [A], of these action tokens among all those of the `Ragged`

    def select(self, values: Float32) -> Tensor:
        """The entries of this micro-batch in an array over all action tokens of the `Ragged`, [A], on its device."""
        return torch.from_numpy(values[self.indices]).to(self.token_ids.device)


def make_micro_batch(ragged: Ragged, rows: Int64, device: torch.device) -> MicroBatch:
    """Pad these rows. Without rows, return one row of one token without actions, so that every rank runs a pass.

    Args:
        rows: row numbers in `ragged`.
    """
    if len(rows) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        single = torch.zeros((1, 1), dtype=torch.int64, device=device)
        return MicroBatch(token_ids=single, logit_positions=none, actions=none, indices=np.empty(0, np.int64))
    width = int(ragged.lengths[rows].max())
    token_ids_BT = np.zeros((len(rows), width), dtype=np.int64)
    flat_positions: list[Int64] = []
    indices: list[Int64] = []
    for line, row in enumerate(rows.tolist()):
        start, end = ragged.starts[row], ragged.starts[row + 1]
        token_ids_BT[line, : end - start] = ragged.token_ids[start:end]
        first, last = ragged.action_starts[row], ragged.action_starts[row + 1]
        flat_positions.append(ragged.positions[first:last] + line * width)
        indices.append(np.arange(first, last))
    flat_positions_A = np.concatenate(flat_positions)
    return MicroBatch(
        token_ids=torch.from_numpy(token_ids_BT).to(device),
        logit_positions=torch.from_numpy(flat_positions_A - 1).to(device),
        actions=torch.from_numpy(token_ids_BT.reshape(-1)[flat_positions_A]).to(device),
        indices=np.concatenate(indices),
    )


def make_probe_batch(ids: Int32, device: torch.device) -> MicroBatch:
    """One row in which every token except the first counts as an action.

    Args:
        ids: int32 [T].
    """
    token_ids_T = torch.from_numpy(ids.astype(np.int64)).to(device)
    return MicroBatch(
        token_ids=token_ids_T.unsqueeze(0),
        logit_positions=torch.arange(len(ids) - 1, device=device),
        actions=token_ids_T[1:],
        indices=np.arange(len(ids) - 1),
    )
