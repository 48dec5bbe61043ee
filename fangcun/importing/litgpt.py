"""litgpt's checkpoint: `lit_model.pth` and `model_config.yaml`, the order of query, key and value of either age."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fangcun.config import ModelConfig
from fangcun.config.convert import MismatchError, convert
from fangcun.config.flatten import flatten
from fangcun.config.keys import recipe_keys
from fangcun.config.litgpt_model import import_model
from fangcun.config.report import ImportReport
from fangcun.config.translation import Translation, plain, shown_value
from fangcun.config.yaml_tree import Mapping as Tree
from fangcun.config.yaml_tree import read_yaml
from fangcun.errors import ConfigError, FangcunError
from fangcun.importing.foreign import ForeignModel, build_model, choose_family, told_of
from fangcun.importing.pickles import as_state, common_dtype, open_pickle
from fangcun.model.families.names import refuse_rest, take

WEIGHTS, CONFIG = "lit_model.pth", "model_config.yaml"
_REMEDY = (
    "If you trust it, save the weights alone, once, with the Python that wrote it, and copy the other files beside them: "
    "python -c \"import torch; torch.save(torch.load('{file}', weights_only=False)['model'], 'NEW/lit_model.pth')\""
)
_MODULES = {
    "norm_1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.output",
    "attn.norm_q": "attention.query_norm",
    "attn.norm_k": "attention.key_norm",
    "norm_2": "mlp_norm",
}
_MLP = {
    "GELU": {"mlp.fc": "mlp.up", "mlp.proj": "mlp.down"},
    "SwiGLU": {"mlp.fc_1": "mlp.gate", "mlp.fc_2": "mlp.up", "mlp.proj": "mlp.down"},
}


def read_litgpt(folder: Path) -> ForeignModel:
    """The model of a checkpoint folder. Raises FangcunError: files missing or damaged, or a shape that we do not have."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FangcunError(
                f"{folder / name} is missing. A checkpoint of litgpt's has {WEIGHTS} and {CONFIG} side by side."
            )
    asked, notes = _read_config(folder / CONFIG)
    file = folder / WEIGHTS
    found = open_pickle(file, remedy=_REMEDY.format(file=file))
    facts: dict[str, Any] = {}
    if isinstance(found, Mapping) and isinstance(found.get("model"), Mapping):
        facts = {"step": found["step_count"]} if isinstance(found.get("step_count"), int) else {}
        found = found["model"]
    weights = as_state(found, file)
    tied = _tied(weights)
    norms_alone = bool(notes)
    with told_of(folder, CONFIG):
        config, more = choose_family(dataclasses.replace(asked, tie_embeddings=tied))
        state = _rename(weights, config)
        if norms_alone:
            _fill_biases(state)
        model = build_model(config, state, folder)
    return ForeignModel(
        model, "litgpt checkpoint", folder, [folder / CONFIG, file],
        common_dtype(weights), facts, notes=notes + more,
    )  # fmt: skip


def _read_config(file: Path) -> tuple[ModelConfig, list[str]]:
    """The shape in our names, and a note where only the norms have biases. Raises ConfigError with the whole report when something is refused."""
    given = read_yaml(file, str(file))
    if not {"n_layer", "n_embd", "padded_vocab_size"} <= given.entries.keys():
        raise ConfigError(f"{file}: expected litgpt's model configuration with n_layer, n_embd and padded_vocab_size.")
    entries = dict(given.entries)
    notes = []
    if _value(given, "norm_class_name", "LayerNorm") == "LayerNorm" and _value(given, "bias", "true") == "false":
        # litgpt's LayerNorm has a bias whatever `bias` says.
        entries["bias"] = plain("true", given.lines["bias"])
        notes.append("The matrices have no biases, the norms do: biases of 0 were added, the logits are the same.")
    work = Translation(str(file), ImportReport("litgpt", str(file)))
    import_model(work, Tree({"model_config": Tree(entries, given.lines, given.line)}, {"model_config": 1}, 1))
    if "gemma" in _value(given, "name", "").lower():
        work.report.refused.append(
            "name: Gemma's RMSNorm adds one to its weights, which is not offered by the model here"
        )
    if _value(given, "norm_qk", "false") == "true" and _value(given, "norm_class_name", "LayerNorm") != "RMSNorm":
        work.report.refused.append("norm_qk: only with norm_class_name: RMSNorm is it offered by the model here")
    if work.report.refused:
        raise ConfigError(
            f"{file}: the model here cannot be this one:\n" + "\n".join(f"  {text}" for text in work.report.refused)
        )
    nodes, problems = flatten(work.tree(), str(file))
    values: dict[str, Any] = {}
    for key, (node, place) in nodes.items():
        try:
            values[key.removeprefix("model.")] = convert(node, recipe_keys()[key].hint)
        except MismatchError as mismatch:
            problems.append(f"{place}: {key}: {mismatch}")
    if problems:
        raise ConfigError("\n".join(problems))
    return ModelConfig(**values), notes


def _value(tree: Tree, key: str, default: str) -> str:
    text = shown_value(tree.entries[key]) if key in tree.entries else default
    return text.lower() if text.lower() in ("true", "false") else text


def _tied(weights: dict[str, torch.Tensor]) -> bool:
    """Whether head and embedding are equal; the head is then taken out of `weights`."""
    head, embedding = weights.get("lm_head.weight"), weights.get("transformer.wte.weight")
    tied = head is not None and embedding is not None and torch.equal(head, embedding)
    if tied:
        del weights["lm_head.weight"]
    return tied


def _rename(weights: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """litgpt's names to ours. Raises FangcunError naming what is missing or left over."""
    left = dict(weights)
    state = {"embedding.weight": take(left, "transformer.wte.weight")}
    if not config.tie_embeddings:
        state["head.weight"] = take(left, "lm_head.weight")
    modules = {"transformer.ln_f": "norm"}
    for layer in range(config.n_layer):
        theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
        for part in ("weight", "bias"):
            if f"{theirs}.attn.attn.{part}" in left:  # before 0.5.4: query, key and value of each group together
                grouped = left.pop(f"{theirs}.attn.attn.{part}")
                left[f"{theirs}.attn.qkv.{part}"] = _ungroup(grouped, config, f"{theirs}.attn.attn.{part}")
        named = _MODULES | _MLP[config.mlp_class]
        if not config.qk_norm:
            named = {
                theirs: ours for theirs, ours in named.items() if "norm_q" not in theirs and "norm_k" not in theirs
            }
        modules |= {f"{theirs}.{name}": f"{ours}.{own}" for name, own in named.items()}
    for theirs, ours in modules.items():
        state[f"{ours}.weight"] = take(left, f"{theirs}.weight")
        if f"{theirs}.bias" in left:
            state[f"{ours}.bias"] = left.pop(f"{theirs}.bias")
    refuse_rest(left)
    return state


def _ungroup(tensor: torch.Tensor, config: ModelConfig, name: str) -> torch.Tensor:
    """Rows that lie as [group, its queries and one key and value, head size] as all queries, all keys, all values."""
    assert config.n_query_groups is not None and config.head_size is not None, "resolved"
    groups, queries = config.n_query_groups, config.n_head // config.n_query_groups
    if tensor.shape[0] != groups * (queries + 2) * config.head_size:
        raise FangcunError(
            f"{name} has {tensor.shape[0]} rows, expected {groups * (queries + 2) * config.head_size} for n_head {config.n_head}, "
            f"n_query_groups {groups} and head_size {config.head_size}. Does {CONFIG} belong to these weights?"
        )
    rest = tensor.shape[1:]
    parts = tensor.reshape(groups, queries + 2, config.head_size, *rest).split((queries, 1, 1), dim=1)
    return torch.cat([part.reshape(-1, *rest) for part in parts])


def _fill_biases(state: dict[str, torch.Tensor]) -> None:
    """Zeros for the biases that the matrices of a model with biases in its norms alone lack."""
    for name in [name for name in state if name.startswith("blocks.") and name.endswith(".weight")]:
        bias = name.removesuffix("weight") + "bias"
        if bias not in state and not name.endswith(("query_norm.weight", "key_norm.weight")):
            state[bias] = state[name].new_zeros(state[name].shape[0])
