"""Every metric that a run records: name, unit, meaning, and how it is reduced to one value for the whole run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agile_ray.errors import ContractError


class Reduction(StrEnum):
    """How the values of a run's history lines become one value for the run."""

    MEAN = "mean"
    SUM = "sum"
    LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Definition of a metric."""

    name: str
    unit: str
    reduction: Reduction
    help: str


def _metric(name: str, unit: str, reduction: Reduction, text: str) -> Metric:
    return Metric(name=name, unit=unit, reduction=reduction, help=text)


_MEAN, _SUM, _LAST = Reduction.MEAN, Reduction.SUM, Reduction.LAST

_SESSION_METRICS = (
    _metric("sessions", "sessions", _SUM, "sessions played, without failed ones"),
    _metric("failed", "sessions", _SUM, "sessions that a tool or expert error ended; no other metric includes them"),
    _metric("asked_share", "share", _LAST, "share of sessions that asked the expert at least once"),
    _metric("asks_per_session", "asks/session", _LAST, "mean number of paid asks per session"),
    _metric("accuracy", "share", _LAST, "share of sessions whose submitted answer is correct"),
    _metric("total_score", "reward/session", _LAST, "accuracy minus the mean price paid per session"),
    _metric("total_score_low", "reward/session", _LAST, "lower bound of the 95% interval of total_score"),
    _metric("total_score_high", "reward/session", _LAST, "upper bound of the 95% interval of total_score"),
    _metric("read_share", "share", _LAST, "share of sessions that retrieved an entry from memory"),
    _metric("write_share", "share", _LAST, "share of sessions that wrote an entry to memory"),
)
_CREDIT_METRICS = (
    _metric("rows", "segments", _SUM, "segments trained on"),
    _metric("credit", "reward/session", _LAST, "mean credit A_i of the trained sessions (AGILE, Appendix A)"),
    _metric("credit_mean", "reward", _LAST, "mean credit A_i of the sessions that wrote to memory"),
    _metric("credit_spread", "reward", _LAST, "standard deviation of A_i over the sessions that wrote to memory"),
    _metric(
        "credit_tail",
        "share",
        _LAST,
        "share of `linked` credit that stands for readers after the iteration's sessions: their expected gains",
    ),
    _metric(
        "credit_tail_error",
        "reward/session",
        _LAST,
        "gain that earlier iterations let expect minus the gain observed, mean over the sessions that could read what "
        "was written before this iteration",
    ),
    _metric(
        "credit_truncated",
        "share",
        _LAST,
        "share of the expected `linked` credit that is not given, because few sessions have shown what a reader gains",
    ),
    _metric(
        "credit_observed",
        "correlation",
        _LAST,
        "correlation of A_i with the rewards above baseline of the later sessions that read the entries; nearly "
        "circular for `linked`, so it does not compare modes",
    ),
    _metric(
        "credit_overlap",
        "reward/reader",
        _LAST,
        "over sessions that read entries of several writers, mean of the summed gains of single writers minus the "
        "joint gain: below 0 where one entry suffices, above 0 where only all of them together help",
    ),
    _metric(
        "credit_worth",
        "reward/entry",
        _LAST,
        "fitted value of a memory entry at the start of a stream, by topic, and by price if there are several",
    ),
    _metric("credit_worth_low", "reward/entry", _LAST, "lower bound of the 95% interval of credit_worth"),
    _metric("credit_worth_high", "reward/entry", _LAST, "upper bound of the 95% interval of credit_worth"),
    _metric("tokens_per_session", "tokens/session", _MEAN, "tokens read and written by a trained session"),
    _metric("actions_per_session", "tokens/session", _MEAN, "tokens that the policy wrote in a trained session"),
    _metric("age_mean", "versions", _MEAN, "mean age of the action tokens: the learner's version - the token's"),
    _metric("age_max", "versions", _MEAN, "age of the oldest action token"),
    _metric("age_share", "share", _MEAN, "share of the action tokens that have the age after the slash"),
)
_LEARNER_METRICS = (
    _metric("loss", "", _LAST, "weighted sum of all loss terms, per action token"),
    _metric(
        "policy_loss",
        "nats or deviations",
        _LAST,
        "cross-entropy in imitation; clipped surrogate of whitened advantages in PPO; per action token",
    ),
    _metric(
        "value_loss",
        "reward^2",
        _LAST,
        "half the squared error of the predicted own return, clipped in PPO; per action token",
    ),
    _metric(
        "write_loss",
        "nats",
        _LAST,
        "cross-entropy of the prediction whether the session writes to memory; per action token",
    ),
    _metric("kl_nats", "nats/token", _LAST, "k3 estimate of KL(policy || frozen SFT policy)"),
    _metric("kl_coefficient", "", _LAST, "weight of the KL term to the SFT policy in the update"),
    _metric(
        "update_kl_nats",
        "nats/token",
        _LAST,
        "estimate of KL(policy before the update || policy at its last optimizer step)",
    ),
    _metric(
        "stopped_share",
        "share",
        _LAST,
        "share of the update's optimizer steps that were skipped because the policy had moved too far",
    ),
    _metric("entropy_nats", "nats/token", _LAST, "entropy of the policy at the function tokens that it wrote"),
    _metric("clip_share", "share", _LAST, "share of action tokens whose policy gradient is clipped to zero"),
    _metric("ratio_deviation", "", _LAST, "mean of |ratio - 1| over the action tokens"),
    _metric(
        "behavior_gap_nats",
        "nats",
        _LAST,
        "mean of |logprob of the engine - logprob of the learner| before the update",
    ),
    _metric(
        "effective_share",
        "share",
        _LAST,
        "effective sample size of the importance weights min(ratio, 2), as a share of the action tokens",
    ),
    _metric("truncated_share", "share", _LAST, "share of action tokens whose importance weight is cut to 2"),
    _metric("advantage_mean", "reward", _LAST, "mean advantage before whitening"),
    _metric("advantage_std", "reward", _LAST, "standard deviation of the advantages before whitening"),
    _metric(
        "explained_variance",
        "share",
        _LAST,
        "share of the variance of return plus credit that is explained by the critic, before the update, plus the "
        "credit baseline",
    ),
    _metric(
        "own_explained_variance",
        "share",
        _LAST,
        "share of the variance of own returns, without credit, that is explained by the critic, before the update",
    ),
    _metric("gradient_norm", "", _LAST, "mean norm of the gradient before clipping"),
    _metric("learning_rate", "", _LAST, "learning rate of the last optimizer step"),
)
_SPEED_METRICS = (
    _metric("tokens", "tokens", _SUM, "tokens in forward-backward passes, without padding"),
    _metric("processed_tokens", "tokens", _SUM, "tokens in forward-backward passes, with padding"),
    _metric("padding", "share", _MEAN, "share of the processed tokens that is padding"),
    _metric("learn_seconds", "s", _SUM, "wall time of the learner's call"),
    _metric("tokens_per_second", "tokens/s", _MEAN, "tokens learned from per second, without padding"),
    _metric(
        "sessions_per_second",
        "sessions/s",
        _MEAN,
        "sessions collected per second of waiting for them, with failed ones",
    ),
    _metric("sync_seconds", "s", _MEAN, "time to move the learner's weights into the engines and verify them"),
    _metric("discarded_seconds", "s", _SUM, "wall time of the work that a resumed run repeats"),
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (*_SESSION_METRICS, *_CREDIT_METRICS, *_LEARNER_METRICS, *_SPEED_METRICS)
}
"""Every metric, by name."""


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Refuse a metric that has no definition. `name/part` is defined by `name`.

    Raises:
        ContractError: names the unknown metrics.
    """
    unknown = sorted(name for name in metrics if _defining_name(name) not in METRICS)
    if unknown:
        raise ContractError(
            f"metrics: every metric is defined in METRICS, found {', '.join(unknown)}; define it in {__name__}"
        )


def pool_metrics(lines: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Reduce the metrics of many lines to one value per name; a line need not have every metric."""
    values: dict[str, list[float]] = {}
    for metrics in lines:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {name: _REDUCE[METRICS[_defining_name(name)].reduction](series) for name, series in values.items()}


def _defining_name(name: str) -> str:
    return name.partition("/")[0]


_REDUCE = {
    Reduction.MEAN: lambda series: sum(series) / len(series),
    Reduction.SUM: sum,
    Reduction.LAST: lambda series: series[-1],
}
