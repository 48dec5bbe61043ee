"""litgpt's pretraining YAML, read as a recipe. Read, never executed: no class that it names is imported.

Two dialects are known: `train.learning_rate`, `weight_decay`, `beta1`, `beta2` of early 2024, and `optimizer` as a name or
as `{class_path, init_args}`. What the file leaves out has litgpt's defaults (litgpt/pretrain.py, litgpt/args.py of 0.4 to
0.5.13), not ours, so that the imported run is the run that was written.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from fangcun.config.litgpt_model import import_model
from fangcun.config.report import ImportReport
from fangcun.config.translation import Translation, plain, shown_value
from fangcun.config.yaml_tree import Items, Mapping, Node, Scalar
from fangcun.errors import ConfigError

_MARKS = {
    "model_name",
    "model_config",
    "initial_checkpoint_dir",
    "tokenizer_dir",
    "logger_name",
    "devices",
    "num_nodes",
    "data",
}
_OURS = {"corpus", "tokenizer", "tokens", "model", "samples", "checkpoint", "init_from", "trackers"}
_FINETUNE = {"checkpoint_dir", "lora_r", "quantize", "adapter_start_layer"}
_TRAIN_DEFAULTS = {
    "save_interval": "1000",
    "log_interval": "1",
    "global_batch_size": "512",
    "micro_batch_size": "4",
    "lr_warmup_steps": "2000",
    "max_tokens": "3000000000000",
    "max_norm": "1.0",
    "min_lr": "4e-5",
}
_EVAL_DEFAULTS = {"interval": "1000", "max_iters": "100", "initial_validation": "false", "final_validation": "true"}
_PRECISION = {
    "32": "32-true",
    "32-true": "32-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
_TRUE_PRECISION = {"bf16-true": "bf16-mixed", "16-true": "16-mixed"}
_REFUSED_THERE = {"epochs": "litgpt's pretraining refuses it", "max_steps": "litgpt refused it, and later warned of it"}
_ADAMW_NO_EFFECT = {"fused", "foreach", "capturable", "differentiable", "maximize", "amsgrad"}


def is_litgpt(tree: Mapping) -> bool:
    """Whether a YAML is litgpt's and not a recipe of ours with a stray key."""
    keys = set(tree.entries)
    if keys & _OURS:
        return False
    optimizer, train = tree.entries.get("optimizer"), tree.entries.get("train")
    old = isinstance(train, Mapping) and bool({"learning_rate", "beta1", "tie_embeddings"} & set(train.entries))
    new = isinstance(optimizer, Scalar) or (isinstance(optimizer, Mapping) and "class_path" in optimizer.entries)
    return bool(keys & {"model_name", "model_config"}) or len(keys & (_MARKS | _FINETUNE)) + old + new >= 2


def import_litgpt(tree: Mapping, file: str) -> tuple[Mapping, ImportReport]:
    """A litgpt configuration as the tree of a recipe (with the lines of `file`), and the report.

    Raises ConfigError when a key is refused; the message is the whole report.
    """
    if set(tree.entries) & _FINETUNE:
        raise ConfigError(
            f"{file}: this is a litgpt configuration for fine-tuning; only its pretraining files can be run here."
        )
    work = Translation(file, ImportReport("litgpt", file))
    known: dict[str, Callable[[Translation, str, Node, int], None]] = {
        "out_dir": lambda w, k, node, line: w.same(k, node, line, "out_dir"),
        "seed": lambda w, k, node, line: w.same(k, node, line, "seed"),
        "precision": _precision,
        "resume": _resume,
        "initial_checkpoint_dir": lambda w, k, node, line: w.same_unless_null(k, node, line, "init_from"),
        "tokenizer_dir": lambda w, k, node, line: w.same_unless_null(k, node, line, "tokenizer.path"),
        "logger_name": _logger,
        "data": _data,
        "train": _train,
        "eval": _eval,
        "optimizer": _optimizer,
        "devices": lambda w, k, node, line: w.no_effect(
            k, node, line, "one process trains on the device that 'device' names"
        ),
        "num_nodes": lambda w, k, node, line: w.no_effect(k, node, line, "one process trains on one machine"),
        "log": lambda w, k, node, line: w.no_effect(k, node, line, "trackers are named in 'trackers'"),
    }
    for key, node in tree.entries.items():
        if key in known:
            known[key](work, key, node, tree.lines[key])
        elif key not in ("model_name", "model_config"):
            work.refuse(key, node, tree.lines[key], "litgpt's pretraining has no such key")
    for section, convert in (("train", _train), ("eval", _eval), ("optimizer", _optimizer)):
        if section not in tree.entries and not (section == "optimizer" and "optimizer.lr" in work.keys):
            convert(work, section, Mapping(line=tree.line), tree.line)
    import_model(work, tree)
    if work.report.refused:
        raise ConfigError(f"{file}: {len(work.report.refused)} keys cannot be taken over.\n{work.report.render()}")
    return work.tree(), work.report


def _section(work: Translation, key: str, node: Node, line: int) -> Mapping | None:
    if isinstance(node, Mapping):
        return node
    if isinstance(node, Scalar) and node.is_null:
        return Mapping(line=line)
    work.refuse(key, node, line, "expected a section")
    return None


def _train(work: Translation, section: str, node: Node, line: int) -> None:
    train = _section(work, section, node, line)
    if train is None:
        return
    for key, value in train.entries.items():
        name, at, null = f"train.{key}", train.lines[key], isinstance(value, Scalar) and value.is_null
        if key in ("max_steps", "epochs", "max_time"):
            text = "honoured; of several stop conditions the first one met ends the run"
            work.better(name, value, at, name, f"{text} ({_REFUSED_THERE[key]})" if key in _REFUSED_THERE else text)
        elif key == "tie_embeddings":
            _tie(work, name, value, at)
        elif key == "lr_warmup_steps" and null:
            work.set("train.lr_warmup_steps", plain("0", at), at)
            work.mapped(name, value, at, "train.lr_warmup_steps: 0")
        elif key == "lr_warmup_fraction":
            if not null:
                work.refuse(
                    name, value, at, "a warm-up as a share of an epoch; give --train.lr_warmup_steps and remove the key"
                )
        elif key == "log_interval":
            work.better(
                name, value, at, name, "counts optimizer steps (there: micro-batches), and each line is of a whole step"
            )
        elif key in _TRAIN_DEFAULTS or key == "max_seq_length":
            work.same(name, value, at, name)
        elif key in ("learning_rate", "weight_decay"):
            work.same(name, value, at, "optimizer.lr" if key == "learning_rate" else "optimizer.weight_decay")
        elif key in ("beta1", "beta2"):
            work.mapped(name, value, at, f"optimizer.betas, the {'first' if key == 'beta1' else 'second'}")
        else:
            work.refuse(name, value, at, "litgpt's train section has no such key")
    for key, default in _TRAIN_DEFAULTS.items():
        if key not in train.entries:
            work.default(f"train.{key}", default, line)
    old = [key for key in ("learning_rate", "weight_decay", "beta1", "beta2") if key in train.entries]
    if old:
        first = train.lines[old[0]]
        betas = [train.entries.get(f"beta{i}", plain(default, first)) for i, default in ((1, "0.9"), (2, "0.95"))]
        work.set("optimizer.betas", Items(tuple(betas), first), first)
        for key, ours, default in (
            ("learning_rate", "optimizer.lr", "4e-4"),
            ("weight_decay", "optimizer.weight_decay", "0.1"),
        ):
            if key not in train.entries:
                work.default(ours, default, line)


def _tie(work: Translation, name: str, node: Node, line: int) -> None:
    if isinstance(node, Scalar) and node.is_null:
        node = plain("false", line)
    work.better(
        name, node, line, "model.tie_embeddings", "part of the model: counted once, and written so in config.json"
    )


def _eval(work: Translation, section: str, node: Node, line: int) -> None:
    evaluation = _section(work, section, node, line)
    if evaluation is None:
        return
    for key, value in evaluation.entries.items():
        name, at = f"eval.{key}", evaluation.lines[key]
        if key == "max_new_tokens":
            continue
        if key in _EVAL_DEFAULTS:
            work.same(name, value, at, name)
        elif key == "evaluate_example":
            work.no_effect(name, value, at, "it belongs to fine-tuning")
        else:
            work.refuse(name, value, at, "litgpt's eval section has no such key")
    for key, default in _EVAL_DEFAULTS.items():
        if key not in evaluation.entries:
            work.default(f"eval.{key}", default, line)
    length = evaluation.entries.get("max_new_tokens", plain("", line))
    at = evaluation.lines.get("max_new_tokens", line)
    if isinstance(length, Scalar) and length.is_null:
        work.set("samples.max_new_tokens", plain("0", at), at)
        work.mapped("eval.max_new_tokens", length, at, "samples.max_new_tokens: 0 (no samples)")
    else:
        work.better(
            "eval.max_new_tokens",
            length,
            at,
            "samples.max_new_tokens",
            "samples are written; litgpt's pretraining refuses it",
        )


def _optimizer(work: Translation, section: str, node: Node, line: int) -> None:
    args = Mapping(line=line)
    if isinstance(node, Scalar) and not node.is_null:
        name = node.text
    elif isinstance(node, Mapping):
        path = node.entries.get("class_path")
        name = path.text if isinstance(path, Scalar) else "AdamW"
        given = node.entries.get("init_args")
        args = given if isinstance(given, Mapping) else args
        for key in node.entries:
            if key not in ("class_path", "init_args"):
                work.refuse(f"optimizer.{key}", node.entries[key], node.lines[key], "expected class_path and init_args")
    elif isinstance(node, Scalar):
        name = "AdamW"
    else:
        work.refuse(section, node, line, "expected a name, or class_path and init_args")
        return
    kind = {"AdamW": "adamw", "AdamW8bit": "adamw8bit", "PagedAdamW8bit": "adamw8bit"}.get(name.rpartition(".")[2])
    if kind is None:
        work.refuse("optimizer", node, line, f"the optimizer {name} is not offered; AdamW is")
        return
    if isinstance(node, Mapping) and not node.entries and "optimizer.lr" in work.keys:
        return
    work.set("optimizer.name", plain(kind, line), line)
    work.mapped(
        "optimizer", plain(name, line), line, f"optimizer.name: {kind}, no decay on norms, biases and embeddings"
    )
    for key, value in args.entries.items():
        full, at = f"optimizer.init_args.{key}", args.lines[key]
        if key in ("lr", "weight_decay", "betas", "eps"):
            work.same(full, value, at, f"optimizer.{key}")
        elif key in _ADAMW_NO_EFFECT:
            if key in ("maximize", "amsgrad") and shown_value(value).lower() == "true":
                work.refuse(full, value, at, "not offered")
            else:
                work.no_effect(full, value, at, "torch's fused AdamW is used")
        else:
            work.refuse(full, value, at, "AdamW here takes lr, weight_decay, betas, eps")
    for key, default in (("lr", "1e-3"), ("weight_decay", "0.01"), ("eps", "1e-8")):
        if f"optimizer.{key}" not in work.keys:
            work.default(f"optimizer.{key}", default, line)
    if "optimizer.betas" not in work.keys:
        work.set("optimizer.betas", Items((plain("0.9", line), plain("0.999", line)), line), line)
        work.report.mapped.append("optimizer.betas: [0.9, 0.999] (torch's default, not in the file)")


def _precision(work: Translation, key: str, node: Node, line: int) -> None:
    text = "auto" if isinstance(node, Scalar) and node.is_null else shown_value(node)
    if text == "auto" or text in _PRECISION:
        ours = _PRECISION.get(text, "auto")
        work.set("precision", plain(ours, line), line)
        work.mapped(key, node, line, f"precision: {ours}")
    elif text in _TRUE_PRECISION:
        ours = _TRUE_PRECISION[text]
        work.set("precision", plain(ours, line), line)
        work.report.better.append(
            work.entry(key, node, line, f"precision: {ours}; weights stay in fp32, so that small updates are not lost")
        )
    else:
        work.refuse(key, node, line, "expected 32-true, bf16-mixed, 16-mixed or bf16-true")


def _resume(work: Translation, key: str, node: Node, line: int) -> None:
    if shown_value(node).lower() == "true":
        work.set("resume", plain("auto", line), line)
        text = "resume: auto; goes on where a checkpoint is, and starts anew where there is none, instead of stopping"
        work.report.better.append(work.entry(key, node, line, text))
    elif shown_value(node).lower() == "false":
        work.set("resume", plain("auto", line), line)
        text = "resume: auto; a run that is there is gone on with, never overwritten. A new one: --out NEW"
        work.report.better.append(work.entry(key, node, line, text))
    else:
        work.same_unless_null(key, node, line, "resume")


def _logger(work: Translation, key: str, node: Node, line: int) -> None:
    name = shown_value(node)
    if name in ("wandb", "tensorboard") and importlib.util.find_spec(name) is None:
        work.no_effect(key, node, line, f"{name} is not installed (pip install {name}); metrics go to metrics.jsonl")
    elif name in ("wandb", "tensorboard"):
        work.set("trackers", Items((plain(name, line),), line), line)
        work.mapped(key, node, line, f"trackers: [{name}]; metrics.jsonl is written too")
    elif name == "csv":
        work.report.better.append(work.entry(key, node, line, "metrics.jsonl is always written"))
    else:
        work.no_effect(key, node, line, "metrics go to metrics.jsonl")


def _data(work: Translation, key: str, node: Node, line: int) -> None:
    kind: Node = node
    args = Mapping()
    if isinstance(node, Mapping):
        kind = node.entries.get("class_path", node)
        given = node.entries.get("init_args")
        args = given if isinstance(given, Mapping) else args
    train = args.entries.get("train_data_path")
    if shown_value(kind).rpartition(".")[2] == "TextFiles" and isinstance(train, Scalar):
        at = args.lines["train_data_path"]
        work.set("corpus.paths", Items((train,), at), at)
        work.mapped(
            "data.train_data_path", train, at, "corpus.paths; --text replaces it, validation text is split off from it"
        )
        return
    name = "its data" if isinstance(kind, Mapping) else shown_value(kind)
    work.no_effect(key, plain(name, line), line, "prepared for litgpt; name the text itself with --text")
