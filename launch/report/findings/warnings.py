"""What went wrong in a run, a sentence each. Pure functions of its history and its final evaluations.

The bounds are wide: a run that works, with its usual noise, gets no warning.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from agile_ray.evaluation import failures
from agile_ray.evaluation.score import Score
from agile_ray.record.history import FAILED, Event, Line
from launch.report.entries import ORACLE

SPIKES = {
    "kl_nats": ("KL to the SFT policy", 0.15),
    "update_kl_nats": ("KL of one update", 0.05),
}
"""Metrics that should not jump: their names, and nats per token below which a jump does no harm."""
TIMES = 3.0
"""A spike is this many times the median over the iterations."""
NEARLY = 0.01
"""Distance of the asked share from 0 or 1 within which a policy never or always asks."""
LAST = 3
"""A collapse lasts through at least this many last iterations."""
MANY_FAILED = 0.01
"""Share of failed sessions that is worth a warning."""


def warnings(lines: Sequence[Line], scores: Mapping[str, Score]) -> list[str]:
    """Everything that went wrong, the worst first.

    Args:
        lines: the run's history.
        scores: of the final evaluations, by entry; may be empty.
    """
    found = [collapse(lines, scores), *failed(lines, scores), *spikes(lines)]
    return [sentence for sentence in found if sentence is not None]


def spikes(lines: Sequence[Line]) -> list[str]:
    """Iterations at which the policy moved much farther than usual."""
    found = []
    for metric, (name, harmless) in SPIKES.items():
        values = {line.iteration: line.metrics[metric] for line in _iterations(lines) if metric in line.metrics}
        usual = median(values.values()) if values else 0.0
        high = [iteration for iteration, value in values.items() if value >= max(harmless, TIMES * usual)]
        if high:
            peak = max(high, key=lambda iteration: values[iteration])
            found.append(
                f"The {name} spiked: {values[peak]:.3g} nats per token at iteration {peak}, where the median is "
                f"{usual:.2g}{_also(high, peak)}; the policy may have lost what imitation taught it."
            )
    return found


def collapse(lines: Sequence[Line], scores: Mapping[str, Score]) -> str | None:
    """The policy ends by asking always or never, and the oracle does not.

    Iterations and evaluations in which many sessions failed say nothing of it: a broken expert ends those that ask.
    """
    shares = {line.iteration: _asked_share(line) for line in _iterations(lines)}
    for word, end in (("always", 1.0), ("never", 0.0)):
        oracle = scores.get(ORACLE)
        if oracle is not None and abs(oracle.asked_share - end) <= NEARLY:
            continue
        instead = "" if oracle is None else f", where the oracle asks in {oracle.asked_share:.0%}"
        since = _since(shares, end)
        if since is not None:
            return (
                f"The policy collapsed to {word} asking: from iteration {since} on it asks in "
                f"{_bound(end)} of the sessions{instead}."
            )
        chosen = scores.get("ppo")
        if chosen is not None and not _many_failed(chosen) and abs(chosen.asked_share - end) <= NEARLY:
            return (
                f"The chosen policy is one of {word} asking: greedy, it asks in {_bound(end)} of the test "
                f"sessions{instead}."
            )
    return None


def failed(lines: Sequence[Line], scores: Mapping[str, Score]) -> list[str]:
    """Sessions that a tool or the expert broke, in training and in final evaluations, by their reasons."""
    found = []
    iterations = _iterations(lines)
    lost = {line.iteration: _failed(line) for line in iterations}
    played = sum(line.metrics.get("sessions", 0.0) for line in iterations) + sum(lost.values())
    counts = failures.joined(item for line in iterations for item in _reasons(line))
    if any(lost.values()) and sum(lost.values()) >= MANY_FAILED * played:
        where = _span([iteration for iteration, count in lost.items() if count])
        found.append(_broken("training", sum(lost.values()), round(played), counts, where=where))
    for entry, score in scores.items():
        if _many_failed(score):
            found.append(_broken(f"evaluation {entry}", score.failed, score.sessions + score.failed, score.reasons))
    return found


def _broken(of: str, number: int, played: int, counts: Mapping[str, int], *, where: str = "") -> str:
    reason, count = next(iter(counts.items()), ("reason not recorded", number))
    who = {"ExpertError": "The expert", "ToolError": "The tool"}.get(reason.partition(":")[0])
    start = f"{who} failed" if who else "Sessions failed"
    others = "" if count == number else f", {count:,} of them"
    return f"{start} in {of}{where}: {number:,} of {played:,} sessions ({number / played:.0%}){others} by {reason}."


def _iterations(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line.event is Event.ITERATION]


def _reasons(line: Line) -> list[tuple[str, int]]:
    return [(name.removeprefix(FAILED), count) for name, count in line.counts.items() if name.startswith(FAILED)]


def _failed(line: Line) -> int:
    return sum(count for _, count in _reasons(line))


def _asked_share(line: Line) -> float | None:
    """Of an iteration; None if many of its sessions failed."""
    lost = _failed(line)
    return (
        None
        if lost and lost >= MANY_FAILED * (lost + line.metrics.get("sessions", 0.0))
        else line.metrics["asked_share"]
    )


def _many_failed(score: Score) -> bool:
    return score.failed > 0 and score.failed >= MANY_FAILED * (score.sessions + score.failed)


def _since(shares: Mapping[int, float | None], end: float) -> int | None:
    """First of the last iterations that all ask in a share near the end; None if they are too few."""
    stretch = []
    for iteration, share in reversed(list(shares.items())):
        if share is None or abs(share - end) > NEARLY:
            break
        stretch.append(iteration)
    return stretch[-1] if len(stretch) >= LAST else None


def _bound(end: float) -> str:
    return f"at least {1 - NEARLY:.0%}" if end else f"at most {NEARLY:.0%}"


def _also(high: Sequence[int], peak: int) -> str:
    others = [iteration for iteration in high if iteration != peak]
    return f" (likewise high at {', '.join(map(str, others))})" if others else ""


def _span(iterations: Sequence[int]) -> str:
    if len(iterations) == 1:
        return f", iteration {iterations[0]}"
    return f", iterations {iterations[0]} to {iterations[-1]}"
