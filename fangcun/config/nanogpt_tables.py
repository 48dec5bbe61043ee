"""nanoGPT's settings: what they are where a file says nothing, and where they go in a recipe."""

from __future__ import annotations

from fangcun.config.python_settings import Value

DEFAULTS: dict[str, Value] = {
    "out_dir": "out",
    "eval_interval": 2000,
    "log_interval": 1,
    "eval_iters": 200,
    "eval_only": False,
    "always_save_checkpoint": True,
    "init_from": "scratch",
    "wandb_log": False,
    "wandb_project": "owt",
    "wandb_run_name": "gpt2",
    "dataset": "openwebtext",
    "gradient_accumulation_steps": 40,
    "batch_size": 12,
    "block_size": 1024,
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "dropout": 0.0,
    "bias": False,
    "learning_rate": 6e-4,
    "max_iters": 600000,
    "weight_decay": 1e-1,
    "beta1": 0.9,
    "beta2": 0.95,
    "grad_clip": 1.0,
    "decay_lr": True,
    "warmup_iters": 2000,
    "lr_decay_iters": 600000,
    "min_lr": 6e-5,
    "backend": "nccl",
    "device": "cuda",
    "dtype": "auto",
    "compile": True,
}
"""nanoGPT's settings and what they are where a file says nothing."""

SAME = {
    "eval_interval": "eval.interval",
    "eval_iters": "eval.max_iters",
    "log_interval": "train.log_interval",
    "block_size": "model.block_size",
    "n_layer": "model.n_layer",
    "n_head": "model.n_head",
    "n_embd": "model.n_embd",
    "bias": "model.bias",
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
}
"""Taken over as they are."""
SCHEDULE = {
    "warmup_iters": "train.lr_warmup_steps",
    "lr_decay_iters": "train.lr_decay_steps",
    "min_lr": "train.min_lr",
}
"""Read by nanoGPT with decay_lr only."""
SHAPE = ("block_size", "n_layer", "n_head", "n_embd", "bias", "dropout")
"""The shape, which a folder of weights brings itself."""
GPT2 = {
    "family": "gpt2",
    "norm_class": "LayerNorm",
    "norm_eps": 1e-5,
    "mlp_class": "GELU",
    "gelu_approximate": "none",
    "positions": "learned",
    "qk_norm": False,
    "tie_embeddings": True,
}
"""What nanoGPT's model.py fixes."""
PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
"""dtype -> precision."""
WANTS_GPT2 = "GPT-2: tokenizer.json, or vocab.json and merges.txt, of huggingface.co/openai-community/gpt2."
"""The tokenizer of its data sets that are no characters."""
SPLITS: dict[str, tuple[str, float]] = {
    "openwebtext": ("hash", 0.0005),
    "shakespeare": ("tail", 0.1),
    "shakespeare_char": ("tail", 0.1),
}
"""How the prepare.py of nanoGPT's own data sets holds text out."""
WITHOUT_EFFECT = {
    "backend": "torch chooses it by the device",
    "wandb_run_name": "a run is called as its folder is",
}
"""Settings that nothing here reads, and why."""
