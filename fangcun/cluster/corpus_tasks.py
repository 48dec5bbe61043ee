"""What the tasks of the corpus stage do; see corpus.py for their order."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fangcun.artifacts import discard
from fangcun.cluster.corpus import Plan
from fangcun.corpus import shards as shard_files
from fangcun.corpus.build import first_pass, write_report
from fangcun.corpus.documents import Document
from fangcun.corpus.drops import Drops
from fangcun.corpus.finish import Decided, Finisher, Written, check_split, cut_slices, split_settings, write_splits
from fangcun.corpus.finish import decide as decide_all
from fangcun.corpus.process import check_kept
from fangcun.corpus.shards import ShardWriter, read_shards
from fangcun.corpus.work import Work
from fangcun.corpus.works import Works, mark_finished

SPLITS = ("train", "val")
_LEVEL = 1
_ABOUT = "about.json"


def read(settings: dict[str, Any], task: int) -> None:
    """The first pass over the share of a task; one that was killed goes on."""
    plan = Plan.read(settings)
    sources = plan.shares[task].sources(plan.sources)
    # How much is broken is judged when all is known: a share may be worse than the whole.
    for source in sources:
        source.config = dataclasses.replace(source.config, max_broken_share=1.0)
    config = dataclasses.replace(plan.config, max_broken_share=1.0, workers=1)
    with Work(*plan.first_pass(task), sources) as work:
        first_pass(work, config, sources, tell=print)
        if work.duplicates is not None:  # opened again when it was done, the block begun was sketched again
            work.duplicates.flush()
    mark_finished(*plan.first_pass(task))


def _works(plan: Plan) -> Works:
    folders = [plan.first_pass(task) for task in range(len(plan.shares))]
    return Works(plan.folder / "all", plan.sources[0].rules, folders)


def decide(settings: dict[str, Any], task: int = 0) -> None:
    """What stays, a slice for each task."""
    plan = Plan.read(settings)
    with _works(plan) as works:
        check_kept(plan.config, works.report, works.drops, works.documents)
        decided = decide_all(works, plan.config, plan.sources)
        bounds = np.cumsum([0, *works.documents_of_each]).tolist()
        for number, cut in enumerate(cut_slices(works, decided, bounds)):
            _write(plan.slice_file(number), pickle.dumps(cut))
    whole = dataclasses.replace(decided, stays=np.zeros(0, bool), copies=None)
    _write(plan.decided, pickle.dumps(whole))
    discard(works.folder)


def _finisher(plan: Plan, task: int) -> Finisher:
    decided: Decided = pickle.loads(plan.decided.read_bytes())
    own = pickle.loads(plan.slice_file(task).read_bytes())
    works = Works(plan.folder / "all", plan.sources[0].rules, [plan.first_pass(task)])
    return Finisher(works.stored, own, decided, plan.sources)


def hold(settings: dict[str, Any], task: int) -> None:
    """The held-out text of a slice."""
    plan = Plan.read(settings)
    with _new_folder(plan.held(task)) as folder, ShardWriter(folder, "held", shard_bytes=None, level=_LEVEL) as writer:
        for document in _finisher(plan, task).held_out_texts():
            writer.write(document)


def write(settings: dict[str, Any], task: int) -> None:
    """The documents of a slice as they are written, with the bytes of each and what was left out."""
    plan = Plan.read(settings)
    finisher, drops = _finisher(plan, task), Drops()
    if plan.sources[0].rules.dedup.held_out:
        held = [plan.held(number) / "held-00000.jsonl.zst" for number in range(len(plan.shares))]
        finisher.keep_out((document.source, document.text) for document in read_shards(held))
    with _new_folder(plan.written(task)) as folder:
        with _SizedWriter(folder, "train") as train, _SizedWriter(folder, "val") as val:
            written = write_splits(finisher, plan.sources, drops, {"train": train, "val": val})
        for split, sizes in (("train", train.sizes), ("val", val.sizes)):
            np.array(sizes, np.uint64).tofile(folder / f"{split}.sizes")
        about = {
            "splits": {w.name: w.counts() for w in (train, val)},
            "written": written.sources,
            "drops": drops.state(),
        }
        (folder / _ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


class _SizedWriter(ShardWriter):
    """One shard; the UTF-8 bytes of each document stand in `sizes`."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name, shard_bytes=None, level=_LEVEL)
        self.sizes = array("Q")

    def __enter__(self) -> _SizedWriter:
        super().__enter__()
        return self

    def write(self, document: Document) -> int:
        size_bytes = super().write(document)
        self.sizes.append(size_bytes)
        return size_bytes


def finish(settings: dict[str, Any], task: int = 0) -> None:
    """Counts and report of the whole, and which documents stand in which shard."""
    plan = Plan.read(settings)
    works, decided = _works(plan), pickle.loads(plan.decided.read_bytes())
    splits = {split: dict.fromkeys(("documents", "characters", "bytes"), 0) for split in SPLITS}
    written = Written({split: {} for split in SPLITS})
    for number in range(len(plan.shares)):
        about = json.loads((plan.written(number) / _ABOUT).read_text(encoding="utf-8"))
        works.drops.merge(Drops.restored(about["drops"]))
        for split in SPLITS:
            _add(splits[split], about["splits"][split])
            for source, counts in about["written"][split].items():
                _add(written.sources[split].setdefault(source, dict.fromkeys(counts, 0)), counts)
    check_split(splits["train"]["documents"], splits["val"]["documents"], decided, works.drops.documents("held_out"))
    with plan.final.written() as (folder, about):
        about["settings"] = split_settings(decided, plan.sources)
        about["counts"] = write_report(folder, plan.config, plan.sources, works.report, works.drops, splits, written)
        about["shards"] = [shard for split in SPLITS for shard in _layout(plan, split)]
        about["files"] = [shard["name"] for shard in about["shards"]]


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] += count


def _layout(plan: Plan, split: str) -> Iterator[dict[str, Any]]:
    """Name, number and runs (task, first document, last) of each shard: full as ShardWriter fills them."""
    sizes = [np.fromfile(plan.written(task) / f"{split}.sizes", np.uint64) for task in range(len(plan.shares))]
    firsts = np.cumsum([0, *map(len, sizes)])
    ends = np.cumsum(np.concatenate(sizes), dtype=np.uint64).astype(np.int64)
    start = number = 0
    while start < len(ends) or number == 0:
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + shard_files.SHARD_BYTES, side="right"))
        stop = min(len(ends), max(stop, start + 1))  # a document that is larger than a shard has one of its own
        runs = []
        for task, (first, last) in enumerate(itertools.pairwise(firsts.tolist())):
            begin, end = max(first, start), min(last, stop)
            if begin < end:
                runs.append([task, begin - first, end - first])
        yield {"name": f"{split}-{number:05d}.jsonl.zst", "split": split, "number": number, "runs": runs}
        start, number = stop, number + 1


def shards(settings: dict[str, Any], task: int) -> None:
    """The shards of a task."""
    plan = Plan.read(settings)
    folder = plan.folder / f"shards-{task:05d}"
    discard(folder)
    folder.mkdir()
    for shard in plan.shards(task):
        if (plan.final.folder / shard["name"]).is_file():
            continue
        with ShardWriter(folder, shard["split"], shard_bytes=None, first=shard["number"]) as writer:
            for number, first, last in shard["runs"]:
                stored = read_shards([plan.written(number) / f"{shard['split']}-00000.jsonl.zst"])
                for document in itertools.islice(stored, first, last):
                    writer.write(document)
        (folder / shard["name"]).rename(plan.final.folder / shard["name"])
    discard(folder)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that is whole or not there."""
    new = path.with_suffix(".new")
    for old in (new, path):
        discard(old)
    new.mkdir()
    yield new
    new.rename(path)


def _write(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
