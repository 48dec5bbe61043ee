"""One training step of one program at one shape: forward, backward, clip at 1.0, AdamW, batches in memory.

    python bench/train_step.py --impl fangcun --shape c [--dtype bf16] [--compile] [--steps 4] [--warmup 1]

--impl: fangcun, nanogpt (needs --nanogpt CLONE), litgpt, hf-mistral, hf-trainer; each in a Python that has it. Models
come from the programs' own code, with the optimizer settings of their own training loops on a CPU; hf-trainer is the
Mistral model under transformers' Trainer as it comes. `--checkpointing` keeps only the inputs of Fangcun's blocks;
`--family mistral` gives Fangcun the RMSNorm, RoPE and SwiGLU of litgpt and transformers at shapes a and b too.
One JSON line on stdout; `share_of_ceiling` is the time of the step's bare matrix products over the time of the step.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from ceiling import product_seconds
from common import peak_memory_mib, reference_gflops, report

SHAPES = {
    "a": {"L": 2, "H": 4, "D": 128, "T": 256, "B": 64, "V": 65},
    "b": {"L": 4, "H": 4, "D": 128, "T": 64, "B": 12, "V": 65},
    "c": {"L": 6, "H": 6, "D": 512, "T": 512, "B": 4, "V": 65024, "HS": 48, "I": 768},
}
Step = Callable[[torch.Tensor, torch.Tensor], Any]
os.environ["HF_HUB_OFFLINE"] = "1"


def fangcun_step(
    s: dict[str, int], dtype: str, compiled: bool, checkpointing: bool, family: str | None
) -> tuple[torch.nn.Module, Step]:
    from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
    from fangcun.model import Transformer, initialize, recompute_blocks
    from fangcun.training import Compute, Objective, Parallel, build_optimizers, train_step
    from fangcun.training.cpu import samples_at_once, tune_allocator

    shape: dict[str, Any] = {
        "n_layer": s["L"],
        "n_head": s["H"],
        "n_embd": s["D"],
        "block_size": s["T"],
        "qk_norm": False,
    }
    if "HS" in s or family == "mistral":
        shape |= {"family": "mistral", "head_size": s.get("HS"), "intermediate_size": s.get("I", 344)}
    else:
        shape |= {
            "family": "gpt2",
            "norm_class": "LayerNorm",
            "norm_eps": 1e-5,
            "mlp_class": "GELU",
            "gelu_approximate": "none",
            "positions": "learned",
        }
    model = Transformer(resolve_model(ModelConfig(**shape, padding_multiple=1), vocab_size=s["V"]))
    initialize(model, 0)
    model.train()
    if checkpointing:
        recompute_blocks(model)
    optimizers = build_optimizers(model, OptimizerConfig(lr=4e-4))
    # As `fangcun pretrain` does on a CPU.
    tune_allocator(keep=not checkpointing)
    at_once = samples_at_once(model.config, s["B"], s["T"], torch.device("cpu"))
    objective = Objective(model)
    if compiled:
        objective.compile()
    parallel = Parallel(objective)
    precision = "bf16-mixed" if dtype == "bf16" else "32-true"
    compute = Compute(torch.device("cpu"), precision, compiled, torch.get_num_threads())
    parameters = list(model.parameters())

    def step(x: torch.Tensor, y: torch.Tensor) -> Any:
        return train_step(
            parallel, parameters, optimizers, x, y, rate=4e-4, micro_batch_size=at_once, max_norm=1.0, compute=compute
        )

    return model, step


def peer_step(
    impl: str, s: dict[str, int], dtype: str, compiled: bool, nanogpt: str | None
) -> tuple[torch.nn.Module, Step]:
    if impl == "nanogpt":
        sys.path.insert(0, nanogpt or "")
        from model import GPT, GPTConfig  # type: ignore[import-not-found]

        model = GPT(GPTConfig(block_size=s["T"], vocab_size=s["V"], n_layer=s["L"], n_head=s["H"], n_embd=s["D"], dropout=0.0, bias=False))  # fmt: skip
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return forward(x, y)[1]

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
            return chunked_cross_entropy(forward(x), y)

    else:
        from transformers import MistralConfig, MistralForCausalLM

        shape = {"vocab_size": s["V"], "hidden_size": s["D"], "intermediate_size": s.get("I", 344), "num_hidden_layers": s["L"], "num_attention_heads": s["H"], "num_key_value_heads": s["H"], "head_dim": s.get("HS", s["D"] // s["H"]), "max_position_embeddings": s["T"], "tie_word_embeddings": True, "sliding_window": None}  # fmt: skip
        model = MistralForCausalLM(MistralConfig(**shape))
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1, betas=(0.9, 0.95))

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return forward(input_ids=x, labels=x, use_cache=False).loss  # it shifts inside

    model.train()
    forward = torch.compile(model) if compiled else model
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        with cast:
            loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model, step


def timed(step: Step, batch: torch.Tensor) -> float:
    """Seconds of one step on a batch of (B, T + 1) ids."""
    started = time.perf_counter()
    step(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
    return time.perf_counter() - started


def trainer_times(model: Any, data: torch.Tensor, args: argparse.Namespace) -> list[float]:
    """Seconds of each step of transformers' Trainer over `data`, as it comes, without saving and reporting."""
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments

    rows = [{"input_ids": row[:-1], "labels": row[:-1]} for batch in data for row in batch]
    ends = [time.perf_counter()]

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(output_dir=folder, per_device_train_batch_size=data.shape[1], max_steps=len(data), logging_steps=10**6, save_strategy="no", report_to=[], bf16=args.dtype == "bf16", use_cpu=True, torch_compile=args.compile, disable_tqdm=True)  # fmt: skip
        Trainer(model=model, args=settings, train_dataset=rows, callbacks=[Clock()]).train()
    return [end - start for start, end in itertools.pairwise(ends)]


def products_of(args: argparse.Namespace, s: dict[str, int]) -> dict[str, int]:
    """The shape with the MLP of the model that ran: litgpt's and transformers' have three matrices."""
    gated = args.impl in ("litgpt", "hf-mistral", "hf-trainer") or args.family == "mistral"
    return {"I": 344, **s} if gated else s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", required=True, choices=["fangcun", "nanogpt", "litgpt", "hf-mistral", "hf-trainer"])
    parser.add_argument("--shape", required=True, choices=sorted(SHAPES))
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nanogpt", help="clone of nanoGPT")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpointing", action="store_true", help="Fangcun: train.activation_checkpointing")
    parser.add_argument("--family", choices=["gpt2", "mistral"], help="Fangcun's kind of model at shapes a and b")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    s = SHAPES[args.shape]
    data = torch.randint(0, s["V"], (args.steps + args.warmup, s["B"], s["T"] + 1))
    if args.impl == "fangcun":
        model, step = fangcun_step(s, args.dtype, args.compile, args.checkpointing, args.family)
    else:
        model, step = peer_step(args.impl, s, args.dtype, args.compile, args.nanogpt)
    began = time.perf_counter()
    times = trainer_times(model, data, args) if args.impl == "hf-trainer" else [timed(step, batch) for batch in data]
    setup = time.perf_counter() - began - sum(times[args.warmup :])
    memory = peak_memory_mib()  # before the bare products, which have memory of their own
    median = statistics.median(times[args.warmup :])
    ceiling = product_seconds(products_of(args, s), torch.bfloat16 if args.dtype == "bf16" else torch.float32)
    n_parameters = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    report(
        {"impl": args.impl, "shape": args.shape, "dtype": args.dtype, "compile": args.compile,
         "checkpointing": args.checkpointing, "parameters": n_parameters,
         "step_ms": round(median * 1e3, 1), "tokens_per_second": round(s["B"] * s["T"] / median),
         "warmup_s": round(setup, 1), "peak_memory_mib": memory, "products_ms": round(ceiling * 1e3, 1),
         "share_of_ceiling": round(ceiling / median, 3), "ref_gflops": reference_gflops()}
    )  # fmt: skip


if __name__ == "__main__":
    main()
