"""The share of the possible gain that a policy reaches."""


def closed(total: float, *, start: float, oracle: float) -> float | None:
    """Share of the distance from a reference policy to the oracle that a policy closes.

    The gap measure of the NVIDIA LLM router (arXiv 2603.20895), of total scores. Below 0 where the policy is behind the
    reference.

    Args:
        total: total score of the policy.
        start: of the best reference policy without knowledge of the future.
        oracle: of the oracle.

    Returns:
        None if the oracle is not ahead of the reference.
    """
    room = oracle - start
    return (total - start) / room if room > 0 else None
