"""Why sessions failed: their errors, counted by reason."""

import re
from collections.abc import Iterable, Sequence

from agile_ray.types import Session

REASONS = 5
"""Number of reasons that are told apart; the rest is counted together."""
OTHER = "other reasons"
_SHOWN = 200  # characters of an error
_PARTICULARS = re.compile(r";.*|\b(?=\w*\d)\w+\b", re.DOTALL)  # what follows a semicolon; words with digits


def reasons(sessions: Iterable[Session]) -> dict[str, int]:
    """Failed sessions by reason, the commonest first."""
    return joined((session.error, 1) for session in sessions if session.error is not None)


def joined(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add up the counts of errors that have one reason, the commonest first.

    Errors have one reason if they differ only in words with digits (a port, an id) or after a semicolon. The first of
    them names it.
    """
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for error, count in counted:
        name = names.setdefault(_PARTICULARS.sub("", error), error[:_SHOWN])
        counts[name] = counts.get(name, 0) + count
    others = counts.pop(OTHER, 0)
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    others += sum(count for _, count in ordered[REASONS:])
    return dict(ordered[:REASONS]) | ({OTHER: others} if others else {})


def summary(sessions: Sequence[Session]) -> str:
    """How many sessions failed and the commonest reason, as the end of an error's line; "" if none failed."""
    found = reasons(sessions)
    if not found:
        return ""
    reason, count = next(iter(found.items()))
    return f"; {sum(found.values())} of {len(sessions)} failed, {count} of them by: {reason}"
