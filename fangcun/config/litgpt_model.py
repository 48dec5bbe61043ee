"""litgpt's `model_config` (litgpt/config.py) in our names, and the family that can write such a model down."""

from __future__ import annotations

from fangcun.config.translation import Translation, plain, shown_value
from fangcun.config.yaml_tree import Mapping, Node, Scalar

# Their field -> our field. Values are taken over as they are.
_SAME = {
    **{
        name: name
        for name in [
            "block_size",
            "vocab_size",
            "padded_vocab_size",
            "padding_multiple",
            "n_layer",
            "n_head",
            "n_query_groups",
            "n_embd",
            "head_size",
            "intermediate_size",
            "norm_eps",
            "rope_base",
            "rotary_percentage",
            "parallel_residual",
            "bias",
            "scale_embeddings",
        ]
    },
    "norm_qk": "qk_norm",
    "attn_bias": "attention_bias",
    "final_logit_softcapping": "logit_softcap",
}
_DEFAULTS = {
    "block_size": "4096",
    "n_layer": "16",
    "n_head": "32",
    "n_embd": "4096",
    "padding_multiple": "512",
    "norm_eps": "1e-5",
    "rotary_percentage": "0.25",
    "parallel_residual": "true",
    "bias": "true",
    "norm_qk": "false",
}
# Fields that change the model in ways that are not offered, and the values that leave it as it is ("null" always does).
_NEUTRAL = {
    "attention_scores_scalar": (),
    "sliding_window_size": (),
    "sliding_window_indices": (),
    "sliding_window_layer_placing": (),
    "sliding_window_layer_stride": (),
    "attention_logit_softcapping": (),
    "rope_condense_ratio": ("1",),
    "rope_adjustments": (),
    "rope_local_base_freq": (),
    "rope_indices": (),
    "rope_interleave": ("false",),
    "post_attention_norm": ("false",),
    "post_mlp_norm": ("false",),
    "shared_attention_norm": ("false",),
    "norm_qk_type": ("default",),
    "norm_1": ("true",),
    "norm_2": ("true",),
    "lm_head_bias": ("false",),
    "n_expert": ("0",),
    "n_expert_per_token": ("0",),
    "n_shared_expert": (),
    "n_expert_groups": (),
    "n_topk_groups": (),
    "n_topk_scores_per_group": (),
    "moe_intermediate_size": (),
    "first_k_dense_replace": (),
    "routed_scaling_factor": ("1.0", "1"),
    "norm_topk_prob": ("false",),
    "latent_attention": (),
}
_MLP = {"LLaMAMLP": "SwiGLU", "GptNeoxMLP": "GELU"}
_LLAMA = {
    "rotary_percentage": "1.0",
    "parallel_residual": "false",
    "bias": "false",
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
}
# Shapes behind litgpt's names, for files that give a name alone (facts from litgpt/config.py).
_TINY_LLAMA = {
    **_LLAMA,
    "block_size": "2048",
    "vocab_size": "32000",
    "padding_multiple": "64",
    "intermediate_size": "5632",
    "n_query_groups": "4",
}
_PYTHIA = {  # layers, heads, width; litgpt says 50,254 ids, but the tokenizer has a few more
    "14m": (6, 4, 128),
    "31m": (6, 8, 256),
    "70m": (6, 8, 512),
    "160m": (12, 12, 768),
    "410m": (24, 16, 1024),
    "1b": (16, 8, 2048),
    "1.4b": (24, 16, 2048),
    "2.8b": (32, 32, 2560),
    "6.9b": (32, 32, 4096),
    "12b": (36, 40, 5120),
}
_PYTHIA_BLOCKS = {"14m": "512", "31m": "1024"}
_PYTHIA_ROWS = {"6.9b": "50432", "12b": "50688"}
_NAMED = {
    "tiny-llama-1.1b": {**_TINY_LLAMA, "n_layer": "22", "n_head": "32", "n_embd": "2048"},
    "micro-llama-300M": {**_TINY_LLAMA, "n_layer": "12", "n_head": "16", "n_embd": "1024"},
}
for _size, _shape_of in _PYTHIA.items():
    _NAMED[f"pythia-{_size}"] = _NAMED[f"pythia-{_size}-deduped"] = {
        "block_size": _PYTHIA_BLOCKS.get(_size, "2048"),
        "padded_vocab_size": _PYTHIA_ROWS.get(_size, "50304"),
        **dict(zip(("n_layer", "n_head", "n_embd"), map(str, _shape_of), strict=True)),
    }


def import_model(work: Translation, tree: Mapping) -> None:
    """Take over `model_config`, or the shape behind `model_name`, into `work`."""
    name, config = tree.entries.get("model_name"), tree.entries.get("model_config")
    given = isinstance(config, Mapping)
    if config is not None and not given and not (isinstance(config, Scalar) and config.is_null):
        work.refuse("model_config", config, tree.lines["model_config"], "expected a section")
        return
    if "init_from" in work.keys:
        for key in ("model_name", "model_config"):
            if key in tree.entries:
                work.no_effect(key, tree.entries[key], tree.lines[key], "the shape comes from the folder of init_from")
        work.keys.pop("model.tie_embeddings", None)
        return
    if isinstance(config, Mapping):
        if name is not None:
            work.no_effect("model_name", name, tree.lines["model_name"], "model_config gives the shape")
        _shape(work, config, tree.lines["model_config"], "model_config.")
        return
    if name is None or shown_value(name) == "null":
        work.refuse(
            "model_config",
            plain("", tree.line),
            tree.line,
            "neither model_config nor model_name gives the model's shape",
        )
        return
    line = tree.lines["model_name"]
    shape = _NAMED.get(shown_value(name)) or _NAMED.get(shown_value(name).rpartition("/")[2])
    if shape is None:
        known = ", ".join(name for name in _NAMED if not name.endswith("-deduped"))
        work.refuse(
            "model_name", name, line, f"its shape is not known here (known: {known}); write its fields as model_config"
        )
        return
    work.mapped("model_name", name, line, "model, as follows")
    _shape(
        work,
        Mapping({key: plain(value, line) for key, value in shape.items()}, dict.fromkeys(shape, line), line),
        line,
        "",
    )


def _shape(work: Translation, config: Mapping, line: int, prefix: str) -> None:
    for key, node in config.entries.items():
        theirs, at = f"{prefix}{key}", config.lines[key]
        value = shown_value(node)
        if key in _SAME:
            if value != "null":
                work.same(theirs, node, at, f"model.{_SAME[key]}")
        elif key in ("name", "hf_config", "org"):
            work.no_effect(theirs, node, at, "a label")
        elif key == "norm_class_name":
            work.same(theirs, node, at, "model.norm_class")
        elif key == "mlp_class_name" and value in _MLP:
            work.set("model.mlp_class", plain(_MLP[value], at), at)
            work.mapped(theirs, node, at, f"model.mlp_class: {_MLP[value]}")
        elif key == "gelu_approximate":
            if shown_value(config.entries.get("mlp_class_name", plain("GptNeoxMLP", at))) == "GptNeoxMLP":
                work.same(theirs, node, at, "model.gelu_approximate")
            else:
                work.no_effect(theirs, node, at, "the MLP has no GELU")
        elif key in _NEUTRAL and value.lower() in ("null", *_NEUTRAL[key]):
            work.no_effect(theirs, node, at, "leaves the model as it is")
        elif key in _NEUTRAL or key == "mlp_class_name":
            work.refuse(theirs, node, at, "not offered by the model here")
        else:
            work.refuse(theirs, node, at, "litgpt's model configuration has no such key")
    _complete(work, config, line)


def _complete(work: Translation, config: Mapping, line: int) -> None:
    """litgpt's defaults for what the file leaves out, and the family."""
    defaults = {"norm_class_name": ("norm_class", "LayerNorm"), "mlp_class_name": ("mlp_class", "GELU")}
    for theirs, default in _DEFAULTS.items():
        if theirs not in config.entries and not (
            theirs == "padding_multiple" and "padded_vocab_size" in config.entries
        ):
            work.default(f"model.{_SAME[theirs]}", default, line)
    for theirs, (ours, default) in defaults.items():
        if theirs not in config.entries:
            work.default(f"model.{ours}", default, line)
    if _text(work, "mlp_class") == "GELU" and "gelu_approximate" not in config.entries:
        work.default("model.gelu_approximate", "none", line)
    if "model.tie_embeddings" not in work.keys:
        work.default("model.tie_embeddings", "false", line)
    if _text(work, "mlp_class") == "SwiGLU" and "model.intermediate_size" not in work.keys:
        work.refuse("model_config.intermediate_size", plain("", line), line, "LLaMAMLP needs it")
    if _text(work, "norm_class") == "LayerNorm" and _text(work, "bias") == "false":
        work.refuse(
            "model_config.norm_class_name",
            plain("LayerNorm", line),
            line,
            "a LayerNorm with bias in a model without biases is not offered",
        )
    family = _family(work)
    work.set("model.family", plain(family, line), line)
    why = (
        "Llama's mathematics; a Llama of Hugging Face wants n_embd to be a multiple of n_head"
        if family == "mistral"
        else "what Hugging Face reads it as"
    )
    work.report.better.append(f"model.family: {family} ({why}); checkpoints open with transformers as they are")


def _family(work: Translation) -> str:
    if _text(work, "norm_class") == "LayerNorm" or _text(work, "parallel_residual") == "true":
        return "gpt_neox"
    if _text(work, "qk_norm") == "true":
        return "qwen3"
    if _text(work, "attention_bias") == "true":
        return "qwen2"
    width, heads = _number(work.keys.get("model.n_embd")), _number(work.keys.get("model.n_head"))
    return "mistral" if width and heads and width % heads else "llama"


def _text(work: Translation, field: str) -> str:
    found = work.keys.get(f"model.{field}")
    text = shown_value(found[0]) if found else ""
    return text.lower() if text.lower() in ("true", "false") else text


def _number(found: tuple[Node, int] | None) -> int | None:
    text = shown_value(found[0]) if found else ""
    return int(text) if text.isdigit() else None
