"""The work folder of a job, and in it the finished files of the artefact until the command moves them to their place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fangcun.artifacts import TASKS_MARK, discard, write_text_atomic
from fangcun.corpus.files import STATE_FILE

_ABOUT = "about.json"


@dataclass(frozen=True)
class Final:
    """`final/` in a work folder, whole or not there; `about.json` in it says what the manifest will."""

    work: Path
    fingerprint: str
    """Of the artefact."""

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.work / "final"

    def claim(self, tell: Callable[[str], None]) -> None:
        """Make the work folder, or go on with it. What other settings, or a single process, left in it goes."""
        state, mark = self.work / STATE_FILE, json.dumps({TASKS_MARK: self.fingerprint}) + "\n"
        if not state.is_file() or state.read_text(encoding="utf-8") != mark:
            if state.is_file():
                tell(f"{self.work} is begun anew: what lay there was of other text, settings or numbers of tasks")
            discard(self.work)
            self.work.mkdir(parents=True)
            write_text_atomic(state, mark)

    @contextlib.contextmanager
    def written(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A folder to write the files into, and what is known of them: it is there when the block ends well.

        `files` of the latter may name some that others write into it afterwards, each whole or not at all.
        """
        folder = self.work / "final.new"
        for old in (folder, self.folder):
            discard(old)
        folder.mkdir()
        about: dict[str, Any] = {"fingerprint": self.fingerprint}
        yield folder, about
        about["files"] = sorted({*about.get("files", []), *(file.name for file in folder.iterdir())})
        write_text_atomic(folder / _ABOUT, json.dumps(about, ensure_ascii=False))
        folder.rename(self.folder)

    def about(self) -> dict[str, Any]:
        """What was said of the files; empty where they are not there."""
        try:
            about = json.loads((self.folder / _ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return about if about.get("fingerprint") == self.fingerprint else {}

    def is_whole(self) -> bool:
        """Whether all files are there."""
        about = self.about()
        return bool(about) and all((self.folder / name).is_file() for name in about["files"])

    def hand_over(self, folder: Path) -> dict[str, Any]:
        """Move the files into `folder`; returns what was said of them."""
        about = self.about()
        for name in about["files"]:
            (self.folder / name).rename(folder / name)
        return about
