"""What is not taken in is told in a sentence, nothing is executed, and nothing is left behind."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import huggingface_folder

from fangcun.errors import FangcunError
from fangcun.importing import find_kind, take_in


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["out/ckpt.pt", "lit/lit_model.pth", "hf/pytorch_model.bin"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(name: str, zipped: bool, tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox")
    (tmp_path / "hf/model.safetensors").unlink()
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    if name.startswith("lit"):
        (file.parent / "model_config.yaml").write_text("n_layer: 1\nn_embd: 8\npadded_vocab_size: 320\nn_head: 1\n")
        (tmp_path / "hf/tokenizer.json").rename(file.parent / "tokenizer.json")
    content = {"model": {"a": torch.ones(1)}, "hparams": Trap(tmp_path / "ran")}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FangcunError) as refusal:
        take_in(file.parent, tmp_path / "run")
    assert not (tmp_path / "ran").exists()
    text = str(refusal.value)
    assert "objects beside tensors and plain values" in text and "never done here" in text and "\n" not in text
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 half", b"\x80\x02}q\x00.", pickle.dumps({"a": 1}), b"no pickle at all"]
)
def test_a_damaged_checkpoint_is_told_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ckpt.pt").write_bytes(content)
    with pytest.raises(FangcunError, match=r"ckpt\.pt"):
        take_in(tmp_path / "ckpt.pt", tmp_path / "run")


def test_a_checkpoint_cut_off_in_copying_is_told_in_a_sentence(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1000)}, "model_args": {}}, tmp_path / "ckpt.pt")
    whole = (tmp_path / "ckpt.pt").read_bytes()
    for share in (0.3, 0.9, 0.99):
        (tmp_path / "ckpt.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FangcunError, match="damaged, incomplete or no file of"):
            take_in(tmp_path / "ckpt.pt", tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "gone does not exist. Known are: a Hugging Face folder"),
        ("empty/", "holds no model. Known are"),
        ("a.gguf", "not read: take the model's Hugging Face folder"),
        ("model.safetensors", "name the folder, which has a config.json too"),
        ("meta.pkl", "--characters-from input.txt"),
        ("other.pth", r"expected litgpt's lit_model\.pth"),
        ("a.txt", "nothing that can be taken in"),
        ("weights/model.safetensors", "has weights but no config.json"),
        ("run/checkpoints/step-00000001/manifest.json", "of Fangcun's own making and works as it is"),
    ],
)
def test_a_path_that_is_no_model_is_told_what_is(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif name != "gone":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    top = tmp_path / name.split("/")[0]
    with pytest.raises(FangcunError, match=message):
        find_kind(top)


def test_what_stands_at_the_place_is_never_written_over(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("run", "file"):
        with pytest.raises(FangcunError, match="nothing is ever written over"):
            take_in(tmp_path / "hf", tmp_path / name)
    assert (tmp_path / "run/mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    take_in(tmp_path / "hf", tmp_path / "empty")
    with pytest.raises(FangcunError, match="nothing is ever written over"):
        take_in(tmp_path / "hf", tmp_path / "empty")


def test_flags_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    huggingface_folder(tmp_path, "gpt_neox")
    with pytest.raises(FangcunError, match="exclude each other"):
        take_in(tmp_path / "hf", tokenizer=tmp_path, characters_from=tmp_path)
    with pytest.raises(FangcunError, match="only models of nanoGPT's"):
        take_in(tmp_path / "hf", characters_from=tmp_path / "input.txt")
    with pytest.raises(FangcunError, match="belong to models"):
        take_in(tmp_path / "hf/config.json", tokenizer=tmp_path)
