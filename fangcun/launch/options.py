"""What a job asks of Slurm: the options of `fangcun launch slurm`, told apart from the recipe's own flags."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from fangcun.config.keys import recipe_keys
from fangcun.errors import ConfigError, did_you_mean

_FLAG = re.compile(r"--[A-Za-z]")
_TIME = re.compile(r"(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})")
"""Minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds."""


@dataclass(frozen=True)
class SlurmOptions:
    """The size of a job, where it may run, and what happens when it is cut short."""

    nodes: int = 1
    """Machines."""
    gpus_per_node: int | None = None
    """GPUs of each machine. None: a job on CPUs."""
    processes_per_node: int | None = None
    """Training processes on each machine. None: one for each GPU, or one."""
    cpus_per_process: int = 1
    """CPU cores of each process."""
    time: str | None = None
    """Wall time of the job: minutes, HH:MM:SS or D-HH:MM:SS. A run that needs longer saves and queues itself again."""
    partition: str | None = None
    """Partition (queue). None: the cluster's default."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    mem: str | None = None
    """Memory of each machine, as Slurm writes it: 64G."""
    job_name: str | None = None
    """Name in squeue. None: fangcun-RECIPE."""
    max_restarts: int = 3
    """How often torchrun starts the processes again after one of them died."""
    save_seconds: int = 120
    """How long before the end of --time the run is told to save and to end."""
    setup: list[str] = field(default_factory=list)
    """Shell lines to run first on the first node, such as 'module load cuda'. May be given several times."""
    sbatch: list[str] = field(default_factory=list)
    """Any other option of sbatch, such as --sbatch=--exclusive. May be given several times."""
    dry_run: bool = False
    """Print the job script; write and submit nothing."""

    @property
    def processes(self) -> int:
        """Training processes on each machine."""
        return self.processes_per_node or self.gpus_per_node or 1


def option_names() -> list[str]:
    """The options as they are typed, without the dashes in front."""
    return [each.name.replace("_", "-") for each in dataclasses.fields(SlurmOptions)]


def split_options(words: Sequence[str]) -> tuple[SlurmOptions, list[str]]:
    """The job's options among the flags after the recipe, and all other words in their order. Raises ConfigError."""
    hints = get_type_hints(SlurmOptions)
    given: dict[str, Any] = {}
    others: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        spelled, equals, value = word.partition("=")
        name = spelled[2:].replace("-", "_")
        if not _FLAG.match(word) or name not in hints:
            if _FLAG.match(word):
                _refuse_near_miss(spelled, name)
            others.append(word)
            continue
        if hints[name] is bool:
            if equals:
                raise ConfigError(f"{spelled}: takes no value, got '{value}'.")
            given[name] = True
            continue
        if not equals:
            if position == len(words) or (_FLAG.match(words[position]) and hints[name] != list[str]):
                raise ConfigError(f"{spelled}: needs a value.")
            value = words[position]
            position += 1
        if hints[name] == list[str]:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise ConfigError(f"{spelled}: given twice; give it once.")
        else:
            given[name] = _convert(spelled, value, hints[name])
    return _checked(SlurmOptions(**given)), others


def _refuse_near_miss(spelled: str, name: str) -> None:
    """A mistyped option of the job gets its own suggestion; the recipe's loader knows only the recipe's."""
    if "." in name or name in recipe_keys() or name in ("text", "out"):
        return
    near = did_you_mean(name.replace("_", "-"), option_names())
    if near:
        raise ConfigError(f"{spelled}: unknown option.{near.replace(chr(39), chr(39) + '--', 1)}")


def _convert(spelled: str, value: str, hint: Any) -> int | str:
    if hint in (int, int | None):
        if not re.fullmatch(r"\d+", value):
            raise ConfigError(f"{spelled}: expected a whole number, got '{value}'.")
        return int(value)
    if not value or "\n" in value:
        raise ConfigError(f"{spelled}: expected one line of text, got '{value}'.")
    return value


def _checked(options: SlurmOptions) -> SlurmOptions:
    for name in ("nodes", "gpus_per_node", "processes_per_node", "cpus_per_process", "save_seconds"):
        if getattr(options, name) == 0:
            raise ConfigError(f"--{name.replace('_', '-')}: expected at least 1, got 0.")
    if options.time is not None and not _TIME.fullmatch(options.time):
        raise ConfigError(f"--time: expected minutes, HH:MM:SS or D-HH:MM:SS, got '{options.time}'.")
    if options.gpus_per_node and options.processes_per_node not in (None, options.gpus_per_node):
        raise ConfigError(
            f"--processes-per-node: {options.processes_per_node} with --gpus-per-node {options.gpus_per_node}: each process "
            "has one GPU. Leave one of the two out."
        )
    return options
