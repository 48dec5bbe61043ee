"""A config.json becomes a recipe of its shape; the recipes that are written load again to the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import change_json, huggingface_folder
from shapes import FAMILIES

from fangcun.cli import main
from fangcun.config import load_recipe, resolve_model
from fangcun.errors import FangcunError
from fangcun.importing import read_config_json, take_in
from fangcun.model import read_config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_json_becomes_a_recipe_of_its_shape(family: str, tmp_path: Path) -> None:
    huggingface_folder(tmp_path, family)
    taken = take_in(tmp_path / "hf/config.json", tmp_path / "mine.yaml")
    recipe = load_recipe(tmp_path / "mine.yaml").recipe
    wanted = read_config(tmp_path / "hf")
    assert resolve_model(recipe.model, vocab_size=wanted.vocab_size) == wanted
    assert recipe.tokenizer.path == str(tmp_path / "hf")
    report = "\n".join(taken.lines)
    for key in ("model_type", "num_hidden_layers" if family != "gpt2" else "n_layer", "initializer_range"):
        assert f"{key}: " in report
    (tmp_path / "hf/tokenizer.json").unlink()
    assert read_config_json(tmp_path / "hf/config.json")[0].tokenizer.vocab_size == wanted.padded_vocab_size


def test_a_config_json_that_is_none_is_told(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "llama")
    file = tmp_path / "hf/config.json"
    change_json(file, model_type="lama")
    with pytest.raises(FangcunError, match=r"config.json: model_type is 'lama'.*Did you mean 'llama'"):
        take_in(file)
    file.write_text("[1]")
    with pytest.raises(FangcunError, match="with a model_type"):
        take_in(file)


def test_the_command_prints_a_recipe_or_writes_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train_tiny.py").write_text("n_layer = 2\nn_head = 2\nn_embd = 32\ndataset = 'novel_char'\n", encoding="utf-8")
    assert main(["import", "train_tiny.py"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["import", "train_tiny.py", "--out", "written.yaml"]) == 0
    assert "is a nanoGPT configuration" in capsys.readouterr().out
    asked = load_recipe("train_tiny.py").recipe
    assert load_recipe("printed.yaml").recipe == load_recipe("written.yaml").recipe == asked
    assert main(["import", "train_tiny.py", "--out", "written.yaml"]) == 1
    assert "nothing is ever written over" in capsys.readouterr().err
    assert main(["import", "written.yaml"]) == 2
    assert "is a recipe of Fangcun's already" in capsys.readouterr().err


def test_the_command_makes_a_run_and_says_what_to_do_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_folder(tmp_path, "gpt_neox")
    monkeypatch.chdir(tmp_path)
    assert main(["import", "hf"]) == 0
    told = capsys.readouterr().out
    assert "Hugging Face folder hf: gpt_neox" in told and "fangcun generate runs/hf" in told
    assert main(["generate", "runs/hf", "--prompt", "却说", "--max-new-tokens", "3", "--device", "cpu"]) == 0
