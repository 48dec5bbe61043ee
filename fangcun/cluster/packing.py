"""Packing as a job: tasks count the documents of their windows of the text, then encode them; one joins the shards.

The counts come first because which documents are compared with what their ids decode to depends on their number.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fangcun.artifacts import Manifest, discard, fingerprint, read_manifest, write_artifact, write_text_atomic
from fangcun.cluster.final import Final
from fangcun.cluster.job import Job, Phase, count_tasks
from fangcun.cluster.run import Progress, check_executor, run_job
from fangcun.config.cluster import ClusterConfig
from fangcun.config.schema import TokensConfig
from fangcun.tokenizer import Tokenizer
from fangcun.tokens.format import SPLITS, explain_write_errors
from fangcun.tokens.pack import planned_manifest, work_folder
from fangcun.tokens.windows import Window, cut_windows, encode_window, join_windows, read_window

_PLAN = "plan.json"


@dataclasses.dataclass
class Plan:
    """What the tasks have to know; a file in the work folder."""

    corpus: Path
    tokenizer: Path
    folder: Path
    """The work folder."""
    fingerprint: str
    config: TokensConfig
    dtype: str
    windows: list[Window]

    def key(self, task: int) -> str:
        """Stands in the name of what a task makes: another plan's is not taken for it."""
        return f"{task:05d}-{fingerprint(self.fingerprint, dataclasses.asdict(self.windows[task]))[:16]}"

    def count_file(self, task: int) -> Path:
        """Where the number of documents of a window stands."""
        return self.folder / f"count-{self.key(task)}"

    def part(self, task: int) -> Path:
        """Where the ids of a window lie."""
        return self.folder / f"part-{self.key(task)}"

    @property
    def final(self) -> Final:
        """Where the artefact's files wait to be moved."""
        return Final(self.folder, self.fingerprint)

    def write(self, tell: Callable[[str], None]) -> None:
        """Write it, into a work folder that is made or gone on with."""
        self.final.claim(tell)
        content = dataclasses.asdict(self) | {
            name: str(getattr(self, name)) for name in ("corpus", "tokenizer", "folder")
        }
        write_text_atomic(self.folder / _PLAN, json.dumps(content))

    @classmethod
    def read(cls, settings: dict[str, Any]) -> Plan:
        """The plan of a job."""
        content = json.loads((Path(settings["work"]) / _PLAN).read_text(encoding="utf-8"))
        content |= {name: Path(content[name]) for name in ("corpus", "tokenizer", "folder")}
        windows = [Window(**window) for window in content.pop("windows")]
        return cls(**content | {"config": TokensConfig(**content["config"])}, windows=windows)


def pack_by_tasks(
    corpus: Path,
    tokenizer_folder: Path,
    out: Path,
    config: TokensConfig,
    cluster: ClusterConfig,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] = print,
) -> Manifest:
    """`fangcun.tokens.pack` with the tasks of an executor: the same files, the same manifest.

    Logs lie in `cluster/tokens` beside `out`. Raises FangcunError; what is done is then kept for the next time.
    """
    out = Path(out)
    source = read_manifest(Path(corpus), "corpus")
    manifest = planned_manifest(source, Tokenizer.load(tokenizer_folder), tokenizer_folder, config)
    total_bytes = sum(source.counts[split]["bytes"] for split in SPLITS)
    windows = cut_windows(source, max(1, -(-total_bytes // count_tasks(cluster, total_bytes))))
    plan = Plan(
        Path(corpus).absolute(), Path(tokenizer_folder).absolute(), work_folder(out).absolute(),
        manifest.fingerprint, config, manifest.settings["dtype"], windows,
    )  # fmt: skip
    sizes = [window.size_bytes for window in windows]
    phases = [
        Phase("count", "fangcun.cluster.packing:count", len(windows)),
        Phase("encode", "fangcun.cluster.packing:encode", len(windows), sizes),
        Phase("join", "fangcun.cluster.packing:join", 1),
    ]
    done: dict[str, Callable[[int], bool]] = {
        "count": lambda task: plan.count_file(task).is_file(),
        "encode": lambda task: plan.part(task).is_dir(),
        "join": lambda _: plan.final.is_whole(),
    }
    about_job = {"work": str(plan.folder), "fingerprint": plan.fingerprint}
    job = Job("tokens", out.parent.absolute() / "cluster" / "tokens", cluster, about_job, phases)
    check_executor(job)
    with explain_write_errors(out):
        plan.write(tell)
        run_job(job, done, progress=progress, say=tell)
        with write_artifact(out, manifest) as folder:
            manifest.counts = plan.final.hand_over(folder)["counts"]
    discard(plan.folder)
    return manifest


def count(settings: dict[str, Any], task: int) -> None:
    """How many documents a window has."""
    plan = Plan.read(settings)
    documents = sum(1 for _ in read_window(plan.corpus, plan.windows[task]))
    write_text_atomic(plan.count_file(task), f"{documents}\n")


def encode(settings: dict[str, Any], task: int) -> None:
    """The ids of a window."""
    plan = Plan.read(settings)
    window = plan.windows[task]
    before = [number for number in range(task) if plan.windows[number].split == window.split]
    first = sum(int(plan.count_file(number).read_text(encoding="utf-8")) for number in before)
    folder = plan.part(task).with_suffix(".new")
    for old in (folder, plan.part(task)):
        discard(old)
    folder.mkdir()
    tokenizer = Tokenizer.load(plan.tokenizer)
    encode_window(plan.corpus, window, tokenizer, plan.config, plan.dtype, folder, first=first)
    folder.rename(plan.part(task))


def join(settings: dict[str, Any], task: int = 0) -> None:
    """The shards of all windows."""
    plan = Plan.read(settings)
    parts = [plan.part(number) for number in range(len(plan.windows))]
    source = read_manifest(plan.corpus, "corpus")
    with plan.final.written() as (folder, about):
        about["counts"] = join_windows(plan.windows, parts, folder, plan.config, plan.dtype, source)
