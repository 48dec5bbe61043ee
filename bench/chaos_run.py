"""A run that chaos.py can start, watch, hurt and look into; and a disk that can be filled."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from fangcun.artifacts import MANIFEST, list_checkpoints, read_manifest
from fangcun.errors import FangcunError

ROOT = Path(__file__).resolve().parent.parent
SLOW_DISK = Path(__file__).resolve().parent / "slow_disk"

RECIPE = [
    "--model.block_size", "32", "--model.n_layer", "2", "--model.n_head", "2", "--model.n_embd", "32",
    "--train.global_batch_size", "4", "--train.micro_batch_size", "2", "--train.lr_warmup_steps", "5",
    "--train.log_interval", "1", "--train.save_interval", "5", "--train.num_threads", "1",
    "--eval.interval", "25", "--eval.max_iters", "2", "--eval.final_max_iters", "2",
    "--samples.interval", "50", "--samples.max_new_tokens", "4", "--samples.prompts", "却说曹操", "--precision", "32-true",
]  # fmt: skip


@dataclass(frozen=True)
class EndState:
    """What a finished run leaves that has to be the same, whatever happened to it."""

    tensors: dict[str, str]
    """Tensor of the last checkpoint -> sha256."""

    def differences(self, other: EndState) -> list[str]:
        """Names of the tensors that differ."""
        names = sorted({*self.tensors, *other.tensors})
        return [name for name in names if self.tensors.get(name) != other.tensors.get(name)]


class Run:
    """A run folder, its command, and the processes that work in it now."""

    def __init__(self, folder: Path, prepared: Path | None, ranks: int, steps: int, flags: list[str]) -> None:
        """prepared: a run whose tokens are used."""
        self.folder, self.ranks, self.steps = folder, ranks, steps
        self.log = folder.with_name(f"{folder.name}.txt")
        self.log.unlink(missing_ok=True)
        tokens = ["--tokens.path", str(prepared)] if prepared else []
        self.words = ["run", "demo", "--out", str(folder), *RECIPE, "--train.max_steps", str(steps), *tokens, *flags]
        self._agent: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------ start and end

    def start(self, *, restarts: int, **environment: str) -> None:
        """Begin, or go on, with torchrun."""
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks),
            "--max-restarts", str(restarts), "-m", "fangcun", *self.words,
        ]  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        path = [*environment.pop("PYTHONPATH", "").split(os.pathsep), *kept.pop("PYTHONPATH", "").split(os.pathsep)]
        kept["PYTHONPATH"] = os.pathsep.join(each for each in path if each)
        with open(self.log, "ab") as log:
            log.write(f"=== {' '.join(command)}\n".encode())
            self._agent = subprocess.Popen(
                command, cwd=ROOT, env={**kept, "OMP_NUM_THREADS": "1", **environment},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def alive(self) -> bool:
        """Whether torchrun still runs."""
        return self._agent is not None and self._agent.poll() is None

    def wait(self, *, seconds: float) -> int | None:
        """torchrun's exit code; None (and all of it killed) when it did not end in time."""
        assert self._agent is not None
        try:
            code = self._agent.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return None
        self.kill_all()  # no rank may outlive it into the next start
        return code

    # ------------------------------------------------------------------ faults

    def kill_rank(self, rank: int) -> bool:
        """SIGKILL to one rank; whether there was one."""
        for pid, number in self._workers():
            if number == rank:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def kill_all(self) -> None:
        """SIGKILL to torchrun and everything it started."""
        if self._agent is None:
            return
        workers = [pid for pid, _ in self._workers()]
        if self._agent.poll() is None:  # once it has ended its number may be somebody else's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._agent.pid, signal.SIGKILL)
        for pid in workers:  # torchrun gives its processes sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._agent.wait()
        give_up = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < give_up:
            time.sleep(0.01)

    def terminate(self, *, everybody: bool) -> None:
        """SIGTERM to torchrun, and to the ranks too where `everybody`."""
        assert self._agent is not None
        workers = self._workers()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._agent.pid, signal.SIGTERM)
            for pid, _ in workers if everybody else ():
                os.kill(pid, signal.SIGTERM)

    def _workers(self) -> list[tuple[int, int]]:
        """(pid, rank) of the living ranks of this run."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if str(self.folder) not in words or "torch.distributed.run" in words:
                    continue
                variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                rank = next(v[5:] for v in variables if v.startswith("RANK="))
                found.append((int(entry.name), int(rank)))
        return found

    def attempt(self) -> int:
        """How often torchrun has restarted the ranks, by what they were told."""
        counts = [-1]
        for pid, _ in self._workers():
            with contextlib.suppress(OSError):
                variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                counts += [int(v.split("=")[1]) for v in variables if v.startswith("TORCHELASTIC_RESTART_COUNT=")]
        return max(counts)

    # ------------------------------------------------------------------ waiting

    def wait_for_step(self, step: int, *, seconds: float) -> bool:
        """Until `step` is logged; False when the run ended before, or the patience."""
        return self._until(lambda: self.last_step() >= step, seconds)

    def wait_for_saving(self, *, seconds: float) -> bool:
        """Until a checkpoint is being written."""
        return self._until(lambda: any(self.folder.glob("checkpoints/*.tmp-*")), seconds, pause=0.0005)

    def wait_for_attempt(self, attempt: int, *, seconds: float) -> bool:
        """Until torchrun has started the ranks again, or the run has ended well."""
        return self._until(lambda: self.attempt() >= attempt, seconds) or self.finished_checkpoint()

    def _until(self, reached, seconds: float, pause: float = 0.005) -> bool:
        give_up = time.monotonic() + seconds
        while not reached():
            if not self.alive() or time.monotonic() > give_up:
                return bool(reached())
            time.sleep(pause)
        return True

    # ------------------------------------------------------------------ looking

    def records(self) -> list[dict]:
        """The whole lines of metrics.jsonl."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
            return [orjson.loads(line) for line in lines]
        return []

    def last_step(self) -> int:
        """The last logged step."""
        return max((r["step"] for r in self.records() if r["kind"] == "train"), default=0)

    def losses(self) -> list[tuple[str, int, object, object]]:
        """All that was logged about losses, in order."""
        return [(r["kind"], r["step"], r.get("loss"), r.get("val_loss")) for r in self.records()]

    def newest_step(self) -> int:
        """The step of the newest checkpoint, -1 without one."""
        kept = list_checkpoints(self.folder)
        return int(kept[-1].name.removeprefix("step-")) if kept else -1

    def finished_checkpoint(self) -> bool:
        """Whether the run has reached its end."""
        kept = list_checkpoints(self.folder)
        with contextlib.suppress(OSError):
            return bool(kept) and orjson.loads((kept[-1] / "training_state" / "progress.json").read_bytes())["finished"]
        return False

    def torn_folders(self, *, may_vanish: bool = False) -> list[str]:
        """What is wrong with folders that bear a checkpoint's name: no manifest, or files that do not match it."""
        wrong = []
        for folder in sorted((self.folder / "checkpoints").glob("step-*")):
            if not re.fullmatch(r"step-\d{8,}", folder.name):
                continue
            try:
                if not (folder / MANIFEST).is_file():
                    raise FangcunError(f"{folder.name} has no manifest")
                read_manifest(folder, "checkpoint", verify=True)
            except (FangcunError, FileNotFoundError) as error:
                if not (may_vanish and not folder.exists()):
                    wrong.append(str(error))
        return wrong

    def error_sentence(self) -> str:
        """The sentences in which the last start complained."""
        last = self.log.read_text(encoding="utf-8", errors="replace").rpartition("\n=== ")[2]
        return " | ".join(dict.fromkeys(line for line in last.splitlines() if line.startswith("error: ")))

    def end_state(self) -> EndState:
        """Of the last checkpoint: every tensor, whichever file of a sharded one it is in."""
        newest = list_checkpoints(self.folder)[-1]
        tensors = {newest.name: ""}
        for file in sorted(newest.rglob("*.safetensors")):
            where = str(file.parent.relative_to(newest))
            tensors |= {f"{where}/{name}": digest for name, digest in _tensors(file)}
        return EndState(tensors)


def _tensors(file: Path) -> list[tuple[str, str]]:
    """(name and place in the whole tensor, sha256 of type, shape and bytes) of each tensor of a safetensors file."""
    raw = file.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = orjson.loads(raw[8:begin])
    places = orjson.loads(header.pop("__metadata__", {}).get("DCP_SHARDING_INFO", "{}"))
    result = []
    for name, entry in header.items():
        low, high = (begin + offset for offset in entry["data_offsets"])
        what = f"{entry['dtype']} {entry['shape']} ".encode() + raw[low:high]
        result.append((f"{name} {places.get(name, {}).get('saved_offsets', '')}", hashlib.sha256(what).hexdigest()))
    return result


class SmallDisk:
    """A tmpfs at `folder`, unmounted at the end."""

    def __init__(self, folder: Path, *, size_mib: int) -> None:
        self.folder, self.size_mib = folder, size_mib
        self._ballast = folder / "ballast.tmp"

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.size_mib}m", "fangcun-chaos", str(self.folder)], check=True
        )
        # A folder with a foreign file in it is refused as a run folder; the run's own folders come first.
        return self

    def __exit__(self, *_: object) -> None:
        for _attempt in range(50):
            if subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)

    def fill(self, left_mib: int) -> None:
        """Leave this much room and no more."""
        block = bytes(2**18)
        with contextlib.suppress(OSError), open(self._ballast, "ab", buffering=0) as file:
            while True:
                usage = os.statvfs(self.folder)
                if usage.f_bavail * usage.f_frsize <= left_mib * 2**20:
                    return
                room = usage.f_bavail * usage.f_frsize - left_mib * 2**20
                file.write(block[: min(len(block), room)])

    def empty(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)


def mount_works() -> bool:
    """Whether a tmpfs can be mounted here."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="fangcun-chaos-") as probe:
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=1m", "fangcun-chaos", probe], capture_output=True, check=False
            )
        except OSError:
            return False
        if done.returncode == 0:
            subprocess.run(["umount", probe], check=False)
        return done.returncode == 0
