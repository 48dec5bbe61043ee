"""Promises of s3:// itself, against moto's server; skipped where s3fs or moto (with flask) is not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_stores import counted_tokens

from fangcun.errors import FangcunError
from fangcun.tokens import RemoteFolder, RemoteTokens, open_split, upload_artifact
from fangcun.tokens import store as module

pytest.importorskip("s3fs", reason="s3fs is not installed (extra remote)")
pytest.importorskip("flask_cors", reason="moto's server is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto's server is not installed")

LOCAL = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[object]:
    """S3 on this machine, with an empty bucket named corpus."""
    import boto3
    import s3fs

    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**LOCAL, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull) if name != "AWS_PROFILE" else patch.delenv(name, raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket="corpus")
        yield running
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAITS_SECONDS", (0.0,))


def test_up_and_back(tmp_path: Path, server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangcun.tokens.blocks.BLOCK_BYTES", 4096)
    folder = counted_tokens(tmp_path / "t", [30_000, 50], shard_tokens=20_000)
    target = RemoteFolder("s3://corpus/a/run").below("tokens")
    first, again = upload_artifact(folder, "tokens", target), upload_artifact(folder, "tokens", target)
    assert (first.kept_files, again.sent_files) == (0, 0) and first.sent_files == again.kept_files
    split = open_split(RemoteTokens("s3://corpus/a/run", cache_folder=tmp_path / "c", cache_bytes=20_000), "train")
    local = open_split(folder, "train")
    for start in range(0, 30_050 - 700, 1_913):
        assert split.read(start, start + 700).tolist() == local.read(start, start + 700).tolist()
    assert split.document_ends.tolist() == local.document_ends.tolist()
    with pytest.raises(FangcunError, match="holds another tokens: nothing was changed"):
        upload_artifact(counted_tokens(tmp_path / "other", [7]), "tokens", target)


def test_no_such_bucket_is_told_and_none_is_made(tmp_path: Path, server: object) -> None:
    import boto3

    with pytest.raises(FangcunError, match=r"s3://nowhere/run holds no tokens.*bucket does not exist"):
        RemoteTokens("s3://nowhere/run")
    with pytest.raises(FangcunError, match=r"s3://nowhere/.* cannot be written: .*bucket"):
        upload_artifact(counted_tokens(tmp_path / "t", [9]), "tokens", RemoteFolder("s3://nowhere/run"))
    assert [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]] == ["corpus"]


def test_a_server_that_is_gone_is_a_lost_connection(tmp_path: Path, server: object, monkeypatch) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # its own, with growing waits
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    told: list[str] = []
    with pytest.raises(FangcunError, match=r"the connection is lost .*run the same command again"):
        RemoteTokens("s3://corpus/a/run", warn=told.append)
    assert len(told) == 1
    s3fs.S3FileSystem.clear_instance_cache()


def test_missing_credentials_are_told(server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name in LOCAL:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(FangcunError, match=r"no rights .*AWS_ACCESS_KEY_ID"):
        RemoteTokens("s3://corpus/a/run")
    s3fs.S3FileSystem.clear_instance_cache()
