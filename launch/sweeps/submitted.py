"""Runs a sweep as a job of a Ray cluster: `agile-ray sweep SPEC --parallel N` there, which starts the runs as jobs.

So the sweep goes on when this machine is switched off, and only the cluster needs to see the folder of the runs. The
same command again follows the job that runs, or starts what is missing.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from agile_ray.config_file import Spec
from agile_ray.errors import ConfigError
from launch.cluster.address import check_shared
from launch.cluster.job import commit_of, digest, entrypoint, followed, metadata, packaged, stoppable
from launch.cluster.jobs import Jobs, in_folder
from launch.run.sweep_plan import Job

FOLDER = "submitted"
"""Where the spec is in the job's working folder."""
STOP_S = 75
"""Time between SIGTERM and SIGKILL when the sweep is stopped, seconds. It waits up to 60 for its runs to end."""


def submit_sweep(
    sheet: Spec,
    jobs: Sequence[Job],
    overrides: Sequence[str],
    *,
    address: str,
    project: Path,
    parallel: int,
    retries: int,
    follow: bool,
    variables: Mapping[str, str],
) -> int:
    """Start the job of a sweep, or find the one that runs, and follow it on request.

    Args:
        sheet: the spec.
        jobs: its runs.
        overrides: for every run.
        address: of the cluster's dashboard.
        project: a checkout of this project, or where it is installed.
        parallel: how many runs are jobs at once.
        retries: how often a run is started again, where what failed is not its own.
        follow: print the job's log until it ends.
        variables: environment variables of all processes of all jobs.

    Returns:
        The job's exit code; 0 if it is not followed, INTERRUPTED if the user stops following.

    Raises:
        ConfigError: a path is not shared, the cluster doesn't answer, or the sweep runs with another configuration.
        AgileError: the cluster refuses the job, or the connection broke while the job goes on.
    """
    configs = [job.config for job in jobs]
    for config in configs:
        check_shared(config)
    name, folder = sheet.path.stem, configs[0].run.folder
    cluster = Jobs.at(address)
    if (other := in_folder(cluster.all(), folder)) is not None:
        if other.config_hash != digest(configs):
            raise ConfigError(
                f"sweep {name}: job {other.id} trains other configurations in {folder}; `agile-ray stop {other.id}` "
                "ends it, another run.folder keeps both"
            )
        print(f"sweep {name} runs already, as job {other.id}", flush=True)
        return followed(cluster, other.id, name) if follow else 0
    with packaged(project, configs) as (package, shipped):
        spec = package / FOLDER / f"{name}.yaml"
        spec.parent.mkdir()
        spec.write_text(sheet.yaml(), encoding="utf-8")
        words = ["sweep", f"{FOLDER}/{spec.name}", *overrides, "--parallel", str(parallel), "--retries", str(retries)]
        job = cluster.submit(
            entrypoint(*words),
            runtime_env={"working_dir": str(package), "env_vars": stoppable(variables, STOP_S)},
            metadata=metadata("sweep", name, folder, configs, commit=commit_of(project)),
        )
    if shipped:
        print(f"with {', '.join(shipped)}")
    print(f"job {job}: sweep {name} in {folder}, {len(jobs)} runs, {parallel} at once", flush=True)
    print(f"its runs: agile-ray status {shlex.quote(name)} --address {address}", flush=True)
    return followed(cluster, job, name) if follow else 0
