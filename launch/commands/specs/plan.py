"""`agile-ray plan`: prints what a spec would take; launch/plan computes it, and starts nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agile_ray.errors import AgileError, ConfigError
from launch.commands.paths import as_path

if TYPE_CHECKING:
    from agile_ray.config import RunConfig
    from launch.plan.batches import Batches
    from launch.plan.duration import Estimate
    from launch.plan.lengths import Lengths
    from launch.plan.machines import Node


def command(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Name of a shipped config or sweep, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as rollout.actors=8.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="Machines, as NODESxCOUNTxKIND-GIB: 2x8xH100-80 for GPUs, 4x16xcpu-64 for cores; several joined by +.",
            show_default="this machine",
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="Dashboard of a running cluster, whose nodes are asked for.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            parser=as_path, metavar="RUN", help="Folder of a finished run, for lengths of sessions and the time."
        ),
    ] = None,
) -> None:
    """Print what a spec would take, before it costs anything: no Ray, no engine, no model is started.

    Actors and the node of each; sessions, tokens, micro-batches and optimizer steps; memory of each learner rank and
    engine; the runs of a sweep; what does not fit, and what would make it fit (exit code 2). How long sessions are is
    taken from --like, or else from sessions that the teacher plays here, with the model's tokenizer.

    \b
    Examples:
      agile-ray plan quickstart
      agile-ray plan quickstart --cluster 2x8xH100-80 cluster.device=gpu rollout.actors=8 learner.ranks=8
      agile-ray plan prices --like runs/quickstart
    """
    if cluster is not None and address is not None:
        raise ConfigError("plan: --cluster describes machines, --address asks for them; give one")
    nodes = _nodes(cluster, address)  # asked before libraries are loaded, so that a wrong address is told at once
    from launch.commands.specs import plan_text
    from launch.plan.batches import batches
    from launch.plan.fit import fit
    from launch.plan.machines import describe
    from launch.plan.network import read_network
    from launch.run.shipped_configs import spec as read_spec
    from launch.run.sweep_plan import plan

    read = read_spec(spec)
    given = overrides or ()
    jobs = plan(read.path, read, given) if read.axes.vary else []
    config = jobs[0].config if jobs else read.resolve(given)
    network = read_network(config.model.path)
    lengths, imitation_rows = _rows(config, like)
    arithmetic = batches(config, lengths, imitation_rows=imitation_rows)
    local = cluster is None and address is None
    fitted = fit(config, network, nodes, action_share=lengths.action_share, count_cores=not local)
    estimate = None if like is None else _estimate(config, arithmetic, lengths, like)
    print(f"machines    {describe(nodes)}")
    plan_text.show_model(config, network)
    plan_text.show_placement(fitted)
    plan_text.show_batches(config, arithmetic, lengths)
    plan_text.show_memory(config, fitted)
    if estimate is not None:
        plan_text.show_estimate(estimate)
    if jobs:
        plan_text.show_jobs(jobs, estimate, ignores=read.axes.imitation_ignores)
    for warning in fitted.warnings:
        print(f"note        {warning}")
    if fitted.problems:
        raise ConfigError(f"plan {spec}: it does not fit: {'; '.join(fitted.problems)}")
    print("fits        yes")


def _nodes(cluster: str | None, address: str | None) -> "Sequence[Node]":
    from launch.plan.machines import parse_shape

    if cluster is not None:
        return parse_shape(cluster)
    from launch.plan.this_machine import this_machine
    from launch.validate.machines import nodes_of

    if address is None:
        return (this_machine(),)
    from launch.cluster.dashboard import Dashboard

    return nodes_of(Dashboard(address))


def _rows(config: "RunConfig", like: Path | None) -> "tuple[Lengths, int | None]":
    """Lengths of sessions: of a finished run, else of the teacher's, else the longest; and what imitation learns."""
    from agile_ray.record.folder import RunFolder
    from launch.plan.lengths import longest, stored
    from launch.plan.teacher import Teacher

    lengths = None if like is None else stored(RunFolder(like))
    try:
        teacher = Teacher.of(config)
        lengths = lengths or teacher.lengths()
        return lengths, teacher.rows()
    except AgileError as error:
        print(f"note        the teacher can't play here: {error}")
        return lengths or longest(config), None


def _estimate(config: "RunConfig", planned: "Batches", lengths: "Lengths", like: Path) -> "Estimate":
    from agile_ray.config_file import load
    from agile_ray.record import history
    from agile_ray.record.folder import RunFolder
    from launch.plan.batches import batches
    from launch.plan.duration import estimate

    run = RunFolder(like)
    if not (run.config.is_file() and run.is_finished):
        raise ConfigError(f"--like {like}: the folder of a finished run is needed, found none of one")
    past = load(run.config)
    return estimate(config, planned, past, batches(past, lengths), history.read(run.history))
