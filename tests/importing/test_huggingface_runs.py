"""A Hugging Face folder of each family becomes a run with the logits that it had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from folders import change_json, huggingface_folder, largest_difference, tokenizer
from safetensors.torch import load_file, save_file
from shapes import FAMILIES, random_ids, random_model

import fangcun
from fangcun.artifacts import find_weights, read_manifest
from fangcun.config import ModelConfig, load_recipe, resolve_model
from fangcun.errors import FangcunError
from fangcun.importing import take_in
from fangcun.model import save_model
from fangcun.tokenizer import Tokenizer

TOLERANCE = 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_becomes_a_run_with_its_logits(family: str, tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path, family)
    taken = take_in(tmp_path / "hf", tmp_path / "run")
    assert taken.out == tmp_path / "run"
    lm = fangcun.load(tmp_path / "run", device="cpu")
    assert lm.config.family == family
    ids = random_ids(lm.config)
    assert largest_difference(lm.logits(ids), theirs(ids).logits) < TOLERANCE
    assert lm.generate("却说", max_new_tokens=4, seed=1) == lm.generate("却说", max_new_tokens=4, seed=1)
    checkpoint = find_weights(tmp_path / "run")
    assert checkpoint.name == "step-00000000"
    manifest = read_manifest(checkpoint, "checkpoint", verify=True)
    assert manifest.settings["imported"]["format"] == "Hugging Face folder"
    assert {Path(entry["path"]).name for entry in manifest.inputs} == {"config.json", "model.safetensors"}
    assert Tokenizer.load(tmp_path / "run/tokenizer").fingerprint == tokenizer().fingerprint
    recipe = load_recipe(tmp_path / "run/recipe.yaml").recipe
    assert recipe.init_from == str(checkpoint) and recipe.out_dir == str(tmp_path / "run-trained")


def test_the_folder_that_was_read_is_left_as_it_was(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "llama")
    before = {file: file.read_bytes() for file in (tmp_path / "hf").rglob("*") if file.is_file()}
    take_in(tmp_path / "hf", tmp_path / "run")
    assert {file: file.read_bytes() for file in (tmp_path / "hf").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3"])
def test_weights_in_a_pickle_are_read_as_data(family: str, tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path, family)
    file = tmp_path / "hf/model.safetensors"
    torch.save(load_file(file), tmp_path / "hf/pytorch_model.bin")
    file.unlink()
    take_in(tmp_path / "hf", tmp_path / "run")
    lm = fangcun.load(tmp_path / "run", device="cpu")
    ids = random_ids(lm.config)
    assert largest_difference(lm.logits(ids), theirs(ids).logits) < TOLERANCE


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_are_put_together_and_a_missing_one_is_named(ending: str, tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path, "llama")
    folder = tmp_path / "hf"
    if ending == "safetensors":
        (folder / "model.safetensors").unlink()
        theirs.save_pretrained(folder, max_shard_size="20KB")
    else:
        names = list(state := load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()
        where = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
        for shard in set(where.values()):
            torch.save({name: state[name] for name in names if where[name] == shard}, folder / shard)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    shards = sorted(folder.glob(f"*-of-*.{ending}"))
    assert len(shards) > 1
    take_in(folder, tmp_path / "run")
    lm = fangcun.load(tmp_path / "run", device="cpu")
    ids = random_ids(lm.config)
    assert largest_difference(lm.logits(ids), theirs(ids).logits) < TOLERANCE
    shards[-1].unlink()
    with pytest.raises(FangcunError, match=f"{shards[-1].name} is missing"):
        take_in(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_shard_cut_off_in_its_download_is_named(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "qwen3")
    file = tmp_path / "hf/model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FangcunError, match=r"model.safetensors cannot be read .*damaged or incomplete"):
        take_in(tmp_path / "hf", tmp_path / "run")
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_keep_their_type_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path, "qwen2", n_query_groups=1).to(dtype)
    theirs.save_pretrained(tmp_path / "hf")
    take_in(tmp_path / "hf", tmp_path / "run")
    there = load_file(tmp_path / "hf/model.safetensors")
    here = load_file(find_weights(tmp_path / "run") / "model.safetensors")
    assert here.keys() == there.keys()
    assert all(here[name].dtype == dtype and torch.equal(here[name], there[name]) for name in there)


def test_masks_of_old_files_do_not_change_the_type_of_the_weights(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox").to(torch.float16).save_pretrained(tmp_path / "hf")
    state = load_file(tmp_path / "hf/model.safetensors")
    state["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 32, 32, dtype=torch.bool).tril()
    save_file(state, tmp_path / "hf/model.safetensors", metadata={"format": "pt"})
    take_in(tmp_path / "hf", tmp_path / "run")
    written = load_file(find_weights(tmp_path / "run") / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}


def test_the_ids_that_end_a_text_come_along(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "qwen3")
    (tmp_path / "hf/generation_config.json").write_text('{"eos_token_id": [1, 3], "temperature": 0.6}')
    take_in(tmp_path / "hf", tmp_path / "run")
    assert set(fangcun.load(tmp_path / "run", device="cpu").stop_ids) == {1, 3}


def test_a_tokenizer_that_lies_elsewhere_is_named(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox")
    (tmp_path / "words").mkdir()
    for file in (tmp_path / "hf").glob("*token*"):
        shutil.move(file, tmp_path / "words")
    with pytest.raises(FangcunError, match="--tokenizer PATH"):
        take_in(tmp_path / "hf", tmp_path / "run")
    take_in(tmp_path / "hf", tmp_path / "run", tokenizer=tmp_path / "words")
    assert fangcun.load(tmp_path / "run").tokenizer.fingerprint == tokenizer().fingerprint


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox", vocab_size=60, padding_multiple=1)
    with pytest.raises(FangcunError, match=r"has 300 ids, the model's vocabulary only 60"):
        take_in(tmp_path / "hf", tmp_path / "run")
    assert not list(tmp_path.glob("run*"))


def test_an_architecture_that_is_not_known_is_refused_with_the_nearest(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox")
    change_json(tmp_path / "hf/config.json", model_type="gptneox", architectures=["GPTNeoForCausalLM"])
    with pytest.raises(FangcunError, match="Did you mean 'gpt_neox'"):
        take_in(tmp_path / "hf", tmp_path / "run")


def test_sizes_that_do_not_match_are_named(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "llama")
    change_json(tmp_path / "hf/config.json", intermediate_size=21)
    with pytest.raises(FangcunError, match=r"mlp.*expected"):
        take_in(tmp_path / "hf", tmp_path / "run")


def test_a_model_that_no_family_expresses_comes_back_from_its_folder(tmp_path: Path) -> None:
    config = resolve_model(
        ModelConfig(exportable=False, mlp_class="ReLU2", vocab_size=300, n_embd=32, n_head=2, n_layer=1)
    )
    model = random_model(config)
    save_model(model, tmp_path / "ours")
    tokenizer().save(tmp_path / "ours")
    take_in(tmp_path / "ours", tmp_path / "run")
    ids = random_ids(config, length=20)
    assert largest_difference(fangcun.load(tmp_path / "run", device="cpu").logits(ids), model(ids)) < TOLERANCE
