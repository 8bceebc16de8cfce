"""Names of the reference policies, for help texts that must not import them. A test compares them with REFERENCES."""

REFERENCE_POLICIES = (
    "always_ask",
    "always_colleague",
    "never_ask",
    "random",
    "non_adaptive",
    "ask_unless_search",
    "oracle",
    "yes_gold_sql",
    "teacher",
)
"""agile_ray/scripted/references.py describes them."""
PROMPTED = ("prompt", "prompted_agent")
"""Policies that a chat model writes; rollout/prompted/policies.py describes them."""
GUIDES = ("ask_unless_own_search", "own_non_adaptive", "own_answer")
"""Scripts that decide when a checkpoint asks; agile_ray/scripted/guided.py describes them."""
