"""The whole way on text people have: every stage real, parts of one run reused by another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import fangcun, run_tiny, story, tiny_flags, write_story

import fangcun as package
from fangcun.artifacts import list_checkpoints, read_manifest
from fangcun.config import load_recipe
from fangcun.tokens import open_split
from fangcun.training import read_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert run_tiny(write_story(folder), folder / "run") == 0
    return folder / "run"


def test_run_folder_holds_what_it_should(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    stages = {"corpus", "tokenizer", "tokens"}
    assert names == stages | {"recipe.yaml", "checkpoints", "metrics.jsonl", "samples.jsonl", "timings.json"}
    assert set(json.loads((trained / "timings.json").read_text(encoding="utf-8"))) == stages
    recipe = load_recipe(trained / "recipe.yaml").recipe
    assert (recipe.device, recipe.precision, recipe.compile, recipe.train.num_threads) == ("cpu", "32-true", False, 1)
    kinds = [r["kind"] for r in read_steps(trained / "metrics.jsonl")]
    assert kinds[0] == "eval"
    assert [kind for kind in kinds if kind != "samples"][-1] == "final"
    assert {r["step"] for r in read_steps(trained / "samples.jsonl")} == {3, 6}


def test_training_learns(tmp_path: Path) -> None:
    flags = [
        "--train.max_steps",
        "60",
        "--optimizer.lr",
        "1e-2",
        "--train.save_interval",
        "60",
        "--eval.interval",
        "60",
    ]
    assert run_tiny(write_story(tmp_path), tmp_path / "run", *flags) == 0
    measured = [r for r in read_steps(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "eval"]
    assert measured[-1]["val_bits_per_byte"] < 0.6 * measured[0]["val_bits_per_byte"]


def test_second_run_skips_every_stage(trained: Path) -> None:
    text = trained.parent / "story.txt"
    again = fangcun("run", "demo", *tiny_flags("--text", str(text), "--out", str(trained)))
    assert again.returncode == 0, again.stderr
    for stage in ("corpus", "tokenizer", "tokens", "pretrain"):
        assert any(line.startswith(stage) and "skipped" in line for line in again.stdout.splitlines()), again.stdout


def test_changed_text_is_read_again_before_training_began(tmp_path: Path) -> None:
    text = write_story(tmp_path)
    arguments = ["pack", "demo", *tiny_flags("--text", str(text), "--out", str(tmp_path / "run"))]
    assert fangcun(*arguments).returncode == 0
    before = read_manifest(tmp_path / "run" / "tokens", "tokens").fingerprint
    text.write_text(story(7), encoding="utf-8")
    again = fangcun(*arguments)
    assert again.returncode == 0, again.stderr
    assert f"corpus     made anew: {text} has other content" in again.stdout
    assert "tokens     made anew: the corpus changed; the tokenizer changed" in again.stdout
    assert read_manifest(tmp_path / "run" / "tokens", "tokens").fingerprint != before


def test_tokens_and_tokenizer_of_another_run_are_reused(tmp_path: Path, trained: Path) -> None:
    flags = tiny_flags("--tokens.path", str(trained), "--out", str(tmp_path / "a"), leave_out="--tokenizer.vocab_size")
    reused = fangcun("run", "demo", *flags)
    assert reused.returncode == 0, reused.stderr
    assert not (tmp_path / "a" / "corpus").exists()
    newest = [list_checkpoints(run)[-1] / "model.safetensors" for run in (trained, tmp_path / "a")]
    assert newest[0].read_bytes() == newest[1].read_bytes()

    text = write_story(tmp_path, seed=3)
    flags = ["--tokenizer.path", str(trained / "tokenizer")]
    assert run_tiny(text, tmp_path / "b", *flags, leave_out="--tokenizer.vocab_size") == 0
    ids = [package.load(run).tokenizer.encode("却说曹操") for run in (trained, tmp_path / "b")]
    assert ids[0] == ids[1]


def test_a_run_starts_from_pretrained_weights(tmp_path: Path, trained: Path) -> None:
    start = list_checkpoints(trained)[-1]
    recipe = tmp_path / "tune.yaml"
    recipe.write_text("train: {global_batch_size: 4, micro_batch_size: 2, max_steps: 2, lr_warmup_steps: 0}\nsamples: {max_new_tokens: 0}\n")  # fmt: skip
    text = write_story(tmp_path, seed=4)
    arguments = ["run", str(recipe), "--init_from", str(start), "--text", str(text), "--out", str(tmp_path / "run")]
    done = fangcun(*arguments)
    assert done.returncode == 0, done.stderr
    first = read_steps(tmp_path / "run" / "metrics.jsonl")[0]
    before = [r for r in read_steps(trained / "metrics.jsonl") if r["kind"] == "eval"]
    assert first["val_loss"] < before[0]["val_loss"]  # it begins where the other ended, not from noise
    assert package.load(tmp_path / "run").config.n_embd == 32
    assert fangcun(*arguments).returncode == 0  # found done


def test_existing_token_files_are_adopted(tmp_path: Path, trained: Path) -> None:
    for split in ("train", "val"):
        part = open_split(trained / "tokens", split)
        part.read(0, part.n_tokens).astype(np.uint16).tofile(tmp_path / f"{split}.bin")
    done = fangcun(
        "pack", "--adopt", str(tmp_path / "train.bin"), str(tmp_path / "val.bin"),
        "--tokenizer.path", str(trained / "tokenizer"), "--out", str(tmp_path / "adopted"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    flags = tiny_flags("--tokens.path", str(tmp_path / "adopted"), "--out", str(tmp_path / "run"), leave_out="--tokenizer.vocab_size")  # fmt: skip
    trained_on_it = fangcun("run", "demo", *flags)
    assert trained_on_it.returncode == 0, trained_on_it.stderr
    newest = [list_checkpoints(run)[-1] / "model.safetensors" for run in (trained, tmp_path / "run")]
    assert newest[0].read_bytes() == newest[1].read_bytes()


def test_the_example_loop_runs(tmp_path: Path, trained: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "train_loop.py"), str(trained), "--out", str(tmp_path / "model")]
    small = ["--steps", "20", "--batch-size", "4", "--micro-batch-size", "2", "--block-size", "32", "--width", "32", "--layers", "1"]  # fmt: skip
    done = subprocess.run(
        [*command, *small], capture_output=True, text=True, encoding="utf-8", check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in done.stdout.splitlines() if "validation" in line]
    assert losses[-1] < losses[0]
    assert package.load(tmp_path / "model").config.n_layer == 1


def test_the_python_interface_of_the_readme(trained: Path) -> None:
    lm = package.load(trained)
    ids = lm.tokenizer.encode("却说曹操")
    assert all(isinstance(i, int) for i in ids)
    logits = lm.logits(torch.tensor([ids]))
    assert logits.dtype == torch.float32
    assert logits.shape == (1, len(ids), lm.config.padded_vocab_size)
    first = lm.generate("却说曹操", max_new_tokens=16, temperature=0.8, seed=1)
    assert first == lm.generate("却说曹操", max_new_tokens=16, temperature=0.8, seed=1)
    assert first == "".join(lm.stream("却说曹操", max_new_tokens=16, temperature=0.8, seed=1))


def test_litgpt_recipe_runs_unchanged(tmp_path: Path, shared_data: Path) -> None:
    flags = [
        "--train.max_steps",
        "2",
        "--train.global_batch_size",
        "2",
        "--train.micro_batch_size",
        "2",
        "--train.max_seq_length",
        "64",
    ]
    flags += ["--eval.max_iters", "1", "--eval.final_max_iters", "1", "--train.num_threads", "1"]
    done = fangcun(
        "run", str(shared_data / "recipes" / "litgpt_microstories.yaml"), "--text", str(shared_data / "stories"),
        "--tokenizer.path", str(shared_data / "tokenizers" / "chatglm" / "tokenizer.model"), "--out", str(tmp_path / "run"), *flags,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "43,915,776 parameters" in done.stdout
    for word in ("mapped", "done better", "without effect"):
        assert word in done.stdout.lower(), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["novels/hongloumeng.txt", "web", "sft/chatlm_mini_3k.parquet", "poetry", "stories", "gb18030"]
)
def test_the_demo_recipe_trains_on_what_people_have(tmp_path: Path, shared_data: Path, path: str) -> None:
    source = shared_data / path
    if path == "gb18030":
        source = tmp_path / "novel.txt"
        novel = (shared_data / "novels" / "shuihuzhuan.txt").read_text(encoding="utf-8")
        source.write_bytes(novel.encode("gb18030"))
    quick = [
        "--train.max_steps",
        "2",
        "--eval.max_iters",
        "1",
        "--eval.final_max_iters",
        "1",
        "--samples.max_new_tokens",
        "8",
    ]
    done = fangcun("run", "demo", "--text", str(source), "--out", str(tmp_path / "run"), *quick)
    assert done.returncode == 0, done.stderr
    drops = json.loads((tmp_path / "run" / "corpus" / "drops.json").read_text(encoding="utf-8"))
    assert drops
    train = open_split(tmp_path / "run" / "tokens", "train")
    assert train.n_tokens > 100_000
    assert train.comparable
