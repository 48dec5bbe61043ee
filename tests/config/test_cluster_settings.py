"""Settings of cluster: what an executor does not read is refused, and what Slurm would refuse hours later is said now."""

from __future__ import annotations

import pytest

from fangcun.config import load_recipe
from fangcun.errors import ConfigError


def cluster(*flags: str):
    return load_recipe("demo", list(flags)).recipe.cluster


def test_each_executor_takes_its_own_settings() -> None:
    assert cluster().executor is None
    slurm = cluster("--cluster.executor", "slurm", "--cluster.time", "2-12:00:00", "--cluster.partition", "cpu",
                    "--cluster.setup", "module load python", "--cluster.sbatch=--exclusive", "--cluster.memory_gb", "4")  # fmt: skip
    assert (slurm.time, slurm.partition, slurm.setup, slurm.sbatch, slurm.memory_gb) == (
        "2-12:00:00", "cpu", ["module load python"], ["--exclusive"], 4)  # fmt: skip
    assert cluster("--cluster.executor", "ray", "--cluster.ray_address", "10.0.0.1:6379").ray_address


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cluster.tasks", "3"], "--cluster.tasks: it has no effect without cluster.executor"),
        (["--cluster.executor", "local", "--cluster.partition", "cpu"], "no effect with cluster.executor 'local'"),
        (["--cluster.executor", "local", "--cluster.memory_gb", "4"], "no effect with cluster.executor 'local'"),
        (["--cluster.executor", "ray", "--cluster.qos", "low"], "no effect with cluster.executor 'ray'"),
        (["--cluster.executor", "slurm", "--cluster.ray_address", "x"], "no effect with cluster.executor 'slurm'"),
        (["--cluster.executor", "ray", "--corpus.workers", "2"], "cluster.workers counts the tasks"),
        (["--cluster.executor", "slurm", "--cluster.time", "2 days"], "--cluster.time: expected minutes"),
        (["--cluster.executor", "slurm", "--cluster.sbatch", "exclusive"], "--cluster.sbatch: expected an option"),
        (["--cluster.executor", "local", "--cluster.tasks", "1001"], "--cluster.tasks"),
    ],
)
def test_what_has_no_effect_or_cannot_be_meant_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        cluster(*flags)
    assert said in str(error.value)
