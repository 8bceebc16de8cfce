"""Final evaluations of every policy, small enough to read."""

from agile_ray.types import Receipt
from tests.fakes.worlds import SESSION, changed

# Right answers and asks of each policy over the same two streams of two questions.
PLAYED = {
    "always_ask": ("1111", "1111"),
    "never_ask": ("1000", "0000"),
    "random": ("1010", "0100"),
    "non_adaptive": ("1100", "1000"),
    "ask_unless_search": ("1110", "1110"),
    "oracle": ("1111", "0100"),
    "sft": ("1010", "1000"),
    "sft_sampled": ("1000", "1000"),
    "ppo": ("1111", "1100"),
    "ppo_sampled": ("1110", "1000"),
}


def session(index, *, right, asked):
    """The session on question `index` of the four."""
    return changed(
        SESSION,
        stream=f"test/{index // 2}",
        position=index % 2,
        stream_length=2,
        question_id=f"q{index}",
        kind=("fact", "search")[index % 2],
        answer="yes",
        correct=right,
        receipts=(Receipt(key="k", price=300, source="gold", latency_s=0.0, advice="yes", answer="yes"),)
        if asked
        else (),
    )


def played(name):
    """The four sessions of a policy."""
    right, asked = PLAYED[name]
    return [session(index, right=right[index] == "1", asked=asked[index] == "1") for index in range(4)]
