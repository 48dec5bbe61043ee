"""Who does the work of the corpus stage and of packing: this process, or tasks on one machine, under Slurm or Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from fangcun.config.constraints import Bounds, PositiveFloat, PositiveInt

Tasks = Annotated[int, Bounds(low=1, high=1000)]
"""An array of Slurm has 1001 elements at most where nobody has allowed more."""


@dataclass
class ClusterConfig:
    """Tasks of datatrove's executors for corpus and packing (extra cluster). The files are the same as without. All machines see the run folder and the text at the same paths."""

    executor: Literal["local", "slurm", "ray"] | None = None
    """local: tasks on this machine. slurm: job arrays of Slurm. ray: a Ray cluster. Null: this process, with corpus.workers and tokens.workers."""

    tasks: Tasks | None = None
    """Tasks that a stage is cut into. Null: one for each 256 MB it reads, at most 1000."""

    workers: PositiveInt | None = None
    """Tasks at the same time at most. Null: one a core (local), or as many as the cluster gives (slurm, ray)."""

    memory_gb: PositiveFloat | None = None
    """Memory that is asked for each task, in GB (slurm, ray). Null: what the cluster gives by default."""

    time: str = "24:00:00"
    """Wall time of a task under Slurm: minutes, HH:MM:SS or D-HH:MM:SS."""

    partition: str | None = None
    """Partition (queue) of Slurm. Null: the cluster's default."""

    account: str | None = None
    """Account that Slurm charges."""

    qos: str | None = None
    """Quality of service of Slurm."""

    setup: list[str] = field(default_factory=list)
    """Shell lines that each job of Slurm runs first, such as 'module load python'."""

    sbatch: list[str] = field(default_factory=list)
    """Any other options of sbatch, such as --exclusive, written --cluster.sbatch=--exclusive."""

    ray_address: str | None = None
    """Address of a Ray cluster. Null: the one that RAY_ADDRESS or this machine names, else one is started here for as long as the stage takes."""
