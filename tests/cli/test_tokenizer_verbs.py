"""Promises of `fangcun tokenizer trim` and `report`: help without torch, whole results, one sentence a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import story, write_story

import fangcun
from fangcun.artifacts import read_manifest
from fangcun.cli import main
from fangcun.config import ModelConfig, resolve_model
from fangcun.model import Transformer, load_model, save_model
from fangcun.tokenizer import Tokenizer, train_bpe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights with its tokenizer, as a Hugging Face folder in bfloat16, and text."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_bpe([story(1, 200)], vocab_size=450, max_han_run=4)[0]
    torch.manual_seed(0)
    shape = {"block_size": 64, "n_layer": 2, "n_head": 2, "n_query_groups": 1, "n_embd": 32, "qk_norm": True}
    model = Transformer(resolve_model(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)))
    save_model(model, folder / "model", torch.bfloat16, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    settings = folder / "model" / "generation_config.json"
    given = json.loads(settings.read_text(encoding="utf-8"))
    given |= {"eos_token_id": [tokenizer.eos_id, tokenizer.encode("曹操")[0]], "temperature": 0.6}
    settings.write_text(json.dumps(given), encoding="utf-8")
    tokenizer.save(folder / "model")
    write_story(folder, seed=2, sentences=20)
    return folder


@pytest.mark.parametrize("word", ["trim", "report"])
def test_help_imports_no_torch(word: str) -> None:
    words = ["tokenizer", word, "--help"]
    code = f"import sys; from fangcun.cli import main; main({words!r}); sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tokenizers')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"fangcun tokenizer {word}" in done.stdout


def test_help_of_the_stage_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    main(["tokenizer", "--help"])
    shown = capsys.readouterr().out
    assert "tokenizer trim" in shown and "tokenizer report" in shown


def test_trim_writes_a_tokenizer_that_is_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokenizer", "trim", str(folder / "model"), "--text", str(folder / "story.txt"), "--size", "330"]
    assert main([*words, "--out", str(folder / "small")]) == 0
    assert "-> 330 ids" in capsys.readouterr().out
    read_manifest(folder / "small", "tokenizer", verify=True)
    small = Tokenizer.load(folder / "small")
    assert small.vocab_size == 330
    assert small.decode(small.encode("却说曹操🙂")) == "却说曹操🙂"


def test_trim_with_a_model_writes_a_checkpoint_with_the_old_logits(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["tokenizer", "trim", str(folder / "model"), "--text", str(folder / "story.txt")]
    out = folder / "small-model"
    assert main([*words, "--model", str(folder / "model"), "--out", str(out)]) == 0
    old, new = Tokenizer.load(folder / "model"), Tokenizer.load(out)
    id_map = np.load(out / "id_map.npy")
    kept = np.flatnonzero(id_map >= 0)
    text = (folder / "story.txt").read_text(encoding="utf-8")[:40]
    before, after = old.encode(text), new.encode(text)
    assert after == id_map[before].tolist()
    with torch.no_grad():
        expected = load_model(folder / "model")(torch.tensor([before]))[..., kept]
        ours = load_model(out)(torch.tensor([after]))[..., : new.vocab_size]
        opened = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        theirs = opened(torch.tensor([after])).logits[..., : new.vocab_size]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(theirs, expected, rtol=1e-4, atol=1e-5)
    settings = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == [new.eos_id, new.encode("曹操")[0]]
    assert settings["temperature"] == 0.6
    assert settings.get("suppress_tokens", [new.vocab_size])[0] == new.vocab_size
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert fangcun.load(out).generate("却说", max_new_tokens=3, temperature=0) is not None


def test_report_shows_the_card_and_writes_figures_and_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, picture = folder / "card.json", folder / "card.svg"
    words = ["tokenizer", "report", str(folder / "model"), "--text", str(folder / "story.txt"), "--width", "64"]
    assert main([*words, "--json", str(figures), "--plot", str(picture)]) == 0
    assert "classical Chinese" in capsys.readouterr().out
    card = json.loads(figures.read_text(encoding="utf-8"))
    assert card["width"] == 64
    assert card["tokenizers"][0]["path"] == str(folder / "model")
    assert card["tokenizers"][0]["own_text"]["gives_the_text_back"]
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trim", "{model}", "--out", "{model}-new"], "--text"),
        (["trim", "{model}", "--text", "{text}", "--size", "9", "--out", "{model}-new"], "size is 9, expected"),
        (["trim", "{model}", "--text", "{text}", "--out", "{model}"], "is not empty and no tokenizer"),
        (["trim", "/nowhere", "--text", "{text}", "--out", "{model}-new"], "does not exist"),
        (["report"], "needs a tokenizer"),
        (["report", "{model}", "--plot", "card.png"], ".svg or .html"),
        (["report", "{model}", "--width", "0"], "--width is 0"),
    ],
)
def test_a_mistake_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    filled = [word.format(model=folder / "model", text=folder / "story.txt") for word in words]
    assert main(["tokenizer", *filled]) in (1, 2)
    shown = capsys.readouterr()
    assert expected in shown.err and shown.err.startswith("error: ")
    assert not (folder / "model-new").exists()
