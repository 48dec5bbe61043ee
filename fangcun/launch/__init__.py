"""Runs on machines that are shared: a recipe becomes a job of the cluster's scheduler.

Everything that can be known wrong is said before the job is submitted, not hours later in a queue. The job is the same
command that would be typed on one machine, so it goes on from its newest checkpoint however often it is requeued.
"""

from fangcun.launch.options import SlurmOptions, split_options
from fangcun.launch.script import SCRIPT, job_script, looks_like_job
from fangcun.launch.slurm import launch_slurm

__all__ = ["SCRIPT", "SlurmOptions", "job_script", "launch_slurm", "looks_like_job", "split_options"]
