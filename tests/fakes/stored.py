"""Sessions that are small enough to read, with every field set, and what is trained on them."""

import numpy as np

from agile_ray.segments import cut
from agile_ray.types import Ending, Hindsight, MemoryUse, Origin, Receipt, Session, TrainingRow, Turn
from tests.fakes.parts import zeros


def turn(prompt, completion, *, version=3, ask=0.125):
    """A turn with a different logprob and reward at each token."""
    return Turn(
        prompt_ids=np.array(prompt, np.int32),
        completion_ids=np.array(completion, np.int32),
        logprobs=np.linspace(-0.1, -0.7, len(completion), dtype=np.float32),
        versions=np.full(len(completion), version, np.int32),
        rewards=np.arange(len(completion), dtype=np.float32),
        ask_probability=ask,
    )


def session(*turns, position=0, ending=Ending.DONE):
    """A session with every field set."""
    return Session(
        stream="train/cups/0",
        position=position,
        stream_length=8,
        question_id=f"q{position}",
        kind="fact",
        topic="fact open",
        price=300,
        turns=turns,
        ending=ending,
        error="ToolError: gone" if ending is Ending.FAILED else None,
        answer="blue",
        correct=True,
        receipts=(Receipt(key="k", price=300, source="gold", latency_s=0.25, advice="yes", answer="yes"),),
        reads=(MemoryUse(kind="qa", writer=1, similarity=0.875),),
        writes=(),
        hindsight=Hindsight(
            known=True,
            memory_sizes={"fact open": 2, "reasoning": 1},
            decided_after=2,
            stored_similar=2,
            later_similar=1,
            same_item=(position, 7),
        ),
        remarks=("refused",),
        origin=Origin.ADVICE,
    )


def rows(*sessions, credit=0.05):
    """The training rows of sessions; the last segment of each has the credit."""
    return [
        TrainingRow(
            segment=segment,
            scores=zeros(segment),
            credit=credit if segment.last else 0.0,
            credit_baseline=0.0,
            decided_after=segment.actions,
            wrote=bool(played.writes),
        )
        for played in sessions
        for segment in cut(played)
    ]


ONE = session(turn([1], [2, 3]), turn([1, 2, 3, 9], [4]))
REWRITTEN = session(turn([1], [2]), turn([7, 8], [5]), position=1)
FAILED = session(turn([1], [2]), position=2, ending=Ending.FAILED)
BLANK = session(position=3, ending=Ending.FAILED)
