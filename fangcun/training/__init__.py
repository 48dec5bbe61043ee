"""Pretraining: the loop, its optimizers and schedule, checkpoints that resume bitwise, metrics.

A run stopped at any step and resumed has the weights of the run that never stopped.
`pretrain` does a whole run; the parts are public for loops of your own (see examples/train_loop.py).
"""

from fangcun.training.checkpoint import Progress, read_progress, restore_checkpoint
from fangcun.training.distributed import Ranks, joined
from fangcun.training.metrics import read_steps
from fangcun.training.objective import Objective
from fangcun.training.optimizers import build_optimizers, set_learning_rate
from fangcun.training.parallel import Parallel, spread
from fangcun.training.precision import Compute, choose_compute
from fangcun.training.pretrain import Outcome, pretrain
from fangcun.training.schedules import learning_rate
from fangcun.training.step import StepResult, train_step

__all__ = [
    "Compute",
    "Objective",
    "Outcome",
    "Parallel",
    "Progress",
    "Ranks",
    "StepResult",
    "build_optimizers",
    "choose_compute",
    "joined",
    "learning_rate",
    "pretrain",
    "read_progress",
    "read_steps",
    "restore_checkpoint",
    "set_learning_rate",
    "spread",
    "train_step",
]
