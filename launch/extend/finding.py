"""What is found wrong with an environment."""

from dataclasses import dataclass

STREAMS = 4
"""Streams of each split that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    severity: str  # "error" or "warning"
    text: str  # where: the rule, what was found; what to do

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def error(text: str) -> Finding:
    """A fault: a run would fail, or learn something else than what is meant."""
    return Finding(severity="error", text=text)


def warning(text: str) -> Finding:
    """A run would work, but may have nothing to learn, or does not repeat."""
    return Finding(severity="warning", text=text)
