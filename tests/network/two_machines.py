"""Two machines on one: network namespaces joined by a cable, each with a host name of its own and a shared file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

NAMES = ("fangcun-a", "fangcun-b")
"""Host names."""
_SPACES = tuple(f"{name}-{os.getpid()}" for name in NAMES)
"""Namespaces: several tests may run at once."""
_ADDRESSES = ("10.231.77.1", "10.231.77.2")
"""Known only inside the two namespaces."""
_CARDS = ("fangcun0", "fangcun1")


def why_not() -> str | None:
    """Why there can be no namespaces here, or None."""
    missing = [program for program in ("ip", "unshare", "mount") if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed; on Debian: apt-get install iproute2"
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    name = f"{_SPACES[0]}-probe"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"this system allows no network namespaces: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class TwoMachines:
    """`with TwoMachines(folder) as machines:`; `start` runs a command on one of them."""

    def __init__(self, folder: Path) -> None:
        self.hosts = folder / "hosts"
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> TwoMachines:
        lines = [f"{address} {name}" for address, name in zip(_ADDRESSES, NAMES, strict=True)]
        self.hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        self._remove()
        try:
            for name in _SPACES:
                _ip("netns", "add", name)
            _ip(
                "link",
                "add",
                _CARDS[0],
                "netns",
                _SPACES[0],
                "type",
                "veth",
                "peer",
                "name",
                _CARDS[1],
                "netns",
                _SPACES[1],
            )
            for name, address, card in zip(_SPACES, _ADDRESSES, _CARDS, strict=True):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", card)
                _ip("-n", name, "link", "set", card, "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._remove()

    def start(self, machine: int, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command on machine 0 or 1; its output can be read from the process."""
        inside = f'hostname {NAMES[machine]} && mount --bind "$0" /etc/hosts && exec "$@"'
        words = [
            "ip",
            "netns",
            "exec",
            _SPACES[machine],
            "unshare",
            "--uts",
            "--mount",
            "sh",
            "-c",
            inside,
            str(self.hosts),
        ]
        process = subprocess.Popen(
            [*words, *command], env={**os.environ, "GLOO_SOCKET_IFNAME": _CARDS[machine], **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def cut(self) -> None:
        """Pull the cable: nothing gets through any more, and nobody is told."""
        _ip("-n", _SPACES[0], "link", "set", _CARDS[0], "down")

    def _remove(self) -> None:
        for name in _SPACES:  # the cable goes with them
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
