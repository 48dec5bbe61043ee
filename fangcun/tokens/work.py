"""Shards that are being written, in a folder beside the artefact: a killed process goes on where they stood.

`state.json`, replaced every some million tokens and only between documents, says how far the files go and what was
counted. What lies behind is cut off, documents before it are read again and passed over, which takes no encoding.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fangcun.artifacts import discard, write_text_atomic

SAVE_TOKENS = 20_000_000
"""Written, before the state is saved again."""

_STATE = "state.json"


@dataclass
class PackWork:
    """The folder of one packing; `states` are those of each split's writer and counts, empty at the start."""

    folder: Path
    fingerprint: str
    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Take over what lies there for the same fingerprint, or begin anew. An error before the first state leaves nothing."""
        self._open()
        try:
            yield
        except BaseException:
            if not self.states:
                discard(self.folder)
            raise

    def _open(self) -> None:
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        if state.get("fingerprint") == self.fingerprint and self._holds(state["splits"]):
            self.states = state["splits"]
            return
        discard(self.folder)
        self.folder.mkdir(parents=True)

    def save(self, states: dict[str, dict[str, Any]]) -> None:
        """The files go so far."""
        self.states = states
        write_text_atomic(self.folder / _STATE, json.dumps({"fingerprint": self.fingerprint, "splits": states}))

    def hand_over(self, folder: Path) -> None:
        """Move the finished files into the artefact's folder."""
        for path in sorted(self.folder.iterdir()):
            if path.name != _STATE:
                path.rename(folder / path.name)
        discard(self.folder)

    @property
    def documents(self) -> int:
        """Documents that need no encoding any more."""
        return sum(state["writer"]["documents"] for state in self.states.values())

    def _holds(self, splits: dict[str, dict[str, Any]]) -> bool:
        """Whether the files are as long as the state says: some may have been handed over."""
        for split, state in splits.items():
            writer = state["writer"]
            stems = [self.folder / f"{split}-{shard:05d}" for shard in range(writer["shard"] + 1)]
            ends = [stem.with_name(f"{stem.name}.{ending}") for stem in stems for ending in ("bin", "idx", "bytes")]
            if not all(path.is_file() for path in ends):
                return False
            if any(path.stat().st_size < size for path, size in zip(ends[-3:], writer["sizes"], strict=True)):
                return False
        return True
