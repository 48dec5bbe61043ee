"""A model that was taken in is trained on from its own weights, by its own tokenizer, in a run of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from folders import huggingface_folder
from tiny import write_story
from torch.nn import functional as F

import fangcun
from fangcun.artifacts import find_weights, list_checkpoints, read_manifest
from fangcun.config import load_recipe
from fangcun.console import Console
from fangcun.errors import FangcunError
from fangcun.importing import take_in
from fangcun.launch import launch_slurm
from fangcun.launch.options import SlurmOptions
from fangcun.pipeline import run
from fangcun.tokens import open_split
from fangcun.training.initial import weights_fingerprint

FLAGS = [
    "--device", "cpu", "--precision", "32-true", "--train.num_threads", "1", "--train.log_interval", "1",
    "--train.lr_warmup_steps", "0", "--samples.max_new_tokens", "0", "--train.global_batch_size", "4",
]  # fmt: skip


def train(recipe: Path | str, text: Path, *flags: str, steps: int = 2) -> int:
    words = ["--text", str(text), *FLAGS, "--train.max_steps", str(steps), *flags]
    return run(load_recipe(recipe, words), console=Console(quiet=True))


@pytest.fixture
def story_file(tmp_path: Path) -> Path:
    return write_story(tmp_path, sentences=60)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt_neox", "qwen3", "gpt2"])
def test_the_first_loss_is_that_of_the_imported_model(family: str, tmp_path: Path, story_file: Path) -> None:
    theirs = huggingface_folder(tmp_path, family, dropout=0.0)
    take_in(tmp_path / "hf", tmp_path / "run")
    with torch.enable_grad():
        assert train(tmp_path / "run/recipe.yaml", story_file) == 0
    trained = tmp_path / "run-trained"
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    before = next(record for record in records if record["step"] == 0 and "val_loss" in record)
    # What transformers gives for the same windows: block_size + 1 tokens that overlap by one, the last one begins earlier.
    val = open_split(trained / "tokens", "val")
    ids, length = torch.tensor(val.read(0, val.n_tokens).astype("int64")), 32
    losses: list[torch.Tensor] = []
    for first in range(0, len(ids) - 1, length):
        start = min(first, len(ids) - 1 - length)
        window = ids[start : start + length + 1]
        each = F.cross_entropy(theirs(window[None, :-1]).logits[0], window[1:], reduction="none")
        losses.append(each[first - start :])
    assert before["val_loss"] == pytest.approx(float(torch.cat(losses).mean()), abs=1e-4)
    newest = read_manifest(list_checkpoints(trained)[-1], "checkpoint")
    assert newest.parents["init_from"] == weights_fingerprint(str(tmp_path / "run"))
    assert newest.counts["step"] == 2
    assert not torch.equal(fangcun.load(trained).model.head_weight, fangcun.load(tmp_path / "run").model.head_weight)


def test_a_run_may_be_named_as_init_from_and_goes_on_without_it(tmp_path: Path, story_file: Path) -> None:
    huggingface_folder(tmp_path, "qwen3")
    take_in(tmp_path / "hf", tmp_path / "run")
    flags = ["--init_from", str(tmp_path / "run"), "--out", str(tmp_path / "own"), "--train.micro_batch_size", "4"]
    assert train("demo", story_file, *flags) == 0
    # Checkpoints of a run come and go, its tokenizer stays.
    assert load_recipe(tmp_path / "own/recipe.yaml").recipe.tokenizer.path == str(tmp_path / "run/tokenizer")
    first = read_manifest(list_checkpoints(tmp_path / "own")[-1], "checkpoint").parents["init_from"]
    shutil.rmtree(tmp_path / "run")
    recipe = tmp_path / "own/recipe.yaml"
    assert train(recipe, story_file, "--out", str(tmp_path / "own"), steps=3) == 0
    last = read_manifest(list_checkpoints(tmp_path / "own")[-1], "checkpoint")
    assert last.counts["step"] == 3 and last.parents["init_from"] == first


def test_the_imported_run_itself_is_never_trained_over(tmp_path: Path, story_file: Path) -> None:
    huggingface_folder(tmp_path, "qwen3")
    take_in(tmp_path / "hf", tmp_path / "run")
    recipe, checkpoint = tmp_path / "run/recipe.yaml", find_weights(tmp_path / "run")
    before = sorted(path for path in (tmp_path / "run").rglob("*") if "lock" not in path.name)
    with pytest.raises(FangcunError, match=r"kept as it came.*--init_from .* --out NEW"):
        train(recipe, story_file, "--out", str(tmp_path / "run"))
    with pytest.raises(FangcunError, match=r"no training to go on with.*--init_from"):
        train(recipe, story_file, "--resume", str(checkpoint))
    loaded = load_recipe(recipe, ["--text", str(story_file), "--out", str(tmp_path / "run")])
    with pytest.raises(FangcunError, match="kept as it came"):
        launch_slurm(loaded, SlurmOptions(), source=str(recipe), flags=[])
    assert sorted(path for path in (tmp_path / "run").rglob("*") if "lock" not in path.name) == before


def test_another_tokenizer_than_the_models_own_is_refused(tmp_path: Path, story_file: Path) -> None:
    huggingface_folder(tmp_path, "qwen3")
    take_in(tmp_path / "hf", tmp_path / "run")
    content = json.loads((tmp_path / "hf/tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "hf/tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FangcunError, match=r"another tokenizer: 2 of its 300 tokens differ, the first is 'a'"):
        train(tmp_path / "run/recipe.yaml", story_file, "--tokenizer.path", str(tmp_path / "hf"))
    assert not (tmp_path / "run-trained").exists()  # known before any work


def test_a_shape_beside_init_from_is_a_contradiction(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "qwen3")
    take_in(tmp_path / "hf", tmp_path / "run")
    with pytest.raises(FangcunError, match=r"model.n_layer.*comes from the folder of init_from"):
        load_recipe(tmp_path / "run/recipe.yaml", ["--model.n_layer", "9"])
