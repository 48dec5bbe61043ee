"""Norms, softmax and rotation are computed in float32 whatever the precision around them is."""

from __future__ import annotations

import pytest
import torch
from shapes import random_ids, random_model, small_config

from fangcun.model import Transformer, cross_entropy_sum
from fangcun.model import attention as attention_module
from fangcun.model.attention import Attention, Rotary, rotate
from fangcun.model.norm import LayerNorm, RMSNorm


@pytest.mark.parametrize("norm", [RMSNorm(64, 1e-6), LayerNorm(64, 1e-6, bias=True)], ids=["RMSNorm", "LayerNorm"])
@pytest.mark.parametrize("autocast", [True, False])
def test_norms_of_bf16_input_are_rounded_once(norm: torch.nn.Module, autocast: bool) -> None:
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(1 + 0.1 * torch.randn(64))
    # A large common part: in bf16 its squares and its mean lose what distinguishes the entries.
    x = (100 + torch.randn(8, 64)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = norm(x)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, norm(x.float()).bfloat16())


@pytest.mark.parametrize("norm_class", ["RMSNorm", "LayerNorm"])
def test_under_autocast_the_residual_stream_and_its_norms_are_float32(norm_class: str) -> None:
    config = small_config(norm_class=norm_class, exportable=False)
    model = random_model(config)
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, RMSNorm | LayerNorm):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    with torch.autocast("cpu", torch.bfloat16):
        model(random_ids(config))
    assert len(seen) == 4 * config.n_layer + 1
    for name, (into, out) in seen.items():
        assert (into.dtype, out.dtype) == (torch.float32, torch.float32), name


@pytest.mark.parametrize("own", [True, False], ids=["own", "torch's"])
@pytest.mark.parametrize("dropout", [0.0, 1e-9], ids=["fused", "with dropout"])
@pytest.mark.parametrize("groups", [4, 2])
def test_softmax_of_bf16_scores_is_float32(
    groups: int, dropout: float, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of about 40 are known to 1/4 in bf16, which would be wrong by 20 % after exp."""
    monkeypatch.setattr(attention_module, "attention_pays", lambda query: own)
    config = small_config(
        n_query_groups=groups, qk_norm=False, attention_dropout=dropout, positions="learned", exportable=False
    )
    attention = Attention(config, 0)
    mixed = []
    attention.output.register_forward_pre_hook(lambda module, inputs: mixed.append(inputs[0]))
    torch.manual_seed(0)
    with torch.no_grad():
        attention.qkv.weight[: (4 + groups) * 8].mul_(12)
    x = torch.randn(2, 24, 32)
    with torch.autocast("cpu", torch.bfloat16):
        attention(x)
        query, key, value = attention.project(x)
    out = mixed[0].view(2, 24, 4, 8).transpose(1, 2)
    assert out.dtype == torch.bfloat16
    repeated = [part.float().repeat_interleave(4 // groups, dim=1) for part in (key, value)]
    scores = query.float() @ repeated[0].mT / 8**0.5
    assert scores.std() > 15
    scores = scores.masked_fill(torch.ones(24, 24, dtype=torch.bool).triu(1), float("-inf"))
    wanted = scores.softmax(-1) @ repeated[1]
    naive = (scores.bfloat16().softmax(-1) @ repeated[1].bfloat16()).float()
    assert (naive - wanted).abs().max() > 0.02, "the test would not notice a bf16 softmax"
    assert (out.float() - wanted).abs().max() < 0.01


def test_rotary_tables_stay_float32_and_follow_the_model() -> None:
    config = small_config()
    model = Transformer(config).to(torch.bfloat16)
    assert model.rotary is not None
    fresh = Rotary(8, config.rope_base, config.block_size)
    assert torch.equal(model.rotary.cos, fresh.cos)
    assert torch.equal(model.rotary.sin, fresh.sin)
    assert model(random_ids(config)).dtype == torch.bfloat16
    with torch.device("meta"):
        empty = Transformer(config)
    empty.to_empty(device="cpu")
    assert empty.rotary is not None
    assert torch.equal(empty.rotary.cos, fresh.cos)
    assert not [name for name in model.state_dict() if "rotary" in name]


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    rotary = Rotary(8, 100.0, 32)
    a, b = torch.randn(2, 1, 1, 1, 8).unbind()
    rotated = [(rotate(a, rotary(p, 1)), rotate(b, rotary(p + 3, 1))) for p in (0, 5, 20)]
    for x, y in rotated:
        torch.testing.assert_close(x.norm(), a.norm())
        torch.testing.assert_close((x * y).sum(), (rotated[0][0] * rotated[0][1]).sum(), atol=1e-5, rtol=1e-5)


def test_loss_of_bf16_logits_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 100, 50).bfloat16(), torch.randint(0, 50, (4, 100))
    targets[0, :30] = -100
    loss, count = cross_entropy_sum(logits, targets)
    assert (loss.dtype, int(count)) == (torch.float32, 370)
    rows = logits.double().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(loss.double(), -(rows * (targets >= 0)).sum())


def test_a_batch_without_targets_loses_nothing() -> None:
    loss, count = cross_entropy_sum(torch.randn(1, 3, 5), torch.full((1, 3), -100))
    assert (float(loss), int(count)) == (0.0, 0)


def test_bf16_autocast_is_close_to_float32_and_trains() -> None:
    config = small_config(attention_bias=True)
    model = random_model(config).train()
    ids = random_ids(config)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
        loss, count = cross_entropy_sum(logits, ids)
    (loss / count).backward()
    exact = model(ids)
    assert (logits.float() - exact).abs().mean() < 0.03 * exact.std()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


def test_softcap_bounds_and_dropout_acts_in_training_only() -> None:
    config = small_config(exportable=False, logit_softcap=2.0, dropout=0.3, attention_dropout=0.3)
    model = random_model(config)
    ids = random_ids(config)
    logits = model(ids)
    assert logits.abs().max() <= 2.0
    free = random_model(small_config())
    torch.testing.assert_close(logits, 2.0 * torch.tanh(free(ids) / 2.0))
    assert torch.equal(model(ids), logits)
    model.train()
    torch.manual_seed(1)
    first = model(ids)
    assert not torch.allclose(first, model(ids))
    torch.manual_seed(1)
    assert torch.equal(model(ids), first)
