"""Text for the tests of tasks, in files of several kinds, and what is compared."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from types import ModuleType

import orjson
import pytest
import zstandard

from fangcun.config import CleanConfig, CorpusConfig, DedupConfig, FilterConfig, Rules, SourceConfig

RULES = Rules(
    CleanConfig(boilerplate=["web"]),
    FilterConfig(min_characters=12),
    DedupConfig(near=True, paragraph_documents=3, paragraph_characters=8, held_out=True),
)
BROKEN = b"broken\n"


def texts(count: int = 240) -> list[str]:
    """Documents with copies, near copies, repeated paragraphs, empty ones and short ones among them."""
    draw = random.Random(3)
    words = [chr(0x4E00 + n) for n in range(900)]
    out: list[str] = []
    for number in range(count):
        body = "".join(draw.choices(words, k=draw.randint(40, 90)))
        more = [
            body,
            f"{body}\n本站所有文章均来自网络转载",
            "",
            "短",
            f"{body}\n责任编辑：王五，未经许可不得转载",
            body,
        ]
        near = f"{out[draw.randrange(number)]}尾" if number else body
        out.append([*more, near, out[draw.randrange(number)] if number else body][number % 8])
    return out


def inputs(folder: Path) -> CorpusConfig:
    """Two sources: files of several kinds, one large, one without any document."""
    folder.mkdir()
    lines = [orjson.dumps({"text": text}) + b"\n" for text in texts()]
    (folder / "a1.jsonl").write_bytes(b"".join(lines[:30]) + BROKEN)
    (folder / "a2.jsonl.gz").write_bytes(gzip.compress(b"".join([*lines[30:60], BROKEN, *lines[60:90]]), mtime=0))
    (folder / "b1.jsonl").write_bytes(BROKEN + b"".join([BROKEN, *lines[90:200], BROKEN]))
    (folder / "b2.txt").write_text("\n\n".join(texts()[200:]), encoding="gb18030")
    (folder / "b3.jsonl.zst").write_bytes(zstandard.compress(BROKEN))
    (folder / "b4.log").touch()
    first, second = SourceConfig([str(folder / "a*")]), SourceConfig([str(folder / "b*")], txt_split="blank_lines")
    return CorpusConfig(
        sources={"first": first, "second": second}, workers=1, max_broken_share=0.5, val_share=0.2
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def manifest_of(folder: Path) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {name: value for name, value in manifest.items() if name != "inputs"}


def without_executor(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let the stage in `module` do its tasks in this process, where no executor is installed."""
    patch.setattr(module, "run_job", in_this_process)
    patch.setattr(module, "check_executor", lambda job: None)


def in_this_process(job, done, *, progress=None, say=print) -> None:
    """`run_job` without an executor."""
    for phase in job.phases:
        for task in reversed(range(phase.tasks)):  # the order does not matter
            if not done[phase.name](task):
                phase.call(job.settings, task)
