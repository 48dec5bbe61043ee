"""Each mistake gets one clear message: the place, the value, what was expected; no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import fangcun, run_tiny, tiny_flags, weights_of, write_story

from fangcun.artifacts import list_checkpoints


def refused(*arguments: str, expect: str, **kwargs) -> str:
    done = fangcun(*arguments, **kwargs)
    assert done.returncode not in (0, -11), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    assert expect in done.stderr, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trained")
    text = write_story(folder)
    assert run_tiny(text, folder / "run", "--train.max_steps", "2") == 0
    return text, folder / "run"


def run_arguments(text: Path | str, out: Path, *flags: str) -> list[str]:
    return ["run", "demo", *tiny_flags("--text", str(text), "--out", str(out), *flags)]


def test_unknown_key_names_the_right_one(tmp_path: Path) -> None:
    refused(*run_arguments("x.txt", tmp_path / "run", "--model.n_layers", "3"), expect="model.n_layer")
    recipe = tmp_path / "my.yaml"
    recipe.write_text("model:\n  n_layers: 3\n", encoding="utf-8")
    refused("run", str(recipe), expect="my.yaml:2")


def test_missing_recipe_and_missing_text(tmp_path: Path) -> None:
    refused("run", "demos", expect="demo")
    refused(*run_arguments(tmp_path / "nowhere.txt", tmp_path / "run"), expect="nowhere.txt")
    assert not (tmp_path / "run" / "corpus").exists()


def test_empty_text(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n")
    refused(*run_arguments(tmp_path / "empty.txt", tmp_path / "run"), expect="empty.txt")


def test_random_bytes_as_text(tmp_path: Path) -> None:
    (tmp_path / "noise.txt").write_bytes(os.urandom(100_000))
    refused(*run_arguments(tmp_path / "noise.txt", tmp_path / "run"), expect="noise.txt")


def test_text_too_short_for_the_window(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("却说曹操。", encoding="utf-8")
    refused(*run_arguments(tmp_path / "short.txt", tmp_path / "run"), expect="block_size")


def test_wrong_tokenizer_for_the_tokens(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    other = tmp_path / "other"
    assert (
        run_tiny(write_story(tmp_path, seed=5), other, "--train.max_steps", "1", "--tokenizer.vocab_size", "380") == 0
    )
    error = refused(
        "run", "demo", *tiny_flags("--out", str(tmp_path / "new"), leave_out="--tokenizer.vocab_size"),
        "--tokens.path", str(trained[1] / "tokens"), "--tokenizer.path", str(other / "tokenizer"),
        expect="tokenizer",
    )  # fmt: skip
    assert "tokens" in error


def test_vocabulary_above_the_type_on_disk(tmp_path: Path, shared_data: Path) -> None:
    text = write_story(tmp_path)
    qwen = str(shared_data / "tokenizers" / "qwen2" / "qwen.tiktoken")
    recipe = tmp_path / "qwen.yaml"
    recipe.write_text(
        f"tokenizer: {{path: '{qwen}'}}\ntokens: {{dtype: uint16}}\ntrain: {{max_steps: 1}}\n", encoding="utf-8"
    )
    refused("pack", str(recipe), "--text", str(text), "--out", str(tmp_path / "run"), expect="uint16")


def test_a_damaged_checkpoint_is_refused_and_older_ones_are_kept(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    text, original = trained
    run = tmp_path / "run"
    shutil.copytree(original, run)
    newest = list_checkpoints(run)[-1]
    with open(newest / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    refused(*run_arguments(text, run, "--train.max_steps", "4"), expect="model.safetensors")
    refused("generate", str(run), "--prompt", "却说", expect="model.safetensors")


def test_generate_on_what_is_no_model(tmp_path: Path) -> None:
    refused("generate", str(tmp_path / "nowhere"), "--prompt", "x", expect="nowhere")
    refused("generate", str(tmp_path), "--prompt", "x", expect="is no model")


def test_out_dir_that_is_no_run_is_not_touched(tmp_path: Path) -> None:
    text = write_story(tmp_path)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    refused(*run_arguments(text, tmp_path / "papers"), expect="no run folder")
    assert [p.name for p in (tmp_path / "papers").iterdir()] == ["thesis.txt"]


def test_no_write_permission(tmp_path: Path) -> None:
    text = write_story(tmp_path)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    prefix: list[str] = []
    if os.access(locked, os.W_OK):  # root writes everywhere, unless it gives that right away
        prefix = ["setpriv", "--bounding-set=-dac_override"]
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], check=False).returncode:
            pytest.skip("this user may write everywhere and cannot give up the right")
    command = [*prefix, sys.executable, "-m", "fangcun", *run_arguments(text, locked / "run")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert str(locked) in done.stderr, done.stderr


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 3 MB, or a skip where it cannot be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name == "nt" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False, capture_output=True
    ).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=False)


def test_full_disk_in_mid_run_keeps_what_was_saved(tmp_path: Path, small_disk: Path) -> None:
    text, run = write_story(tmp_path), small_disk / "run"
    (small_disk / "ballast").write_bytes(b"x" * 2_700_000)
    refused(*run_arguments(text, run), expect="free")
    for checkpoint in list_checkpoints(run):
        assert weights_of(checkpoint)
    assert not [p for p in run.glob("checkpoints/step-????????") if not (p / "manifest.json").is_file()]
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    finished = fangcun(*run_arguments(text, run))
    assert finished.returncode == 0, finished.stderr
    straight = tmp_path / "straight"
    assert run_tiny(text, straight) == 0
    assert weights_of(list_checkpoints(run)[-1]) == weights_of(list_checkpoints(straight)[-1])


def test_full_disk_in_the_corpus_stage(tmp_path: Path, small_disk: Path) -> None:
    text = write_story(tmp_path)
    (small_disk / "ballast").write_bytes(b"x" * 3_140_000)
    error = refused(*run_arguments(text, small_disk / "run"), expect="space")
    assert len(error.strip().splitlines()) <= 3


def test_recipe_of_the_run_can_be_run_again(trained: tuple[Path, Path]) -> None:
    done = fangcun("run", str(trained[1] / "recipe.yaml"), "--out", str(trained[1]))
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    assert json.loads((trained[1] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])


def test_somebodys_own_recipe_and_corpus_are_not_written_over(tmp_path: Path) -> None:
    mine = tmp_path / "project"
    (mine / "corpus").mkdir(parents=True)
    text = write_story(mine / "corpus")
    refused(*run_arguments(mine / "corpus", mine), expect="no run folder")
    (mine / "recipe.yaml").write_text("train: {max_steps: 3}\n")
    refused(*run_arguments(mine / "corpus", mine), expect="no run folder")
    assert text.is_file()
    assert (mine / "recipe.yaml").read_text() == "train: {max_steps: 3}\n"
