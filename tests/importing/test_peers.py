"""Logits beside nanoGPT and litgpt themselves, where they are at hand: FANGCUN_NANOGPT=clone, FANGCUN_LITGPT_PYTHON=python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folders import largest_difference, save_tokenizer

import fangcun
from fangcun.importing import take_in

NANOGPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig
torch.manual_seed(0)
for bias in (True, False):
    shape = dict(n_layer=2, n_head=2, n_embd=32, block_size=64, bias=bias, vocab_size=384, dropout=0.0)
    model = GPT(GPTConfig(**shape)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    state = {"model": model.state_dict(), "model_args": shape, "iter_num": 1, "config": {}}
    torch.save(state, f"{sys.argv[2]}/{bias}.pt")
    ids = torch.randint(0, 384, (2, 60))
    torch.save((ids, model(ids, targets=ids)[0].detach()), f"{sys.argv[2]}/{bias}.logits")
"""
LITGPT = """
import sys, torch
from pathlib import Path
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.utils import save_config
torch.manual_seed(0)
base = dict(block_size=64, vocab_size=390, padding_multiple=64, n_layer=2, n_head=4, n_embd=32)
llama = dict(norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", intermediate_size=48, rotary_percentage=1.0,
             parallel_residual=False, bias=False, n_query_groups=2)
shapes = {"pythia": {}, "sequential": dict(parallel_residual=False, rotary_percentage=0.5), "nobias": dict(bias=False),
          "grouped": dict(n_query_groups=2), "llama": llama, "qwen2": dict(llama, attn_bias=True),
          "qwen3": dict(llama, norm_qk=True, head_size=12)}
for name, more in shapes.items():
    config = Config(name=name, **{**base, **more})
    model = GPT(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    save_config(config, folder)
    torch.save(model.state_dict(), folder / "lit_model.pth")
    ids = torch.randint(0, 390, (2, 60))
    with torch.no_grad():
        torch.save((ids, model(ids)), folder / "logits")
"""


def made_by(python: str, script: str, *arguments: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", script, *arguments], check=True, timeout=300, env=clean, capture_output=True)


def test_nanogpt_gives_the_same_logits(tmp_path: Path) -> None:
    clone = os.environ.get("FANGCUN_NANOGPT")
    if not clone:
        pytest.skip("FANGCUN_NANOGPT does not name a clone of nanoGPT")
    made_by(sys.executable, NANOGPT, clone, str(tmp_path))
    for bias in (True, False):
        take_in(tmp_path / f"{bias}.pt", tmp_path / f"run-{bias}", tokenizer=save_tokenizer(tmp_path / "words"))
        ids, theirs = torch.load(tmp_path / f"{bias}.logits", weights_only=True)
        assert largest_difference(fangcun.load(tmp_path / f"run-{bias}", device="cpu").logits(ids), theirs) < 1e-4


def test_litgpt_gives_the_same_logits(tmp_path: Path) -> None:
    python = os.environ.get("FANGCUN_LITGPT_PYTHON")
    if not python:
        pytest.skip("FANGCUN_LITGPT_PYTHON does not name a Python with litgpt")
    made_by(python, LITGPT, str(tmp_path))
    folders = [file.parent for file in tmp_path.glob("*/lit_model.pth")]
    assert len(folders) == 7
    for folder in folders:
        save_tokenizer(folder)
        take_in(folder, tmp_path / "runs" / folder.name)
        ids, theirs = torch.load(folder / "logits", weights_only=True)
        ours = fangcun.load(tmp_path / "runs" / folder.name, device="cpu").logits(ids)
        assert largest_difference(ours, theirs) < 1e-4, folder.name
