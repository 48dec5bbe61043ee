"""One process or several, replicated or sharded: the same training, up to the rounding of sums."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import run_command, torchrun, trace
from tiny import fangcun

from fangcun.artifacts import list_checkpoints, read_manifest
from fangcun.model import load_model
from fangcun.training.muon import working_type
from fangcun.training.optimizer_state import read_optimizer_state

ADAMW = ("--train.global_batch_size", "8", "--train.micro_batch_size", "1", "--train.max_steps", "20", "--eval.interval", "10")  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """One process that accumulates eight micro-batches."""
    run = tmp_path_factory.mktemp("alone") / "run"
    done = fangcun(*run_command(text, run, *ADAMW))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_as_one_process_does(tmp_path: Path, text: Path, alone: Path, strategy: str) -> None:
    run = tmp_path / "run"
    done = torchrun(2, *run_command(text, run, *ADAMW, "--train.strategy", strategy))
    assert done.returncode == 0, done.stderr
    assert len(trace(run)) == 20
    assert trace(run) == pytest.approx(trace(alone), abs=1e-5)
    assert trace(run, "grad_norm") == pytest.approx(trace(alone, "grad_norm"), rel=1e-4)
    assert trace(run, "bits_per_byte") == pytest.approx(trace(alone, "bits_per_byte"), abs=1e-5)
    for key in ("train_loss", "val_loss", "val_bits_per_byte"):
        assert trace(run, key, "eval") == pytest.approx(trace(alone, key, "eval"), abs=1e-5), key
    ours, theirs = (load_model(list_checkpoints(r)[-1]).state_dict() for r in (run, alone))
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() < 1e-4, name
    assert done.stdout.count("pretrain   ") == 1  # one voice


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path, text: Path, alone: Path, strategy: str) -> None:
    run = tmp_path / "run"
    schedule = ("--train.lr_decay_steps", "20")
    first = torchrun(
        2, *run_command(text, run, *ADAMW, *schedule, "--train.strategy", strategy, "--train.max_steps", "8")
    )
    assert first.returncode == 0, first.stderr
    second = fangcun(*run_command(text, run, *ADAMW, *schedule, "--train.max_steps", "14"))
    assert second.returncode == 0, second.stderr
    third = torchrun(2, *run_command(text, run, *ADAMW, *schedule, "--train.strategy", "fsdp"))
    assert third.returncode == 0, third.stderr
    assert trace(run) == pytest.approx(trace(alone), abs=1e-5)


MUON = ("--optimizer.name", "muon", "--optimizer.lr", "0.01", "--train.max_steps", "12", "--eval.interval", "12")


def test_muon_on_shards_is_muon(tmp_path: Path, text: Path) -> None:
    """Newton-Schulz amplifies the rounding of the gradients' sum, hence the looser bound (in bf16 it would be 1e-2)."""
    alone, sharded = tmp_path / "alone", tmp_path / "sharded"
    done = fangcun(*run_command(text, alone, *ADAMW, *MUON))
    assert done.returncode == 0, done.stderr
    done = torchrun(2, *run_command(text, sharded, *ADAMW, *MUON, "--train.strategy", "fsdp"))
    assert done.returncode == 0, done.stderr
    bound = 1e-3 if working_type(torch.device("cpu")) is torch.float32 else 1e-2
    assert trace(sharded) == pytest.approx(trace(alone), abs=bound)


def test_a_sharded_checkpoint_is_a_whole_model_beside_cut_state(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    done = torchrun(2, *run_command(text, run, "--train.strategy", "fsdp", "--train.save_interval", "2"))
    assert done.returncode == 0, done.stderr
    newest = list_checkpoints(run)[-1]
    read_manifest(newest, "checkpoint", verify=True)
    shards = sorted((newest / "training_state" / "optimizer").glob("*.safetensors"))
    assert len(shards) == 2
    model = load_model(newest)
    state = read_optimizer_state(newest / "training_state", model)
    for name, parameter in model.named_parameters():
        assert state[f"{name}::exp_avg"].shape == parameter.shape
        assert state[f"{name}::exp_avg"].abs().sum() > 0
