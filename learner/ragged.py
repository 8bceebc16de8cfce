"""Segments concatenated into flat arrays, which all ranks read from shared memory.

Dimensions: B = segments, S = tokens of all segments, A = action tokens of all segments.

Example, two segments of lengths 4 and 3 whose action tokens are at positions 1, 3 and 2:
    starts [0 4 7]    positions [1 3 2]    action_starts [0 2 3]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agile_ray.types import Float32, Int32, Int64, Segment, TokenScores

Number = TypeVar("Number", np.int32, np.int64, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ragged:
    """The token ids of many segments, and the positions of their action tokens."""

    token_ids: Int32  # [S]
    starts: Int64  # [B + 1], segment b holds tokens starts[b] to starts[b + 1]
    positions: Int64  # [A], of the action token in its own segment
    action_starts: Int64  # [B + 1]

    @property
    def lengths(self) -> Int64:
        """Tokens of each segment, int64 [B]."""
        return np.diff(self.starts)

    @property
    def actions(self) -> Int64:
        """Action tokens of each segment, int64 [B]."""
        return np.diff(self.action_starts)


def lay_out(segments: Sequence[Segment]) -> Ragged:
    """Concatenate segments in the order given."""
    positions = [np.flatnonzero(segment.action_mask) for segment in segments]
    return Ragged(
        token_ids=join([segment.token_ids for segment in segments], np.int32),
        starts=_starts([len(segment.token_ids) for segment in segments]),
        positions=join(positions, np.int64),
        action_starts=_starts([len(found) for found in positions]),
    )


def split_scores(scores: TokenScores, action_starts: Int64) -> list[TokenScores]:
    """Cut scores of all action tokens [A] into one `TokenScores` per segment."""
    return [
        TokenScores(
            logprobs=scores.logprobs[start:end],
            reference_logprobs=scores.reference_logprobs[start:end],
            own_values=scores.own_values[start:end],
            write_probabilities=scores.write_probabilities[start:end],
        )
        for start, end in zip(action_starts[:-1], action_starts[1:], strict=True)
    ]


def join_scores(scores: Sequence[TokenScores]) -> TokenScores:
    """Concatenate scores: the inverse of `split_scores`."""
    return TokenScores(
        logprobs=join([score.logprobs for score in scores], np.float32),
        reference_logprobs=join([score.reference_logprobs for score in scores], np.float32),
        own_values=join([score.own_values for score in scores], np.float32),
        write_probabilities=join([score.write_probabilities for score in scores], np.float32),
    )


def split(values_A: Float32, action_starts: Int64, order: Sequence[int]) -> tuple[Float32, ...]:
    """Cut values of all action tokens [A] into one array per segment.

    Args:
        values_A: of the segments as they were laid out.
        action_starts: of the layout.
        order: number of each segment of the layout; the arrays are returned in the order of these numbers.
    """
    parts = np.split(values_A, action_starts[1:-1])
    return tuple(parts[place] for place in np.argsort(order))


def join(parts: Sequence[NDArray[Number]], dtype: type[Number]) -> NDArray[Number]:
    """Concatenate arrays; no arrays make an empty one."""
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype, copy=False)


def _starts(counts: Sequence[int]) -> Int64:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)
