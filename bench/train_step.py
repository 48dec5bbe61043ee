"""One training step of one program at one shape: forward, backward, clip at 1.0, AdamW, batches in memory.

    python bench/train_step.py --impl fangcun --shape c [--dtype bf16] [--steps 4] [--warmup 1]

--impl: fangcun, nanogpt (needs --nanogpt CLONE), litgpt, hf-mistral; each in a Python that has it. Models come from the
programs' own code, with the optimizer settings of their own training loops on a CPU. One JSON line on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import peak_memory_mib, reference_gflops, report

SHAPES = {
    "a": {"L": 2, "H": 4, "D": 128, "T": 256, "B": 64, "V": 65},
    "b": {"L": 4, "H": 4, "D": 128, "T": 64, "B": 12, "V": 65},
    "c": {"L": 6, "H": 6, "D": 512, "T": 512, "B": 4, "V": 65024, "HS": 48, "I": 768},
}
Step = Callable[[torch.Tensor, torch.Tensor], Any]


def fangcun_step(s: dict[str, int], dtype: str) -> tuple[torch.nn.Module, Step]:
    from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
    from fangcun.model import Transformer, initialize
    from fangcun.training import Compute, build_optimizers, train_step

    shape: dict[str, Any] = {
        "n_layer": s["L"],
        "n_head": s["H"],
        "n_embd": s["D"],
        "block_size": s["T"],
        "qk_norm": False,
    }
    if "HS" in s:
        shape |= {"family": "mistral", "head_size": s["HS"], "intermediate_size": s["I"]}
    else:
        shape |= {
            "family": "gpt2",
            "norm_class": "LayerNorm",
            "norm_eps": 1e-5,
            "mlp_class": "GELU",
            "positions": "learned",
        }
    model = Transformer(resolve_model(ModelConfig(**shape, padding_multiple=1), vocab_size=s["V"]))
    initialize(model, 0)
    model.train()
    optimizers = build_optimizers(model, OptimizerConfig(lr=4e-4))
    precision = "bf16-mixed" if dtype == "bf16" else "32-true"
    compute = Compute(torch.device("cpu"), precision, False, torch.get_num_threads())
    parameters = list(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor) -> Any:
        return train_step(
            model, parameters, optimizers, x, y, rate=4e-4, micro_batch_size=s["B"], max_norm=1.0, compute=compute
        )

    return model, step


def peer_step(impl: str, s: dict[str, int], dtype: str, nanogpt: str | None) -> tuple[torch.nn.Module, Step]:
    if impl == "nanogpt":
        sys.path.insert(0, nanogpt or "")
        from model import GPT, GPTConfig  # type: ignore[import-not-found]

        model = GPT(GPTConfig(block_size=s["T"], vocab_size=s["V"], n_layer=s["L"], n_head=s["H"], n_embd=s["D"], dropout=0.0, bias=False))  # fmt: skip
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return model(x, y)[1]

    elif impl == "litgpt":
        from litgpt import GPT, Config  # type: ignore[import-not-found]
        from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

        shape = {"name": "x", "block_size": s["T"], "n_layer": s["L"], "n_head": s["H"], "n_embd": s["D"], "vocab_size": s["V"], "padded_vocab_size": s["V"], "rotary_percentage": 1.0, "parallel_residual": False, "bias": False, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "intermediate_size": s.get("I", 344), "n_query_groups": s["H"]}  # fmt: skip
        if "HS" in s:
            shape["head_size"] = s["HS"]
        model = GPT(Config(**shape))
        model.lm_head.weight = model.transformer.wte.weight
        model.max_seq_length = s["T"]
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1, betas=(0.9, 0.95))

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return chunked_cross_entropy(model(x), y)

    else:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import MistralConfig, MistralForCausalLM

        shape = {"vocab_size": s["V"], "hidden_size": s["D"], "intermediate_size": s.get("I", 344), "num_hidden_layers": s["L"], "num_attention_heads": s["H"], "num_key_value_heads": s["H"], "head_dim": s.get("HS", s["D"] // s["H"]), "max_position_embeddings": s["T"], "tie_word_embeddings": True, "sliding_window": None}  # fmt: skip
        model = MistralForCausalLM(MistralConfig(**shape))
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1, betas=(0.9, 0.95))

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return model(input_ids=x, labels=x, use_cache=False).loss  # it shifts inside

    model.train()
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        with cast:
            loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", required=True, choices=["fangcun", "nanogpt", "litgpt", "hf-mistral"])
    parser.add_argument("--shape", required=True, choices=sorted(SHAPES))
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nanogpt", help="clone of nanoGPT")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    s = SHAPES[args.shape]
    data = torch.randint(0, s["V"], (args.steps + args.warmup, s["B"], s["T"] + 1))
    if args.impl == "fangcun":
        model, step = fangcun_step(s, args.dtype)
    else:
        model, step = peer_step(args.impl, s, args.dtype, args.nanogpt)
    reference = reference_gflops()
    times = []
    for batch in data:
        started = time.perf_counter()
        step(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        times.append(time.perf_counter() - started)
    median = statistics.median(times[args.warmup :])
    n_parameters = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    report(
        {"impl": args.impl, "shape": args.shape, "dtype": args.dtype, "parameters": n_parameters,
         "step_ms": round(median * 1e3, 1), "tokens_per_second": round(s["B"] * s["T"] / median),
         "peak_memory_mib": peak_memory_mib(), "ref_gflops": reference}
    )  # fmt: skip


if __name__ == "__main__":
    main()
