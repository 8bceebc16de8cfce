"""The names under which policies are evaluated."""

LEARNED = ("sft", "sft_sampled", "ppo", "ppo_sampled")
"""Entries that are checkpoints; all others are reference policies."""
ORACLE = "oracle"
NO_FUTURE = (
    "always_ask",
    "always_colleague",
    "never_ask",
    "random",
    "non_adaptive",
    "non_adaptive_best",
    "ask_unless_search",
)
"""References without knowledge of the future; PPO is compared with the best of them."""
