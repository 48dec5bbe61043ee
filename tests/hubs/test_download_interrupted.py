"""A download that is stopped or killed shows nothing half, and goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_server import FILES, NAME, Fault, HubServer, noise

from fangcun.corpus.files import list_files
from fangcun.errors import FangcunError
from fangcun.hubs import download

BIG = "data/big.parquet"
SENT_BYTES = 1_000_000


@pytest.fixture
def slow(hub: HubServer) -> HubServer:
    """A hub that stops in the middle of one file until `hub.go` is set."""
    hub.files = {"a.txt": FILES["train.txt"], BIG: noise(3_000_000, 3), "z.txt": b"z" * 1000}
    hub.inside, hub.go = threading.Event(), threading.Event()  # type: ignore[attr-defined]

    def hold(handler: object, status: int, body: bytes) -> bytes:
        if status == 200 and len(body) == 3_000_000:
            handler.wfile.write(body[:SENT_BYTES])  # type: ignore[attr-defined]
            hub.inside.set()  # type: ignore[attr-defined]
            hub.go.wait(30)  # type: ignore[attr-defined]
            return body[SENT_BYTES:]
        return body

    hub.before_body = hold
    return hub


@pytest.mark.parametrize("blow", ["SIGINT", "SIGKILL"])
def test_what_came_before_a_stop_is_not_fetched_again(slow: HubServer, tmp_path: Path, blow: str) -> None:
    if os.name == "nt":
        pytest.skip("signals of another process are POSIX's")
    out = tmp_path / "d"
    command = [
        sys.executable,
        "-m",
        "fangcun",
        "download",
        NAME,
        "--source",
        slow.address,
        "--out",
        str(out),
        "--connections",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    try:
        assert slow.inside.wait(60)  # type: ignore[attr-defined]
        wait_for_part(out)
        process.send_signal(getattr(signal, blow))
        shown, _ = process.communicate(timeout=20)  # does not wait for the thread that hears nothing
    finally:
        process.kill()
    if blow == "SIGINT":
        assert process.returncode == 130
        assert "the same command goes on from there" in shown and "Traceback" not in shown
    with pytest.raises(FangcunError, match="holds no text file"):
        list_files([str(out)])
    slow.go.set()  # type: ignore[attr-defined]
    slow.before_body = None
    slow.requests.clear()
    done = download(NAME, source=slow.address, out=out)
    assert {name: (out / name).read_bytes() for name in done.files} == slow.files
    starts = {slow.file_of(request): request.start_bytes for request in slow.fetched()}
    assert starts.keys() == {BIG, "z.txt"} and 0 < starts[BIG] <= SENT_BYTES
    assert not (out / ".part").exists() and not (out / "writer.lock").exists()


def wait_for_part(out: Path) -> None:
    """Until most of what was sent is on the disk."""
    tick = threading.Event()
    for _ in range(1000):
        if any(part.stat().st_size >= SENT_BYTES // 2 for part in (out / ".part").glob("*.part")):
            return
        tick.wait(0.02)
    raise AssertionError("no part")


def test_another_mirror_goes_on_where_the_first_one_stopped(hub: HubServer) -> None:
    large = "data/large.parquet"
    hub.faults[large] = [Fault(cut_bytes=100_000), *[Fault(503)] * 9]
    with pytest.raises(FangcunError, match="run the same command again, or choose another --source"):
        download(NAME, source="hf-mirror", include=[large])
    hub.faults.clear()
    hub.requests.clear()
    done = download(NAME, source="huggingface", include=[large])
    assert (done.folder / large).read_bytes() == FILES[large]
    assert [request.start_bytes for request in hub.fetched()] == [100_000]
    with pytest.raises(FangcunError, match="holds owner/name"):
        download(NAME, source="modelscope", include=[large])


def test_a_stop_while_files_appear_loses_none_of_them(
    hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are whole and some are in their places: they are found there, without a record of the folder's own."""
    replace, count = Path.replace, 0

    def stop(path: Path, target: Path) -> Path:
        nonlocal count
        count += "files" in path.parts
        if count > 2:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stop)
        download(NAME, source=source, out="d")
    assert not Path("d/download.json").exists()
    hub.requests.clear()
    done = download(NAME, source=source, out="d")
    assert done.fetched == [] and hub.fetched() == []
    assert {name: Path("d", name).read_bytes() for name in done.files} == {name: FILES[name] for name in done.files}
    assert len(done.files) == 5


def test_an_update_that_is_stopped_leaves_the_old_files_as_they_were(hub: HubServer, source: str) -> None:
    before = download(NAME, source=source, out="d").files
    hub.files["train.txt"], hub.files["data/large.parquet"], hub.commit = b"new", noise(300_000, 8), "c" * 40
    del hub.files["data/第一.jsonl"]

    def stop(*_: object) -> bytes:
        raise ConnectionResetError

    hub.before_body = lambda handler, status, body: stop() if len(body) == 300_000 else body
    with pytest.raises(FangcunError, match="fails"):
        download(NAME, source=source, out="d")
    assert {name: Path("d", name).read_bytes() for name in before} == {name: FILES[name] for name in before}
    assert download(NAME, source=source, out="e", include=["*.txt"], offline=False).files.keys() == {
        "train.txt",
        "data/empty.txt",
    }
