"""The report of a run: one value with everything that report.json, the page and the tables show. Does no I/O."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from agile_ray.config import RunConfig
from agile_ray.errors import StarvedError
from agile_ray.evaluation.choice import Choice
from agile_ray.evaluation.frontier.closed import closed
from agile_ray.evaluation.intervals import FEW
from agile_ray.evaluation.score import Bin, Difference, Score, curve, paired_difference, score
from agile_ray.record.history import FLEET, Dropped, Event, Line
from agile_ray.record.ledger import Ledger
from agile_ray.record.metrics import pool_metrics
from agile_ray.record.provenance import Start
from agile_ray.types import Session
from launch.report.entries import LEARNED, NO_FUTURE, ORACLE
from launch.report.findings.asking import Asking, asking
from launch.report.findings.card import UNKNOWN, Card, ModelFacts, card
from launch.report.findings.warnings import warnings
from launch.report.frontier.measure import SAMPLED, Frontier, RunResults, frontiers

TRACES = (
    "kl_nats",
    "update_kl_nats",
    "credit_mean",
    "credit_spread",
    "entropy_nats",
    "explained_variance",
    "clip_share",
    "gradient_norm",
)
"""Metrics of an iteration that are shown over the iterations."""
ALL = "all of these"
"""The streams of an evaluation together, as they are: its intervals say nothing about other streams."""
CURVES = ("sft", "ppo", ORACLE)
"""Entries that are shown over the position in the stream."""
NO_BOOKS = Ledger()
"""The ledger of a run that has not trained."""
NO_FACTS = ModelFacts(kind=UNKNOWN, parameters=None)
"""Of a model whose folder is not there."""


class Point(BaseModel):
    """One measurement during the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iteration: int
    of: str  # "training", or the name of an evaluation
    total_score: float
    accuracy: float
    asked_share: float


class Throughput(BaseModel):
    """Mean speed over the whole run; 0.0 where nothing was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sessions_per_second: float  # collected, per second of collection
    tokens_per_second: float  # trained on by PPO, without padding, per second of the learner's calls
    imitation_tokens_per_second: float
    padding: float  # share of all processed tokens
    sync_seconds: float  # mean of one weight sync


class Discarded(BaseModel):
    """What resuming discarded: everything after the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resumptions: int
    lines: int
    rows: int
    seconds: float


class Report(BaseModel):
    """report.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    run: str
    environment: str
    seed: int
    advice_cost: float | tuple[float, ...]  # several: each episode has one of them
    references: dict[str, Score]
    sft: Score | None  # these four are None until they are evaluated
    sft_sampled: Score | None
    ppo: Score | None
    ppo_sampled: Score | None
    chosen: Choice | None = None  # whose checkpoint ppo is; None: the last, without an evaluation, or not known
    differences: dict[str, Difference]  # ppo minus each other entry
    differences_sampled: dict[str, Difference]  # ppo_sampled minus each other entry but ppo and sft
    best_reference: str | None  # of NO_FUTURE, by total score
    closed: float | None  # (ppo - best_reference) / (oracle - best_reference); None if the two are equal
    progress: list[Point]
    curves: dict[str, list[Bin]]
    seconds: dict[str, float]  # wall time by phase
    throughput: Throughput
    metrics: dict[str, float]  # of the iterations, pooled as record/metrics.py defines
    counts: dict[str, int]  # endings and remarks of the training sessions; losses of engines and learner ranks
    dropped: list[Dropped]
    discarded: Discarded
    ledger: Ledger = NO_BOOKS
    config_hash: str
    starts: list[Start]
    card: Card | None = None  # these five are None or empty in reports of earlier versions
    warnings: list[str] = []  # what went wrong, a sentence each
    traces: dict[str, list[tuple[int, float]]] = {}  # metrics of TRACES, each with its iterations
    streams: dict[str, dict[str, Difference]] = {}  # of few streams: in each, and in ALL, ppo minus each other entry
    asking: Asking | None = None  # of the sampled policy; None as well if no probabilities of asking are stored
    frontier: Frontier | None = None

    @property
    def entries(self) -> dict[str, Score]:
        """Every evaluated policy, the learned ones first."""
        learned = {name: getattr(self, name) for name in LEARNED}
        return {name: entry for name, entry in learned.items() if entry is not None} | self.references


def build(
    results: Mapping[str, Sequence[Session]],
    *,
    config: RunConfig,
    lines: Sequence[Line],
    starts: Sequence[Start],
    ledger: Ledger = NO_BOOKS,
    chosen: Choice | None = None,
    facts: ModelFacts = NO_FACTS,
) -> Report:
    """Score the evaluations of a run and sum up its history.

    Args:
        results: evaluation sessions by entry: the names of LEARNED, and reference policies. Those of `ppo_sampled` have
            their turns, if they are stored.
        lines: the run's history.
        ledger: of the training.
        chosen: which checkpoint was evaluated as ppo.
        facts: of the run's model.

    Raises:
        ContractError: two entries were evaluated on different questions.
    """
    scores = {name: score(sessions, seed=config.seed) for name, sessions in results.items()}
    references = {name: entry for name, entry in scores.items() if name not in LEARNED}
    best = max((name for name in NO_FUTURE if name in scores), key=lambda name: scores[name].total_score, default=None)
    iterations = [line for line in lines if line.event is Event.ITERATION]
    return Report(
        run=config.run.name,
        environment=config.env.name,
        seed=config.seed,
        advice_cost=config.env.advice_cost,
        references=references,
        sft=scores.get("sft"),
        sft_sampled=scores.get("sft_sampled"),
        ppo=scores.get("ppo"),
        ppo_sampled=scores.get("ppo_sampled"),
        chosen=chosen,
        differences=_differences("ppo", results, without=("ppo",), seed=config.seed),
        differences_sampled=_differences(
            "ppo_sampled", results, without=("ppo_sampled", "ppo", "sft"), seed=config.seed
        ),
        best_reference=best,
        closed=_closed(scores, best),
        streams=_by_stream(results),
        progress=_progress(lines),
        curves={name: curve(results[name]) for name in CURVES if name in results},
        seconds=_sum(line.seconds for line in lines),
        throughput=_throughput(lines),
        metrics=pool_metrics(line.metrics for line in iterations),
        counts=_counts(lines),
        dropped=_dropped(iterations),
        discarded=_discarded(lines),
        ledger=ledger,
        config_hash=config.digest,
        starts=list(starts),
        card=card(config, facts, lines, {name: results[name] for name in LEARNED if name in results}),
        warnings=warnings(lines, scores),
        traces=_traces(iterations),
        asking=asking(results.get(SAMPLED, ()), results.get(ORACLE, ())),
        frontier=_frontier(config, results),
    )


def _traces(iterations: Sequence[Line]) -> dict[str, list[tuple[int, float]]]:
    """Each of TRACES with the iterations that measured it."""
    found = {
        name: [(line.iteration, line.metrics[name]) for line in iterations if name in line.metrics] for name in TRACES
    }
    return {name: points for name, points in found.items() if points}


def _frontier(config: RunConfig, results: Mapping[str, Sequence[Session]]) -> Frontier | None:
    """The frontier of the run alone; None before the final evaluation."""
    if "ppo" not in results:
        return None
    (found,) = frontiers([RunResults(run=config.run.name, policy="this run", seed=config.seed, sessions=results)])
    return found


def _differences(
    name: str, results: Mapping[str, Sequence[Session]], *, without: Sequence[str], seed: int
) -> dict[str, Difference]:
    if name not in results:
        return {}
    return {
        other: paired_difference(results[name], sessions, seed=seed)
        for other, sessions in results.items()
        if other not in without
    }


def _by_stream(results: Mapping[str, Sequence[Session]]) -> dict[str, dict[str, Difference]]:
    """PPO's lead in each stream and in all; empty if there is only one, or so many that each says little."""
    names = sorted({session.stream for session in results.get("ppo", ())})
    if not 1 < len(names) < FEW:
        return {}
    found = {name: _leads(results, lambda session, name=name: session.stream == name) for name in names}
    return found | {ALL: _leads(results, lambda _: True)}


def _leads(results: Mapping[str, Sequence[Session]], chosen: Callable[[Session], bool]) -> dict[str, Difference]:
    kept = {entry: list(filter(chosen, sessions)) for entry, sessions in results.items()}
    found: dict[str, Difference] = {}
    for entry, sessions in kept.items():
        if entry != "ppo":
            with suppress(StarvedError):  # in each pair a session has failed
                found[entry] = paired_difference(kept["ppo"], sessions, other_streams=False)
    return found


def _closed(scores: Mapping[str, Score], best: str | None) -> float | None:
    if best is None or not {"ppo", ORACLE} <= scores.keys():
        return None
    return closed(scores["ppo"].total_score, start=scores[best].total_score, oracle=scores[ORACLE].total_score)


def _progress(lines: Iterable[Line]) -> list[Point]:
    return [
        Point(
            iteration=line.iteration,
            of=line.name or "training",
            total_score=line.metrics["total_score"],
            accuracy=line.metrics["accuracy"],
            asked_share=line.metrics["asked_share"],
        )
        for line in lines
        if line.event in (Event.ITERATION, Event.EVALUATION)
    ]


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _throughput(lines: Sequence[Line]) -> Throughput:
    ppo = _sum(line.metrics for line in lines if line.event is Event.ITERATION)
    imitation = _sum(line.metrics for line in lines if line.event is Event.IMITATION)
    seconds = _sum(line.seconds for line in lines)
    syncs = [line.metrics["sync_seconds"] for line in lines if "sync_seconds" in line.metrics]
    processed = ppo.get("processed_tokens", 0.0) + imitation.get("processed_tokens", 0.0)
    return Throughput(
        sessions_per_second=_rate(ppo.get("sessions", 0.0) + ppo.get("failed", 0.0), seconds.get("collect", 0.0)),
        tokens_per_second=_rate(ppo.get("tokens", 0.0), ppo.get("learn_seconds", 0.0)),
        imitation_tokens_per_second=_rate(imitation.get("tokens", 0.0), imitation.get("learn_seconds", 0.0)),
        padding=1 - (ppo.get("tokens", 0.0) + imitation.get("tokens", 0.0)) / processed if processed else 0.0,
        sync_seconds=_rate(sum(syncs), len(syncs)),
    )


def _rate(amount: float, per: float) -> float:
    return amount / per if per else 0.0


def _counts(lines: Iterable[Line]) -> dict[str, int]:
    found = Counter[str]()
    for line in lines:
        if line.event is Event.ITERATION:
            found.update(line.counts)
        elif line.event is Event.RESUME:
            found.update({name: count for name, count in line.counts.items() if name.startswith(FLEET)})
    return dict(found)


def _dropped(iterations: Iterable[Line]) -> list[Dropped]:
    found: Counter[tuple[str, bool, int]] = Counter()
    for line in iterations:
        for entry in line.dropped:
            found[entry.reason, entry.asked, entry.tokens_up_to] += entry.sessions
    return [
        Dropped(reason=reason, asked=asked, tokens_up_to=tokens, sessions=sessions)
        for (reason, asked, tokens), sessions in sorted(found.items())
    ]


def _discarded(lines: Iterable[Line]) -> Discarded:
    resumed = [line for line in lines if line.event is Event.RESUME]
    return Discarded(
        resumptions=len(resumed),
        lines=sum(line.counts["discarded/lines"] for line in resumed),
        rows=sum(line.counts["discarded/rows"] for line in resumed),
        seconds=sum(line.metrics["discarded_seconds"] for line in resumed),
    )
