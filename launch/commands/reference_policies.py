"""Names of the reference policies, for help texts that must not import them. A test compares them with REFERENCES."""

REFERENCE_POLICIES = (
    "always_ask",
    "never_ask",
    "random",
    "non_adaptive",
    "ask_unless_search",
    "oracle",
    "yes_gold_sql",
    "teacher",
)
"""agile_ray/scripted/references.py describes them."""
