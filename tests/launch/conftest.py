"""A Slurm for the tests of a module, or the reason why there is none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, why_not


@pytest.fixture(scope="module")
def slurm() -> Iterator[LocalSlurm]:
    """A running Slurm of two nodes; skipped where it is not installed or this is not root."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="fangcun-slurm-"))
    folder.chmod(0o755)
    try:
        with LocalSlurm(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
