"""Shared fixtures: optional real data, and small text that the tests make themselves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tiny import write_story

# A shell starts what runs in the background with Ctrl-C ignored, and so do the programs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of `tiny.write_story`, for the runs of one module."""
    return write_story(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real corpora beside the checkout; tests that want it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the optional real data (../shared/data) is not here")
    return folder
