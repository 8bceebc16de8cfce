"""Why sessions, or the asks of an expert, failed: their errors, counted by reason."""

import re
from collections.abc import Iterable, Sequence

from agile_ray.agent.expert import AskKey
from agile_ray.types import Receipt, Session

REASONS = 5
"""Number of reasons that are told apart; the rest is counted together."""
FEWEST_ASKS = 8
"""Number of asks from which on an expert that answers none of them counts as gone."""
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


def gone(sessions: Iterable[Session]) -> str:
    """Which expert answered no ask because each of them met a fault, and the commonest one; "" if all experts work."""
    asks: dict[str, list[Receipt]] = {}
    for receipt in (receipt for session in sessions for receipt in session.receipts):
        asks.setdefault(AskKey.parse(receipt.key).to, []).append(receipt)
    for to, own in asks.items():
        if len(own) >= FEWEST_ASKS and all(receipt.fault for receipt in own):
            reason, count = next(iter(joined((receipt.fault, 1) for receipt in own).items()))
            key = f"env.expert.{to}" if to else "env.expert"
            return (
                f"{key} ({own[0].source}): needs an answer to some ask, found none to {len(own)}, {count} of them by: "
                f"{reason}; mend the expert and start the run again under its name"
            )
    return ""
