"""Promises of a whole run on tokens at a URL: packed and copied up, trained on from there as from the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_stores import TestStore, store
from tiny import fangcun, tiny_flags, weights_of, write_story

from fangcun.artifacts import list_checkpoints
from fangcun.config import load_recipe
from fangcun.console import Console
from fangcun.errors import ConfigError, FangcunError
from fangcun.pipeline import run, with_absolute_paths
from fangcun.tokens import store as module

URL = "teststore://bucket/mine"


@pytest.fixture(scope="module")
def afar() -> Iterator[type[TestStore]]:
    with pytest.MonkeyPatch.context() as patch, store() as made:
        patch.setattr(module, "RETRY_WAITS_SECONDS", (0.0, 0.0))
        yield made


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, afar: type[TestStore]) -> Path:
    """A run that packed, and copied up."""
    folder = tmp_path_factory.mktemp("packed")
    flags = tiny_flags("--text", str(write_story(folder)), "--out", str(folder / "run"), "--tokens.upload", URL)
    assert run(load_recipe("demo", flags), verb="pack", console=quiet()) == 0
    return folder / "run"


def quiet() -> Console:
    return Console(quiet=True)


def train(tokens: str, out: Path, *more: str) -> int:
    flags = tiny_flags("--tokens.path", tokens, "--out", str(out), *more, leave_out="--tokenizer.vocab_size")
    return run(load_recipe("demo", flags), console=quiet())


def losses(folder: Path) -> list[tuple]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(r["kind"], r["step"], r.get("loss"), r.get("train_loss"), r.get("val_loss")) for r in records]


@pytest.mark.parametrize("cache_bytes", ["1000000", "5000", "1"])
def test_a_run_from_a_url_has_the_bits_of_one_from_the_folder(
    tmp_path: Path, packed: Path, afar: type[TestStore], monkeypatch: pytest.MonkeyPatch, cache_bytes: str
) -> None:
    monkeypatch.setattr("fangcun.tokens.blocks.BLOCK_BYTES", 1000)
    assert train(str(packed), tmp_path / "near") == 0
    cache = ["--tokens.cache_folder", str(tmp_path / "cache"), "--tokens.cache_bytes", cache_bytes]
    assert train(URL, tmp_path / "far", *cache) == 0
    assert len(losses(tmp_path / "far")) > 6
    assert losses(tmp_path / "far") == losses(tmp_path / "near")
    newest = [list_checkpoints(tmp_path / name)[-1] for name in ("near", "far")]
    assert weights_of(newest[0]) == weights_of(newest[1])
    assert sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.block")) <= int(cache_bytes)
    recorded = (tmp_path / "far" / "recipe.yaml").read_text(encoding="utf-8")
    assert f"path: {URL}\n" in recorded
    assert not (tmp_path / "far" / "tokens").exists() and not (tmp_path / "far" / "corpus").exists()


@pytest.mark.parametrize("share", [0.1, 0.45, 0.9])
def test_a_run_that_lost_its_connection_goes_on_to_the_same_end(
    tmp_path: Path, packed: Path, afar: type[TestStore], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("fangcun.tokens.blocks.BLOCK_BYTES", 1000)
    cache = ["--tokens.cache_folder", str(tmp_path / "cache"), "--tokens.cache_bytes", "1"]  # nothing is kept
    before = len(afar.reads)
    assert train(URL, tmp_path / "whole", *cache) == 0
    reads = len(afar.reads) - before
    left = [int(reads * share)]

    def lose(path: str, content: bytes) -> bytes:
        left[0] -= 1
        if path.endswith(".bin") and left[0] < 0:
            raise ConnectionResetError("reset")
        return content

    afar.on_read = lose
    with pytest.raises(FangcunError, match=r"the connection is lost .*run the same command again"):
        train(URL, tmp_path / "run", *cache, "--train.save_interval", "100", "--checkpoint.keep_best", "false")
    afar.on_read = None
    # It was saved where it stood, whether a batch or an evaluation was to be read.
    trained = [record[1] for record in losses(tmp_path / "run") if record[0] == "train"]
    kept = [folder.name for folder in list_checkpoints(tmp_path / "run")]
    assert kept == [f"step-{step:08d}" for step in trained[-1:]]
    assert train(URL, tmp_path / "run", *cache) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    newest = [list_checkpoints(tmp_path / name)[-1] for name in ("whole", "run")]
    assert weights_of(newest[0]) == weights_of(newest[1])


def test_packing_again_sends_nothing_and_changed_text_is_not_written_over_it(
    tmp_path: Path, packed: Path, afar: type[TestStore], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(packed, tmp_path / "run")
    text = packed.parent / "story.txt"
    flags = tiny_flags("--text", str(text), "--out", str(tmp_path / "run"), "--tokens.upload", URL)
    afar.writes.clear()
    assert run(load_recipe("demo", flags), verb="pack") == 0
    said = capsys.readouterr().out
    assert "nothing to send" in said and f"--tokens.path {URL}" in said
    assert afar.writes == []
    other = tiny_flags("--text", str(write_story(tmp_path, seed=5)), "--out", str(tmp_path / "new"), "--tokens.upload", URL)  # fmt: skip
    with pytest.raises(FangcunError, match="holds another tokenizer: nothing was changed"):
        run(load_recipe("demo", other), verb="pack", console=quiet())
    assert afar.writes == [] and (tmp_path / "new" / "tokens" / "manifest.json").is_file()


def test_a_cache_that_is_too_small_is_told_before_training(
    tmp_path: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ["--tokens.cache_folder", str(tmp_path / "cache"), "--tokens.cache_bytes", "5000"]
    flags = tiny_flags("--tokens.path", URL, "--out", str(tmp_path / "run"), *cache, leave_out="--tokenizer.vocab_size")
    assert run(load_recipe("demo", flags)) == 0
    told = capsys.readouterr()
    assert "warning: teststore://bucket/mine/tokens has" in told.err and "(tokens.cache_bytes)" in told.err
    assert "tokenizer  400 ids (teststore://bucket/mine/tokenizer)" in told.out
    assert "tokens     from teststore://bucket/mine/tokens:" in told.out


def test_a_url_without_a_tokenizer_wants_one_named(tmp_path: Path, packed: Path, afar: type[TestStore]) -> None:
    for path, file in list(TestStore.store.items()):
        if path.startswith("/bucket/mine/tokens/"):
            TestStore().pipe_file(path.replace("mine", "bare"), bytes(file.getbuffer()))
    cache = ["--tokens.cache_folder", str(tmp_path / "cache")]
    with pytest.raises(FangcunError, match=r"no tokenizer/ beside it.*--tokenizer.path"):
        train("teststore://bucket/bare", tmp_path / "a", *cache)
    assert train("teststore://bucket/bare", tmp_path / "a", *cache, "--tokenizer.path", str(packed / "tokenizer")) == 0


def test_urls_are_left_as_they_are_and_cache_folders_made_absolute(tmp_path: Path) -> None:
    flags = tiny_flags("--tokens.path", "s3://b/run", "--tokens.cache_folder", "~/c", leave_out="--tokenizer.vocab_size")  # fmt: skip
    tokens = with_absolute_paths(load_recipe("demo", flags).recipe).tokens
    assert (tokens.path, tokens.cache_folder) == ("s3://b/run", str(Path.home() / "c"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--tokens.cache_bytes", "5"], "--tokens.cache_bytes: it has an effect only where tokens.path is a URL"),
        (["--tokens.path", "runs/a", "--tokens.cache_folder", "c"], "--tokens.cache_folder: it has an effect only where"),
        (["--tokens.upload", "backup"], "--tokens.upload: expected a URL such as s3://bucket/run, got 'backup'"),
        (["--tokens.path", "s3://a/b", "--tokens.upload", "s3://a/c"], "--tokens.upload: it has no effect where tokens.path"),
        (["--tokens.path", "s3://a/b", "--tokens.cache_bytes", "0"], "tokens.cache_bytes"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(flags: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("demo", flags)
    assert expected in str(error.value)


def test_the_command_line_says_what_to_install(tmp_path: Path) -> None:
    block = tmp_path / "block" / "s3fs.py"
    block.parent.mkdir()
    block.write_text("raise ImportError('not here')", encoding="utf-8")
    import os

    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(block.parent), os.environ.get("PYTHONPATH", "")])}
    flags = tiny_flags("--tokens.path", "s3://bucket/run", "--out", str(tmp_path / "run"), leave_out="--tokenizer.vocab_size")  # fmt: skip
    done = fangcun("run", "demo", *flags, env=env)
    assert done.returncode == 1 and 'pip install "fangcun[remote]"' in done.stderr and "Traceback" not in done.stderr
