"""Under torchrun a signal reaches a process twice, from its sender and from the agent: it still saves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of this kind are POSIX")

CODE = """
import os, signal, sys, time
from fangcun.training.interrupt import stop_on_signals
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
    print("saved", stop.exit_code)
"""


@pytest.mark.parametrize(("under_torchrun", "saved"), [(True, "saved 143"), (False, "")])
def test_the_agents_copy_of_a_signal_is_no_second_wish(under_torchrun: bool, saved: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TORCHELASTIC_RUN_ID"}
    if under_torchrun:
        environment["TORCHELASTIC_RUN_ID"] = "slurm-1"
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.stdout.strip() == saved, done.stderr
    assert done.returncode == (0 if under_torchrun else 128 + signal.SIGTERM)
