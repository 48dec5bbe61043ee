"""The recipe's keys, read off the dataclasses: dotted name, type, default, docstring; and the key nearest to a wrong one."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import textwrap
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any

from fangcun.config.schema import Recipe

# What other tools call our keys; consulted before spelling distance, which cannot know them.
_FOREIGN = {
    "learning_rate": "optimizer.lr",
    "max_lr": "optimizer.lr",
    "beta1": "optimizer.betas",
    "beta2": "optimizer.betas",
    "decay": "optimizer.weight_decay",
    "wd": "optimizer.weight_decay",
    "num_layers": "model.n_layer",
    "num_hidden_layers": "model.n_layer",
    "layers": "model.n_layer",
    "heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_query_groups",
    "n_kv_heads": "model.n_query_groups",
    "n_kv_head": "model.n_query_groups",
    "hidden_size": "model.n_embd",
    "d_model": "model.n_embd",
    "dim": "model.n_embd",
    "hidden_dim": "model.n_embd",
    "head_dim": "model.head_size",
    "context_length": "model.block_size",
    "max_position_embeddings": "model.block_size",
    "rope_theta": "model.rope_base",
    "rms_norm_eps": "model.norm_eps",
    "norm_class_name": "model.norm_class",
    "mlp_class_name": "model.mlp_class",
    "tie_word_embeddings": "model.tie_embeddings",
    "batch_size": "train.micro_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "accumulate_grad_batches": "train.global_batch_size",
    "num_train_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "warmup_iters": "train.lr_warmup_steps",
    "warmup_steps": "train.lr_warmup_steps",
    "warmup": "train.lr_warmup_steps",
    "lr_decay_iters": "train.lr_decay_steps",
    "scheduler": "train.lr_schedule",
    "lr_scheduler_type": "train.lr_schedule",
    "grad_clip": "train.max_norm",
    "max_grad_norm": "train.max_norm",
    "gradient_clip_val": "train.max_norm",
    "save_steps": "train.save_interval",
    "logging_steps": "train.log_interval",
    "threads": "train.num_threads",
    "eval_interval": "eval.interval",
    "eval_steps": "eval.interval",
    "eval_iters": "eval.max_iters",
    "save_total_limit": "checkpoint.keep_last",
    "dtype": "precision",
    "mixed_precision": "precision",
    "tokenizer_dir": "tokenizer.path",
    "initial_checkpoint_dir": "init_from",
    "init_checkpoint": "init_from",
    "text": "corpus.paths",
    "data": "corpus.paths",
    "dataset": "corpus.paths",
    "data_path": "corpus.paths",
    "out": "out_dir",
    "output_dir": "out_dir",
    "logger_name": "trackers",
    "logger": "trackers",
    "report_to": "trackers",
    "torch_compile": "compile",
}


@dataclass(frozen=True)
class Key:
    """One setting of the recipe."""

    name: str
    """Dotted, as in `train.max_steps`."""
    hint: Any
    """Its type, with `Annotated` bounds."""
    default: Any
    doc: str


def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass, by field name ("" where there is none)."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    docs = {field.name: "" for field in dataclasses.fields(cls)}
    for statement, after in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.target.id in docs
        ):
            value = after.value if isinstance(after, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[statement.target.id] = inspect.cleandoc(value.value)
    return docs


def field_default(field: dataclasses.Field) -> Any:
    """The default of a dataclass field, from its value or its factory."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


@cache
def sections() -> dict[str, type]:
    """Section name to dataclass, in the recipe's order."""
    hints = typing.get_type_hints(Recipe)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(Recipe)
        if dataclasses.is_dataclass(hints[field.name])
    }


@cache
def recipe_keys() -> dict[str, Key]:
    """All settings by dotted name, in the recipe's order."""
    keys: dict[str, Key] = {}
    hints, docs = typing.get_type_hints(Recipe, include_extras=True), _docs(Recipe)
    for top in dataclasses.fields(Recipe):
        cls = sections().get(top.name)
        if cls is None:
            keys[top.name] = Key(top.name, hints[top.name], field_default(top), docs[top.name])
            continue
        inner_hints, inner_docs = typing.get_type_hints(cls, include_extras=True), _docs(cls)
        for inner in dataclasses.fields(cls):
            name = f"{top.name}.{inner.name}"
            keys[name] = Key(name, inner_hints[inner.name], field_default(inner), inner_docs[inner.name])
    return keys


def nearest_key(wrong: str) -> str | None:
    """The key that was probably meant by `wrong` (dotted or not), looked for in all sections; None when nothing is near.

    In order: the same word in another section, another tool's word, the nearest spelling in the same section, then anywhere.
    """
    names = list(recipe_keys())
    section, _, leaf = wrong.rpartition(".")
    leaf = leaf.replace("-", "_")
    by_leaf: dict[str, list[str]] = {}
    for name in names:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
    if leaf in by_leaf:
        return difflib.get_close_matches(wrong, by_leaf[leaf], n=1, cutoff=0.0)[0]
    own = {name.rpartition(".")[2]: name for name in names if section and name.startswith(section + ".")}
    near = difflib.get_close_matches(leaf, own, n=1, cutoff=0.75)
    if near:
        return own[near[0]]
    if leaf.lower() in _FOREIGN:
        return _FOREIGN[leaf.lower()]
    near = difflib.get_close_matches(leaf, own, n=1, cutoff=0.6)
    if near:
        return own[near[0]]
    near = difflib.get_close_matches(leaf, [*by_leaf, *sections()], n=1, cutoff=0.7)
    if near:
        return by_leaf[near[0]][0] if near[0] in by_leaf else near[0]
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.7)
    return near[0] if near else None


def _docs(cls: type) -> dict[str, str]:
    try:
        return field_docs(cls)
    except (
        OSError,
        TypeError,
    ):  # a frozen or zipped installation without sources: the settings work, only help is shorter
        return {field.name: "" for field in dataclasses.fields(cls)}
