"""What people watch while a run goes: one status line, progress of stages, lines that stay, and a question."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping
from typing import Any, TextIO

_YES = {"y", "yes", "是"}


class Console:
    """Output for people: on a terminal one status line that is rewritten, elsewhere a plain line per call."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        """quiet: nothing is shown, as on all ranks of a run but the first."""
        self.stream = stream or sys.stdout
        self.quiet = quiet
        self.live = self.stream.isatty()
        self._shown = False

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        self.clear()
        print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """A line that stays, on standard error."""
        if self.quiet:
            return
        self.clear()
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def status(self, text: str) -> None:
        """The current state: replaces the last status on a terminal, a line of its own elsewhere."""
        if self.quiet:
            return
        if not self.live:
            print(text, file=self.stream, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r\x1b[2K" + text[:width])
        self.stream.flush()
        self._shown = True

    @property
    def can_ask(self) -> bool:
        """Whether a person sees the output and can answer."""
        return self.live and not self.quiet and sys.stdin is not None and sys.stdin.isatty()

    def ask(self, question: str) -> bool:
        """Put a question whose answer is no unless it is yes, also at the end of the input. Ctrl-C: KeyboardInterrupt."""
        self.clear()
        print(question, end="", file=self.stream, flush=True)
        try:
            answer = sys.stdin.readline()
        except UnicodeDecodeError:
            return False
        if not answer.endswith("\n"):
            print(file=self.stream, flush=True)
        return answer.strip().lower() in _YES

    def progress(self, label: str) -> ProgressLine:
        """A progress line for a stage, to be called with (done, total)."""
        return ProgressLine(self, label)

    def clear(self) -> None:
        """Take the status line away."""
        if self._shown:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()
            self._shown = False


class ProgressLine:
    """`line(done, total)`: a bar on a terminal; elsewhere a line at each quarter, so that logs stay short.

    `line(done, total, note)` adds a word behind it.
    """

    def __init__(self, console: Console, label: str) -> None:
        self.console, self.label, self._printed = console, label, 0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        note = f"  {note}" if note else ""
        share = min(1.0, done / total) if total else 1.0
        if self.console.live:
            filled = int(share * 30)
            self.console.status(f"{self.label:<10} {'━' * filled}{'╌' * (30 - filled)} {share:4.0%}{note}")
        elif int(share * 4) > self._printed and share < 1:
            self._printed = int(share * 4)
            self.console.status(f"{self.label:<10} {share:.0%}{note}")


def format_seconds(seconds: float) -> str:
    """3725 -> '1:02:05', 65 -> '1:05'."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_about(seconds: float) -> str:
    """For estimates: 45 -> '45 s', 1500 -> '25 min', 9000 -> '2 h 30 min'."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def format_bytes(size_bytes: float) -> str:
    """999 -> '999 bytes', 1,234,567 -> '1.2 MB': powers of ten, as disks and networks are counted."""
    size, unit = float(size_bytes), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" or abs(size) >= 99.95 else f"{size:.1f} {unit}"


def counted(count: int, noun: str) -> str:
    """'1 file', '2,000 files'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_status(record: Mapping[str, Any], *, last_step: int | None, eta_seconds: float | None) -> str:
    """The status line: step, loss, bits per byte, lr, tokens/s, data wait, memory, time left."""
    step = f"{record['step']}/{last_step}" if last_step else f"{record['step']}"
    bits = f" {record['bits_per_byte']:.3f} bits/byte" if record.get("bits_per_byte") is not None else ""
    eta = f" ETA {format_seconds(eta_seconds)}" if eta_seconds is not None else ""
    return (
        f"step {step} loss {record['loss']:.4f}{bits} lr {record['lr']:.2e} {record['tokens_per_second']:,.0f} tokens/s "
        f"data wait {record['data_wait_share']:.0%} memory {record['memory_bytes'] / 2**20:,.0f} MiB{eta}"
    )
