"""nanoGPT's `ckpt.pt`: a GPT-2 with exact GELU, its matrices as they are here, its head tied to the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fangcun.config import ModelConfig, resolve_model
from fangcun.errors import FangcunError
from fangcun.importing.foreign import ForeignModel, build_model, told_of
from fangcun.importing.pickles import as_state, common_dtype, open_pickle
from fangcun.model.families.names import refuse_rest, take

_MODULES = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.output",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
_REMEDY = (
    'If you trust it, save what counts, once, with the Python that wrote it: python -c "import torch; '
    "c = torch.load('{file}', weights_only=False); torch.save(dict(model=c['model'], model_args=c['model_args']), 'NEW.pt')\""
)


def read_nanogpt(file: Path) -> ForeignModel:
    """The model of a `ckpt.pt`. Raises FangcunError: no checkpoint of nanoGPT's, damaged, unsafe, or of other sizes."""
    found = open_pickle(file, remedy=_REMEDY.format(file=file))
    if not isinstance(found, Mapping) or not {"model", "model_args"} <= found.keys():
        keys = ", ".join(map(str, list(found)[:6])) if isinstance(found, Mapping) else type(found).__name__
        raise FangcunError(
            f"{file} is no checkpoint of nanoGPT's: expected the keys model and model_args, found {keys}. A state dict alone does not say its shape."
        )
    arguments = found["model_args"]
    weights = as_state(found["model"], file)
    with told_of(file, "model_args"):
        state = _rename(weights, _size(arguments, "n_layer", file))
    bias = "norm.bias" in state
    if isinstance(arguments.get("bias"), bool) and arguments["bias"] != bias:
        raise FangcunError(
            f"{file}: model_args says bias {arguments['bias']}, the weights say {bias}. Correct one of them."
        )
    sizes = {name: _size(arguments, name, file) for name in _SIZES}
    dropout = arguments.get("dropout", 0.0)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise FangcunError(f"{file}: model_args.dropout is {dropout!r}, expected a share from 0 to below 1.")
    tied = _tied(state)
    config = resolve_model(
        ModelConfig(
            family="gpt2",
            block_size=sizes["block_size"],
            n_layer=sizes["n_layer"],
            n_head=sizes["n_head"],
            n_embd=sizes["n_embd"],
            vocab_size=sizes["vocab_size"],
            padded_vocab_size=sizes["vocab_size"],
            norm_class="LayerNorm",
            norm_eps=1e-5,
            mlp_class="GELU",
            gelu_approximate="none",
            positions="learned",
            qk_norm=False,
            bias=bias,
            tie_embeddings=tied,
            dropout=dropout,
            attention_dropout=dropout,
        )
    )
    facts: dict[str, Any] = {"step": found.get("iter_num")}
    if isinstance(best := found.get("best_val_loss"), int | float | torch.Tensor):
        facts["best_val_loss"] = float(best)
    settings = found.get("config")
    if isinstance(settings, Mapping) and isinstance(settings.get("dataset"), str):
        facts["dataset"] = settings["dataset"]
    facts = {name: value for name, value in facts.items() if value is not None}
    with told_of(file, "model_args"):
        model = build_model(config, state, file)
    return ForeignModel(model, "nanoGPT checkpoint", file.parent, [file], common_dtype(weights), facts)


def _rename(weights: dict[str, torch.Tensor], n_layer: int) -> dict[str, torch.Tensor]:
    """nanoGPT's names to ours. Raises FangcunError naming what is missing or left over."""
    left = dict(weights)
    state = {
        "embedding.weight": take(left, "transformer.wte.weight"),
        "positions.weight": take(left, "transformer.wpe.weight"),
        "head.weight": take(left, "lm_head.weight"),
    }
    modules = {"transformer.ln_f": "norm"}
    for layer in range(n_layer):
        modules |= {f"transformer.h.{layer}.{theirs}": f"blocks.{layer}.{ours}" for theirs, ours in _MODULES.items()}
        left.pop(f"transformer.h.{layer}.attn.bias", None)  # the causal mask of versions without flash attention
    for theirs, ours in modules.items():
        state[f"{ours}.weight"] = take(left, f"{theirs}.weight")
        if f"{theirs}.bias" in left:
            state[f"{ours}.bias"] = left.pop(f"{theirs}.bias")
    refuse_rest(left)
    return state


def _tied(state: dict[str, torch.Tensor]) -> bool:
    """Whether the head is the embedding, as always in nanoGPT; it is then taken out of `state`."""
    tied = torch.equal(state["head.weight"], state["embedding.weight"])
    if tied:
        del state["head.weight"]
    return tied


def _size(arguments: Mapping[str, Any], name: str, file: Path) -> int:
    value = arguments.get(name) if isinstance(arguments, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FangcunError(f"{file}: model_args.{name} is {value!r}, expected a whole number of 1 or more.")
    return value
