"""fangcun serve: a folder becomes a server, a signal ends it, and what cannot be served is told before the weights are read."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import fangcun

pytest.importorskip("fastapi", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_server import tiny_lm

    from fangcun.model import save_model

    lm, folder = tiny_lm(), tmp_path_factory.mktemp("models") / "小说"
    folder.mkdir()
    words = lm.tokenizer
    save_model(lm.model, folder, eos_id=words.eos_id, pad_id=words.pad_id, bos_id=words.bos_id)
    words.save(folder)
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_is_served_under_its_name_until_a_signal(folder: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "fangcun", "serve", str(folder), "--port", "0", "--max-new-tokens", "100"]
    environment = {**os.environ, "FANGCUN_API_KEY": "secret"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            while line and not (found := re.search(r"Serving 小说 at (http://127\.0\.0\.1:\d+)", line)):
                line = process.stderr.readline()
            assert line, "it ended before it served"
            url = found[1]
            assert httpx.get(f"{url}/v1/models").status_code == 401
            headers = {"Authorization": "Bearer secret"}
            asked = {"model": "小说", "prompt": "甲", "max_tokens": 5}
            answer = httpx.post(f"{url}/v1/completions", json=asked, headers=headers)
            assert answer.json()["model"] == "小说"
            assert httpx.get(f"{url}/v1/models/小说", headers=headers).json()["id"] == "小说"
            assert "100" in httpx.post(f"{url}/v1/completions", json={**asked, "max_tokens": 101}, headers=headers).text
        finally:
            process.send_signal(number)
            rest = process.stderr.read()
        assert process.wait(20) == 0
        assert "Stopped." in rest
        assert "Traceback" not in rest


def test_runs_alone_can_be_shown(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fangcun", "serve", "--runs", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stderr is not None
        try:
            found = re.search(r"Showing the runs in .* at (http://\S+)", process.stderr.readline())
            assert found
            assert httpx.get(f"{found[1]}/api/runs").status_code == 200
            assert httpx.post(f"{found[1]}/v1/completions", json={}).json()["error"]["code"] == "unknown_url"
        finally:
            process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_package_is_told_with_its_extra(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fangcun.cli_serve import serve
    from fangcun.errors import FangcunError

    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FangcunError, match=rf"{name}: pip install 'fangcun\[serve\]'"):
        serve(str(folder))


def test_what_cannot_be_served_is_told_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    from fangcun.cli_serve import serve
    from fangcun.errors import FangcunError

    with pytest.raises(FangcunError, match="Name a run"):
        serve()
    with pytest.raises(FangcunError, match="no folder"):
        serve(runs=str(tmp_path / "none"))
    with pytest.raises(FangcunError, match="does not exist"):
        serve(str(tmp_path / "none"), port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FangcunError, match=rf"127\.0\.0\.1:{port}.*--port"):
            serve(str(folder), port=port)
    assert fangcun("serve", "--prot", "1").returncode == 2
