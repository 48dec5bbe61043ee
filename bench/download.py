"""`fangcun download` and huggingface_hub, from a hub on this machine: one large file, many small ones.

    python bench/download.py [--large-mb 512] [--small 1000] [--latency-ms 0] [--repeats 3]

A JSON line a run, then the medians. The hub is the one of the tests, in a process of its own, over http; it answers each
request after the latency. fangcun takes the sha256 of all that comes and fetches four files at a time, huggingface_hub looks
at sizes and fetches eight: their defaults.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import median_of, report, run_timed

ROOT = Path(__file__).resolve().parent.parent

SERVER = """
import random, sys, time
from hub_server import HubServer
large_mb, small, latency_ms = map(int, sys.argv[1:])
block = random.Random(0).randbytes(1 << 20)
files = {"large.parquet": block * large_mb} if large_mb else {}
files |= {f"data/{n:05}.txt": b"%d" % n * 500 for n in range(small)}
with HubServer(files) as hub:
    hub.large = {"large.parquet"}
    hub.answer_after_seconds = latency_ms / 1000
    print(hub.address, flush=True)
    sys.stdin.read()
"""
PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
CLIENTS = {
    "fangcun": "from fangcun.hubs import download; download('owner/name', source={address!r}, out={out!r}); ",
    "huggingface_hub": "from huggingface_hub import snapshot_download; snapshot_download('owner/name', repo_type='dataset', "
    "endpoint={address!r}, local_dir={out!r}, token=False); ",
}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-mb", type=int, default=512)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for case, large_mb, small in (("large", arguments.large_mb, 0), ("small", 0, arguments.small)):
        words = [str(large_mb), str(small), str(arguments.latency_ms)]
        path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'hubs'}", "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1"}
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | path,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            for name, code in CLIENTS.items():
                measure(case, name, code, address, path, arguments.repeats)
        finally:
            server.communicate("")


def measure(case: str, name: str, code: str, address: str, path: dict[str, str], repeats: int) -> None:
    """Run one client some times, each into a new folder."""
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", code.format(address=address, out=f"{folder}/out") + PEAK]
            seconds, shown, _ = run_timed(command, env=path)
        runs.append({"case": case, "client": name, "seconds": round(seconds, 3), "peak_mib": int(shown.split()[-1])})
        report(runs[-1])
    report({"case": case, "client": name} | {f"median_{key}": median_of(runs, key) for key in ("seconds", "peak_mib")})


if __name__ == "__main__":
    main()
