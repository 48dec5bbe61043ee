"""`fangcun tokenizer trim` and `report`: words behind the recipe verb, with help and mistakes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import story

from fangcun import cli
from fangcun.artifacts import read_manifest
from fangcun.config import ModelConfig, resolve_model
from fangcun.model import Transformer, load_model, save_model
from fangcun.tokenizer import Tokenizer, train_bpe


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and, in the folder model, a model for it with some rows more."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = train_bpe([story(1) + "the quick brown fox " * 50], vocab_size=450, max_han_run=4)[0]
    tokenizer.save(folder / "large")
    shape = ModelConfig(block_size=64, vocab_size=500, n_layer=1, n_head=2, n_embd=16)
    torch.manual_seed(0)
    save_model(Transformer(resolve_model(shape)), folder / "model", torch.bfloat16, eos_id=tokenizer.eos_id)
    tokenizer.save(folder / "model")
    (folder / "text.txt").write_text(story(2, 100), encoding="utf-8")
    return folder


def test_trim_writes_a_tokenizer_that_recipes_take(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["tokenizer", "trim", str(source / "large"), "--text", str(source / "text.txt"), "--size", "380"]
    assert cli.main([*words, "--out", str(tmp_path / "small")]) == 0
    assert "450 ids -> 380" in capsys.readouterr().out
    small, id_map = Tokenizer.load(tmp_path / "small"), np.load(tmp_path / "small" / "id_map.npy")
    assert small.vocab_size == 380 == (id_map >= 0).sum() and len(id_map) == 450
    assert read_manifest(tmp_path / "small", "tokenizer", verify=True).counts["vocab_size"] == 380
    report = json.loads((tmp_path / "small" / "report.json").read_text(encoding="utf-8"))
    assert report["old_vocab_size"] == 450 and report["sample"]["same_text"] is True
    recipe = ["tokenizer", "demo", "--text", str(source / "text.txt"), "--tokenizer.path", str(tmp_path / "small")]
    assert cli.main([*recipe, "--out", str(tmp_path / "run")]) == 0
    assert Tokenizer.load(tmp_path / "run" / "tokenizer").fingerprint == small.fingerprint
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 1  # a run is no tokenizer
    assert (
        cli.main(
            ["tokenizer", "trim", str(source / "large"), "--text", str(tmp_path / "run"), "--out", str(tmp_path / "b")]
        )
        == 0
    )
    assert json.loads((tmp_path / "b" / "report.json").read_text(encoding="utf-8"))["exact"] is True


def test_trim_cuts_a_model_along(source: Path, tmp_path: Path) -> None:
    words = [
        "tokenizer",
        "trim",
        str(source / "large"),
        "--text",
        str(source / "text.txt"),
        "--model",
        str(source / "model"),
    ]
    (source / "model" / "generation_config.json").write_text('{"eos_token_id": [1, 449], "temperature": 0.6}')
    assert cli.main([*words, "--out", str(tmp_path / "small")]) == 0
    old, new = load_model(source / "model"), load_model(tmp_path / "small")
    id_map = torch.from_numpy(np.load(tmp_path / "small" / "id_map.npy")).long()
    text = story(2, 100)[:40]
    ids = torch.tensor([Tokenizer.load(source / "large").encode(text)])
    mine = torch.tensor([Tokenizer.load(tmp_path / "small").encode(text)])
    assert torch.equal(mine, id_map[ids])
    with torch.no_grad():
        torch.testing.assert_close(new(mine), old(ids)[..., :450][..., id_map >= 0])
    settings = json.loads((tmp_path / "small" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["temperature"] == 0.6 and settings["eos_token_id"][0] == 1
    assert json.loads((tmp_path / "small" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert not list(tmp_path.glob("*.tmp-*"))
    assert cli.main([*words, "--out", str(tmp_path / "small")]) == 1  # never written over


def test_report_prints_lines_and_writes_json_and_picture(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = ["--json", str(tmp_path / "cards.json"), "--plot", str(tmp_path / "cards.svg")]
    words = ["tokenizer", "report", str(source / "large"), str(source / "model"), "--text", str(source / "text.txt")]
    assert cli.main([*words, "--width", "64", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["large", "model"] and any(
        line.startswith("characters/token, own text") for line in lines
    )
    assert [card["name"] for card in json.loads((tmp_path / "cards.json").read_text(encoding="utf-8"))] == [
        "large",
        "model",
    ]
    assert (tmp_path / "cards.svg").read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["trim"], 2, "requires"),
        (["trim", "x", "--out", "y"], 2, "needs the text"),
        (["trim", "x", "--text", "t", "--out", "y", "--sise", "5"], 2, "Did you mean --size?"),
        (["trim", "gone", "--text", "t", "--out", "y"], 1, "gone does not exist"),
        (["report"], 2, "requires"),
        (["report", "gone"], 1, "gone does not exist"),
        (["report", "x", "--plot", "a.png"], 2, "ends in .svg or .html, got 'a.png'"),
        (["report", "x", "--width", "0"], 2, "--width"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], code: int, expected: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["tokenizer", *words]) == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and expected in shown and len(shown.splitlines()) == 1


@pytest.mark.parametrize("words", [["trim"], ["report"]])
def test_help_of_both_imports_no_torch(words: list[str]) -> None:
    code = f"import sys; from fangcun.cli import main; main({['tokenizer', *words, '--help']!r}); sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tokenizers')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: fangcun tokenizer" in done.stdout
