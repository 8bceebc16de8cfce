"""A batch script for Slurm: `sbatch FILE` starts Ray on the nodes and the training on the first of them."""

import shlex

from launch.manifests.request import Request

WARNING_S = 60
"""How long before its time limit Slurm tells the script, seconds."""
JOIN_S = 300
"""Longest wait for all nodes to join, seconds."""
PORT = 6379

DRIVER = """\
trap 'kill -TERM "$driver"' TERM  # the training saves a checkpoint; submitted again, it resumes
{train} "$spec" & driver=$!
code=0; wait "$driver" || code=$?
while kill -0 "$driver" 2> /dev/null; do code=0; wait "$driver" || code=$?; done  # a signal ends the first wait
exit "$code"
"""
JOIN = """\
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$head:{port}" SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
trap 'kill $(jobs -p) 2> /dev/null' EXIT
srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port={port} --block &
srun --nodes={others} --ntasks={others} --exclude="$head" sh -c \\
    'until ray start --address="$RAY_ADDRESS" --block; do sleep 5; done' &
deadline=$((SECONDS + {join}))
until [ "$(python -c 'import ray; ray.init(log_to_driver=False); print(len(ray.nodes()))' 2> /dev/null)" = {nodes} ]; do
    [ "$SECONDS" -lt "$deadline" ] || {{ echo "not all of {nodes} nodes joined within {join} s" >&2; exit 1; }}
    sleep 5
done
"""


def slurm(asked: Request) -> str:
    """The script."""
    options = [
        f"--job-name={asked.name}",
        f"--nodes={asked.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={asked.cores}",
        f"--mem={asked.memory_gib}G",
        *(
            [f"--gpus-per-node={asked.gpu_kind.lower() + ':' if asked.gpu_kind else ''}{asked.gpus}"]
            if asked.gpus
            else []
        ),
        *([f"--qos={asked.priority}"] if asked.priority else []),
        f"--signal=B:TERM@{WARNING_S}",
    ]
    join = "" if asked.nodes == 1 else JOIN.format(port=PORT, others=asked.nodes - 1, nodes=asked.nodes, join=JOIN_S)
    folder = shlex.quote(str(asked.config.run_folder.with_name(f"{asked.name}.submitted.yaml")))
    assumed = (
        "# The memory is assumed: the model's folder is not on the machine that wrote this.\n" if asked.assumed else ""
    )
    return (
        "#!/bin/bash\n"
        + "".join(f"#SBATCH {option}\n" for option in options)
        + "# Submit it in the environment that agile-ray[train] is installed in. To end it early:\n"
        "# scancel --batch --signal=TERM JOB\n"
        f"{assumed}set -euo pipefail\n"
        f"spec={folder}\n"
        f'mkdir -p "$(dirname "$spec")"\ncat > "$spec" <<\'END\'\n{asked.config.yaml()}END\n'
        f"{join}{DRIVER.replace('{train}', asked.train)}"
    )
