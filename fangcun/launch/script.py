"""The job script: what Slurm runs on the first node, written so that a person can read it and submit it again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fangcun.launch.options import SlurmOptions

FOLDER = "slurm"
"""Where a run folder keeps its job script, the log and the job's number."""
SCRIPT = "job.sh"
_TITLE = "# Fangcun job"

# Slurm's ways of ending a job differ in who hears of it, hence two traps. A requeue, a preemption and scancel send SIGTERM to
# every process of the job, this shell included: the run saves by itself and the shell waits. The end of the time is told
# to this shell alone (--signal=B:USR1), which then tells the run and puts the job back into the queue.
_BODY = r"""
set -u
cd {cwd}
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{cpus_per_process}}}"
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"          # srun no longer takes this over from sbatch by itself
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={shutdown_seconds}         # seconds in which torchrun lets the processes save
{setup}
run_folder={folder}
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

whole() {{ ls -di "$run_folder"/*/manifest.json "$run_folder"/checkpoints/step-*/manifest.json 2>/dev/null; }}
before=$(whole)

time_is_up=
trap 'time_is_up=yes; echo "fangcun: time is nearly up: saving, then back into the queue"; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap 'echo "fangcun: told to end: waiting for the run to save"' TERM

# is_host: the first node keeps the list of who is there; torchrun alone knows it only where host and node have one name.
# --wait: when one node ends and another does not, the job ends after a minute instead of holding its nodes.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=60 \
  bash -c 'PET_RDZV_CONF="join_timeout=120,read_timeout=30,is_host=$((SLURM_NODEID == 0))" exec "$@"' bash \
  {python} -m torch.distributed.run \
  --nnodes={nodes} --nproc-per-node={processes} --max-restarts={max_restarts} \
  --rdzv-backend=c10d --rdzv-endpoint="$first_node:$port" --rdzv-id="slurm-$SLURM_JOB_ID" \
  -m fangcun {command} &
run=$!
while :; do      # a trap interrupts wait; the run is over when it is gone
  wait "$run"
  code=$?
  kill -0 "$run" 2>/dev/null || break
done

if [ -n "$time_is_up" ] && [ "$code" -ne 0 ]; then
  if [ "$(whole)" = "$before" ]; then
    echo "fangcun: nothing was finished within the time of one job, so it is not queued again. Give it more with --time."
    exit 1
  fi
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def job_script(
    options: SlurmOptions, *, name: str, folder: Path, cwd: Path, command: Sequence[str], python: str | None = None
) -> str:
    """The text of a job that runs `fangcun COMMAND…` in `cwd` on every node. `folder`, absolute, is the run's."""
    directives = [f"#SBATCH {_quoted(option)}" for option in sbatch_options(options, name=name, folder=folder)]
    head = ["#!/bin/bash", f"{_TITLE}: {' '.join(name.split())}. Submit it again with: sbatch {SCRIPT}", *directives]
    return "\n".join(head) + "\n" + _BODY.format(
        cwd=shlex.quote(str(cwd)),
        folder=shlex.quote(str(folder)),
        cpus_per_process=options.cpus_per_process,
        shutdown_seconds=options.save_seconds,
        setup="\n".join(options.setup),
        python=shlex.quote(python or sys.executable),
        nodes=options.nodes,
        processes=options.processes,
        max_restarts=options.max_restarts,
        command=shlex.join(command),
    )  # fmt: skip


def sbatch_options(options: SlurmOptions, *, name: str, folder: Path) -> list[str]:
    """The options of sbatch, as it takes them."""
    log = str(folder / FOLDER).replace("%", "%%")
    wanted = [
        ("job-name", options.job_name or f"fangcun-{name}"),
        ("output", f"{log}/log-%j.txt"),
        ("nodes", options.nodes),
        ("ntasks-per-node", 1),
        ("cpus-per-task", options.processes * options.cpus_per_process),
        ("gpus-per-node", options.gpus_per_node),
        ("time", options.time),
        ("partition", options.partition),
        ("account", options.account),
        ("qos", options.qos),
        ("mem", options.mem),
        ("signal", f"B:USR1@{options.save_seconds}"),
        ("open-mode", "append"),
    ]
    return [f"--{key}={value}" for key, value in wanted if value is not None] + ["--requeue", *options.sbatch]


def looks_like_job(folder: Path) -> bool:
    """Whether `folder` holds a job script of ours: a run that waits in a queue has nothing else yet."""
    file = Path(folder) / FOLDER / SCRIPT
    return file.is_file() and file.read_bytes().startswith(f"#!/bin/bash\n{_TITLE}".encode())


def _quoted(option: str) -> str:
    """As sbatch reads a directive: spaces only inside double quotes."""
    return option if not any(c in option for c in " \t'#") else '"' + option.replace('"', '\\"') + '"'
