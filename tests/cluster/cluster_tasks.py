"""Work for the tests of jobs: it runs in processes of the executors, which import this file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from fangcun.errors import FangcunError


def square(settings: dict[str, Any], task: int) -> None:
    """Write task² once, and a line for each time that this was done."""
    folder = Path(settings["out"])
    with open(folder / f"calls-{task}", "a") as file:
        file.write("once\n")
    if (folder / f"bad-{task}").exists():
        raise FangcunError(f"{task} is no good number.")
    if (folder / f"die-{task}").exists():
        os._exit(9)
    if (folder / f"bug-{task}").exists():
        raise ValueError("secret " * 3)
    while (folder / f"wait-{task}").exists():
        time.sleep(0.05)
    (folder / f"square-{task}").write_text(str(task * task))


def total(settings: dict[str, Any], task: int) -> None:
    """The sum of all squares."""
    folder = Path(settings["out"])
    (folder / "total").write_text(str(sum(int(file.read_text()) for file in folder.glob("square-*"))))
