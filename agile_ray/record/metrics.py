"""Every figure that a run records: its name, its unit and how it is pooled. A name that is not here is an error."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agile_ray.errors import ContractError


class Reduction(StrEnum):
    """How one figure for a whole run comes from a figure per line."""

    MEAN = "mean"
    SUM = "sum"
    LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a figure means."""

    name: str
    unit: str
    reduction: Reduction
    help: str


def _metric(name: str, unit: str, reduction: Reduction, text: str) -> Metric:
    return Metric(name=name, unit=unit, reduction=reduction, help=text)


_MEAN, _SUM, _LAST = Reduction.MEAN, Reduction.SUM, Reduction.LAST

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        # what the sessions were worth
        _metric("sessions", "sessions", _SUM, "played, failed ones left out"),
        _metric("failed", "sessions", _SUM, "a tool or the expert broke; left out of every other figure"),
        _metric("asked_share", "share", _LAST, "of the sessions that asked at least once"),
        _metric("asks_per_session", "asks/session", _LAST, "mean number of paid asks"),
        _metric("accuracy", "share", _LAST, "of the sessions whose submitted answer is right"),
        _metric("total_score", "reward/session", _LAST, "accuracy minus prices paid per session"),
        _metric("total_score_low", "reward/session", _LAST, "lower end of its 95 % interval"),
        _metric("total_score_high", "reward/session", _LAST, "upper end of its 95 % interval"),
        _metric("read_share", "share", _LAST, "of the sessions to which memory returned an entry"),
        _metric("write_share", "share", _LAST, "of the sessions that wrote an entry"),
        # what was trained on
        _metric("rows", "segments", _SUM, "trained on"),
        _metric("credit", "reward/session", _LAST, "mean A_i of the trained sessions (AGILE, Appendix A)"),
        _metric("credit_mean", "reward", _LAST, "mean A_i of the sessions that wrote to memory"),
        _metric("credit_spread", "reward", _LAST, "standard deviation of it"),
        _metric("credit_truncated", "share", _LAST, "of them, whose stream goes on behind what was collected"),
        _metric(
            "credit_observed",
            "correlation",
            _LAST,
            "of A_i with what its readers earned above the usual; nearly circular for `linked`, so no scale for modes",
        ),
        _metric("credit_overlap", "reward/reader", _LAST, "gains over writers read at once that don't add up"),
        _metric("credit_worth", "reward/entry", _LAST, "of an entry on the topic, at the start of a stream"),
        _metric("credit_worth_low", "reward/entry", _LAST, "lower end of its 95 % interval"),
        _metric("credit_worth_high", "reward/entry", _LAST, "upper end of its 95 % interval"),
        _metric("tokens_per_session", "tokens/session", _MEAN, "read and written, of the trained sessions"),
        _metric("actions_per_session", "tokens/session", _MEAN, "written by the policy, of the trained sessions"),
        # how the learner fared
        _metric("loss", "", _LAST, "per action token: the parts, weighted and summed"),
        _metric(
            "policy_loss",
            "nats or deviations",
            _LAST,
            "cross-entropy in imitation; in PPO the clipped surrogate of whitened advantages; per action token",
        ),
        _metric(
            "value_loss", "reward^2", _LAST, "half the squared error of own values, clipped in PPO; per action token"
        ),
        _metric("write_loss", "nats", _LAST, "cross-entropy of whether the session writes; per action token"),
        _metric("kl_nats", "nats/token", _LAST, "k3 estimate of KL(policy || frozen SFT policy)"),
        _metric("kl_coefficient", "", _LAST, "weight of that KL in the update"),
        _metric(
            "update_kl_nats", "nats/token", _LAST, "estimate of KL(before the update || now), as its last step found it"
        ),
        _metric("stopped_share", "share", _LAST, "of the update's steps that ppo.early_stop_kl held back"),
        _metric("entropy_nats", "nats/token", _LAST, "of the policy where it wrote a function token"),
        _metric("clip_share", "share", _LAST, "of the action tokens whose gradient the clip cut off"),
        _metric("ratio_deviation", "", _LAST, "mean |ratio - 1| of the action tokens"),
        _metric("behavior_gap_nats", "nats", _LAST, "mean |engine's - learner's logprob| before the update"),
        _metric("effective_share", "share", _LAST, "effective sample size of the importance weights min(ratio, 2)"),
        _metric("advantage_mean", "reward", _LAST, "before whitening"),
        _metric("advantage_std", "reward", _LAST, "before whitening"),
        _metric(
            "explained_variance",
            "share",
            _LAST,
            "of returns and credit, by the critic before the update and the expected credit",
        ),
        _metric("own_explained_variance", "share", _LAST, "the same of the critic of own rewards alone"),
        _metric("gradient_norm", "", _LAST, "before it is scaled down"),
        _metric("learning_rate", "", _LAST, "of the last optimizer step"),
        # how fast it went
        _metric("tokens", "tokens", _SUM, "in forward-backward passes, padding excluded"),
        _metric("processed_tokens", "tokens", _SUM, "in forward-backward passes, padding included"),
        _metric("padding", "share", _MEAN, "of the processed tokens that were padding"),
        _metric("learn_seconds", "s", _SUM, "wall time of the learner's call"),
        _metric("tokens_per_second", "tokens/s", _MEAN, "learned, padding excluded"),
        _metric("sessions_per_second", "sessions/s", _MEAN, "collected, failed ones included"),
        _metric("sync_seconds", "s", _MEAN, "from the learner's weights to an engine that serves them, checked"),
        _metric("discarded_seconds", "s", _SUM, "wall time of what a resumed run had to do again"),
    )
}


def check(metrics: Mapping[str, float]) -> None:
    """Refuse a figure that has no definition. `name/part` is defined by `name`.

    Raises:
        ContractError: names it; define it in METRICS.
    """
    unknown = sorted(name for name in metrics if defined(name) not in METRICS)
    if unknown:
        raise ContractError(f"metrics: every figure is defined in METRICS, found {', '.join(unknown)}; define it there")


def defined(figure: str) -> str:
    """The name under which a figure is defined."""
    return figure.partition("/")[0]


def pool(lines: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """One figure per name for a whole run; a line need not have every figure."""
    values: dict[str, list[float]] = {}
    for metrics in lines:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {name: _REDUCE[METRICS[defined(name)].reduction](series) for name, series in values.items()}


_REDUCE = {
    Reduction.MEAN: lambda series: sum(series) / len(series),
    Reduction.SUM: sum,
    Reduction.LAST: lambda series: series[-1],
}
