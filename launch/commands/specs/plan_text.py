"""The lines that `agile-ray plan` prints."""

from collections.abc import Sequence

from agile_ray.config import RunConfig
from agile_ray.scripted.demonstration_file import sessions_of
from launch.plan.batches import Batches
from launch.plan.duration import Estimate
from launch.plan.fit import Fit
from launch.plan.lengths import Lengths
from launch.plan.network import Network
from launch.run.adoption import imitation_key
from launch.run.sweep_plan import Job
from launch.status.seen import duration

SHOWN_NODES = 16


def show_model(config: RunConfig, network: Network) -> None:
    """The model: parameters, and how many of them are trained."""
    trained = network.trained(config.learner.lora_rank)
    print(
        f"model       {network.kind}, {_millions(network.parameters)} parameters, {_millions(trained)} trained, "
        f"vocabulary {network.vocabulary}"
    )


def show_placement(fitted: Fit) -> None:
    """The actors of each node."""
    for name, actors in list(fitted.placement.by_node.items())[:SHOWN_NODES]:
        print(f"placement   {name}: {', '.join(actors) or 'nothing'}")
    if (more := len(fitted.placement.by_node) - SHOWN_NODES) > 0:
        print(f"placement   {more} nodes more")


def show_batches(config: RunConfig, found: Batches, lengths: Lengths) -> None:
    """The arithmetic of an iteration and of the run."""
    learner = config.learner
    mean, most = float(lengths.tokens.mean()), int(lengths.tokens.max())
    print(f"lengths     {mean:.0f} tokens a row, at most {most}: {lengths.source}")
    imitation, played = config.imitation, sessions_of(config.imitation)
    searches = f" and {imitation.search_rows} search rows" if imitation.search_rows else ""
    left_out = played + imitation.search_rows - found.imitation_rows
    print(
        f"imitation   {played} sessions{searches}, {f'{left_out} of them left out, ' if left_out else ''}"
        f"{found.imitation_steps} optimizer steps of {imitation.batch}"
    )
    print(
        f"iteration   {found.sessions} sessions ({config.loop.lanes} lanes x {config.loop.sessions_per_lane}), "
        f"{found.rows} rows, {found.tokens} tokens"
    )
    print(
        f"learning    {found.steps} optimizer steps an iteration, each of {found.micro_batches} micro-batches of at "
        f"most {learner.micro_batch_tokens} tokens on each of {learner.ranks} ranks, {found.padding:.1%} padding"
    )
    print(
        f"run         {found.iterations} iterations, {found.validations} validations, {found.all_steps} optimizer "
        f"steps, {_millions(found.learned_tokens)} tokens collected"
    )


def show_memory(config: RunConfig, fitted: Fit) -> None:
    """What a rank and an engine hold."""
    rank, engine = fitted.rank, fitted.engine
    adapters = f", LoRA of rank {config.learner.lora_rank}" if config.learner.lora_rank else ""
    print(
        f"rank        {_gib(rank.total)} at most: libraries {_gib(rank.libraries)}, weights {_gib(rank.weights)}, "
        f"reference {_gib(rank.reference)}, optimizer {_gib(rank.optimizer)}, gradients {_gib(rank.gradients)}, "
        f"then activations {_gib(rank.activations)} or the step {_gib(rank.step)} "
        f"(ZeRO {config.learner.zero_stage}{adapters})"
    )
    print(
        f"engine      {_gib(engine.total)}: weights {_gib(engine.weights)}, cache {_gib(engine.cache)}, which holds "
        f"{engine.cached_tokens} tokens"
    )


def show_estimate(found: Estimate) -> None:
    """The time of one run."""
    print(
        f"time        about {duration(found.total)}: teacher {duration(found.teacher)}, imitation "
        f"{duration(found.imitation)}, PPO {duration(found.ppo)}, validations {duration(found.validation)}, "
        f"evaluations {duration(found.evaluation)}; the start comes on top"
    )


def show_jobs(jobs: Sequence[Job], estimate: Estimate | None, *, ignores: Sequence[str]) -> None:
    """The runs of a sweep, and the time of those that are left, one after the other."""
    left = [job for job in jobs if not job.finished]
    alike = {imitation_key(job.config, ignores) for job in left}
    print(
        f"sweep       {len(jobs)} runs, {len(jobs) - len(left)} finished, {len(left)} left; {len(alike)} different "
        "imitations"
    )
    for group in dict.fromkeys(job.group for job in jobs):
        print(f"            {group}: {sum(job.group == group for job in jobs)} runs")
    if estimate is not None:
        taught = estimate.teacher + estimate.imitation
        all_s = len(left) * (estimate.total - taught) + len(alike) * taught
        print(f"time        about {duration(all_s)} for what is left, one after the other")


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"
