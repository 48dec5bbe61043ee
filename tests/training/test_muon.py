"""Our batched Muon moves parameters as torch.optim.Muon does, whole, cut into parts, or sharded; and it resumes bitwise."""

from __future__ import annotations

import pytest
import torch
from test_optimizer_groups import small_model, take_steps

from fangcun.config import OptimizerConfig
from fangcun.training import muon as muon_module
from fangcun.training.muon import Muon, orthogonalize, rate_factor, working_type
from fangcun.training.optimizer_state import optimizer_tensors, restore_optimizers
from fangcun.training.optimizers import build_optimizers, set_learning_rate

SHAPES = [(16, 16), (16, 16), (48, 16), (16, 64), (64, 16), (8, 24)]


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def move(optimizer: torch.optim.Optimizer, moved: list[torch.nn.Parameter], steps: int = 5) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(100 + step)
        for parameter in moved:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def changes(moved: list[torch.nn.Parameter], seed: int = 0) -> list[torch.Tensor]:
    return [(after - before).detach() for after, before in zip(moved, parameters(seed), strict=True)]


@pytest.mark.parametrize("scale", ["match_rms_adamw", "original"])
def test_equals_torchs_muon_in_bf16(scale: str, monkeypatch) -> None:
    # Both iterate in bf16 here. Only the norm before the first iteration (ours in bf16 over a batch) and the order of sums differ:
    # bf16 has 8 bits, five iterations leave some 2 % of the largest change.
    monkeypatch.setattr(muon_module, "working_type", lambda device: torch.bfloat16)
    ours, theirs = parameters(), parameters()
    move(Muon(ours, lr=0.02, weight_decay=0.1, momentum=0.9, scale=scale), ours)
    move(torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn=scale), theirs)
    for a, b in zip(changes(ours), changes(theirs), strict=True):
        torch.testing.assert_close(a, b, atol=0.03 * float(b.abs().max()), rtol=0)


def exact_torch_muon(monkeypatch) -> None:
    """torch's own Muon with its conversion to bf16 taken out: the reference for float32."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())


@pytest.mark.parametrize("scale", ["match_rms_adamw", "original"])
def test_equals_torchs_muon_in_float32(scale: str, monkeypatch) -> None:
    ours, theirs = parameters(), parameters()
    monkeypatch.setattr(muon_module, "working_type", lambda device: torch.float32)
    move(Muon(ours, lr=0.02, weight_decay=0.1, scale=scale), ours)
    exact_torch_muon(monkeypatch)
    move(torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn=scale), theirs)
    for a, b in zip(changes(ours), changes(theirs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4 * float(b.abs().max()), rtol=0)


def test_parts_move_as_parameters_of_their_own(monkeypatch) -> None:
    monkeypatch.setattr(muon_module, "working_type", lambda device: torch.float32)
    whole = torch.nn.Parameter(torch.randn(40, 16, generator=torch.Generator().manual_seed(3)))
    cut = [torch.nn.Parameter(part.clone().detach()) for part in whole.split(8)]
    one = Muon([{"params": [whole], "part_rows": 8}], lr=0.02)
    several = Muon(cut, lr=0.02)
    for step in range(3):
        gradient = torch.randn(40, 16, generator=torch.Generator().manual_seed(step))
        whole.grad = gradient
        for parameter, part in zip(cut, gradient.split(8), strict=True):
            parameter.grad = part.clone()
        one.step()
        several.step()
    torch.testing.assert_close(whole, torch.cat(cut), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16)])
def test_an_update_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    drawn = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.linalg.svdvals(orthogonalize(drawn.to(dtype)).float())
        assert 0.4 < float(values.min()) < float(values.max()) < 1.3


def test_a_matrix_without_gradient_stays_and_zero_gradient_gives_numbers() -> None:
    moved = parameters()
    optimizer = Muon(moved, lr=0.1, weight_decay=0.0)
    moved[0].grad = torch.zeros_like(moved[0])
    optimizer.step()
    for a, b in zip(moved, parameters(), strict=True):
        assert torch.equal(a, b)


def test_bf16_is_used_only_where_the_device_has_it(monkeypatch) -> None:
    monkeypatch.setattr(muon_module, "cpu_computes_bf16", lambda: False)
    assert working_type(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(muon_module, "cpu_computes_bf16", lambda: True)
    assert working_type(torch.device("cpu")) == torch.bfloat16


def test_scale_is_torchs() -> None:
    from torch.optim._muon import _adjust_lr

    for shape in SHAPES:
        for scale in ("match_rms_adamw", "original"):
            assert rate_factor(scale, *shape) == pytest.approx(_adjust_lr(1.0, scale, torch.Size(shape)))


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    model = small_model(tie_embeddings=False, n_query_groups=1)
    muon, adamw = build_optimizers(
        model, OptimizerConfig(name="muon", lr=0.01, muon_lr=0.02, head_lr=0.005, embedding_lr=0.03)
    )
    names = {id(p): n for n, p in model.named_parameters()}
    muons = {names[id(p)] for g in muon.param_groups for p in g["params"]}
    assert all("attention" in n or "mlp" in n for n in muons)
    assert not any("norm" in n for n in muons)
    assert {g["name"] for g in adamw.param_groups} == {"embedding", "norm", "head"}
    qkv = next(g for g in muon.param_groups if g["name"] == "matrix qkv")
    assert qkv["part_rows"] == 8
    set_learning_rate([muon, adamw], 0.001)
    rates = {g["name"]: g["lr"] for o in (muon, adamw) for g in o.param_groups}
    assert rates == pytest.approx(
        {"matrix": 0.002, "matrix qkv": 0.002, "embedding": 0.003, "norm": 0.001, "head": 0.0005}
    )


def test_muon_resumes_bitwise() -> None:
    config = OptimizerConfig(name="muon", lr=0.01)
    model = small_model()
    optimizers = build_optimizers(model, config)
    take_steps(model, optimizers, range(3))
    saved = {k: v.clone() for k, v in optimizer_tensors(model, optimizers).items()}
    other = small_model()
    other.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    restored = build_optimizers(other, config)
    restore_optimizers(other, restored, saved)
    take_steps(model, optimizers, range(3, 6))
    take_steps(other, restored, range(3, 6))
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


_TWO_RANKS = """
import os, sys, torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from fangcun.training.muon import Muon
dist.init_process_group("gloo")
def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 15, bias=False), torch.nn.Linear(15, 24, bias=False), torch.nn.Linear(24, 16, bias=False))
def build(model):
    return Muon([{"params": [model[0].weight, model[2].weight]}, {"params": [model[1].weight], "part_rows": 8}], lr=0.02)
plain, sharded = make(), make()
fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
a, b = build(plain), build(sharded)
x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
for _ in range(3):
    for model, optimizer in ((plain, a), (sharded, b)):
        (model(x) ** 2).mean().backward(); optimizer.step(); optimizer.zero_grad()
for p, q in zip(plain.parameters(), sharded.parameters()):
    torch.testing.assert_close(q.full_tensor(), p.detach(), atol=1e-6, rtol=1e-5)
    assert b.state[q]["momentum_buffer"].to_local().shape == q.to_local().shape
print("same")
dist.destroy_process_group()
"""


def test_sharded_parameters_move_as_whole_ones(tmp_path) -> None:
    import os
    import subprocess
    import sys

    script = tmp_path / "ranks.py"
    script.write_text(_TWO_RANKS, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.stdout.count("same") == 2, done.stderr
