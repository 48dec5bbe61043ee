"""Corpus and packing as tasks of datatrove's executors: on one machine, under Slurm, on Ray.

The tasks call the same functions as a single process does and write the same files, whoever runs them. Finished tasks are
kept: the same command again runs the missing ones only.
"""

from fangcun.cluster.corpus import build_corpus_by_tasks
from fangcun.cluster.job import Job, Phase
from fangcun.cluster.packing import pack_by_tasks
from fangcun.cluster.run import run_job

__all__ = ["Job", "Phase", "build_corpus_by_tasks", "pack_by_tasks", "run_job"]
