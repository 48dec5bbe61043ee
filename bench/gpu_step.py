"""Training steps of one program on one NVIDIA GPU: tokens/s and the share of the device's peak (MFU), batches in memory.

    python bench/gpu_step.py --impl fangcun|nanogpt|litgpt --shape 124m|44m [--batch 32] [--eager] [--fp8] [--peak 989e12]

124m is GPT-2 (block 1,024, vocabulary 50,304), 44m is shape c of train_step.py. bf16 over float32 weights, compiled, clip
at 1.0, AdamW; nanogpt needs --nanogpt CLONE and has no 44m. FLOPs of a token as nanoGPT counts them: 6 N + 12 L H Q T, N
without learned positions. `--device cpu --tiny` runs the same code small, to see that it runs. One JSON line on stdout.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import report
from torch import Tensor, nn

SHAPES = {
    "124m": {"L": 12, "H": 12, "D": 768, "T": 1024, "V": 50304},
    "44m": {"L": 6, "H": 6, "D": 512, "T": 512, "V": 65024, "HS": 48, "I": 768},
}
PEAKS = {"H200": 989e12, "H100": 989e12}
"""Dense bf16 FLOP/s of the SXM cards by what their names contain, from the maker's data sheet."""
Step = Callable[[Tensor, Tensor], Any]


def fangcun_step(s: dict[str, int], device: torch.device, compiled: bool, fp8: bool) -> tuple[nn.Module, Step]:
    from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
    from fangcun.model import Transformer, initialize
    from fangcun.training import Compute, Ranks, build_optimizers, spread, train_step

    shape: dict[str, Any] = {"n_layer": s["L"], "n_head": s["H"], "n_embd": s["D"], "block_size": s["T"], "qk_norm": False}  # fmt: skip
    if "HS" in s:
        shape |= {"family": "mistral", "head_size": s["HS"], "intermediate_size": s["I"]}
    else:
        shape |= {"family": "gpt2", "norm_class": "LayerNorm", "norm_eps": 1e-5, "mlp_class": "GELU", "gelu_approximate": "none", "positions": "learned"}  # fmt: skip
    model = Transformer(resolve_model(ModelConfig(**shape, padding_multiple=1), vocab_size=s["V"]))
    initialize(model, 0)
    model.to(device).train()
    if fp8:
        from fangcun.training.float8 import check_float8, use_float8

        check_float8(device)
        use_float8(model)
    compute = Compute(device, "fp8-mixed" if fp8 else "bf16-mixed", compiled, torch.get_num_threads())
    parallel = spread(model, compute, Ranks(), "ddp")
    optimizers, parameters = build_optimizers(model, OptimizerConfig(lr=6e-4)), list(model.parameters())

    def step(x: Tensor, y: Tensor) -> Any:
        return train_step(
            parallel, parameters, optimizers, x, y, rate=6e-4, micro_batch_size=len(x), max_norm=1.0, compute=compute
        )

    return model, step


def peer_step(
    impl: str, s: dict[str, int], device: torch.device, compiled: bool, nanogpt: str
) -> tuple[nn.Module, Step]:
    if impl == "nanogpt":
        sys.path.insert(0, nanogpt)
        from model import GPT, GPTConfig  # type: ignore[import-not-found]

        model = GPT(GPTConfig(block_size=s["T"], vocab_size=s["V"], n_layer=s["L"], n_head=s["H"], n_embd=s["D"], dropout=0.0, bias=False)).to(device)  # fmt: skip
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.type)

        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            return forward(x, y)[1]

    else:
        from litgpt import GPT, Config  # type: ignore[import-not-found]
        from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

        shape: dict[str, Any] = {"name": "x", "block_size": s["T"], "n_layer": s["L"], "n_head": s["H"], "n_embd": s["D"], "vocab_size": s["V"], "padded_vocab_size": s["V"], "rotary_percentage": 1.0, "parallel_residual": False, "bias": False, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "intermediate_size": s["I"], "n_query_groups": s["H"], "head_size": s["HS"]}  # fmt: skip
        model = GPT(Config(**shape))
        model.lm_head.weight = model.transformer.wte.weight
        model.max_seq_length = s["T"]
        model.to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.1, betas=(0.9, 0.95), fused=True)

        def loss_of(x: Tensor, y: Tensor) -> Tensor:
            return chunked_cross_entropy(forward(x), y)

    model.train()
    forward = torch.compile(model) if compiled else model

    def step(x: Tensor, y: Tensor) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = loss_of(x.to(device, non_blocking=True), y.to(device, non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model, step


def flops_of_token(model: nn.Module, s: dict[str, int]) -> int:
    """Forward and backward FLOPs of a token, by nanoGPT's formula, whatever the program."""
    n = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    learned = s["T"] * s["D"] if "HS" not in s else 0
    head = s.get("HS", s["D"] // s["H"])
    return 6 * (n - learned) + 12 * s["L"] * s["H"] * head * s["T"]


def find_peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", default="fangcun", choices=["fangcun", "nanogpt", "litgpt"])
    parser.add_argument("--shape", default="124m", choices=sorted(SHAPES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--fp8", action="store_true", help="fangcun with precision fp8-mixed (wants torchao)")
    parser.add_argument("--tiny", action="store_true", help="2 layers, 16 wide a head, block 32, vocabulary 100")
    parser.add_argument("--peak", type=float, help="the device's dense bf16 FLOP/s, where its name is not known here")
    parser.add_argument("--nanogpt", help="clone of nanoGPT")
    args = parser.parse_args()
    if args.impl == "nanogpt" and (args.shape != "124m" or not args.nanogpt):
        parser.error("nanogpt: expected --shape 124m and --nanogpt CLONE.")
    if args.impl == "litgpt" and args.shape != "44m":
        parser.error("litgpt: expected --shape 44m.")
    torch.manual_seed(0)
    device, s = torch.device(args.device), dict(SHAPES[args.shape])
    if args.tiny:
        s |= {"L": 2, "H": 2, "D": 32, "T": 32, "V": 100} | ({"HS": 16, "I": 48} if "HS" in s else {})
    if args.impl == "fangcun":
        model, step = fangcun_step(s, device, not args.eager, args.fp8)
    else:
        model, step = peer_step(args.impl, s, device, not args.eager, args.nanogpt or "")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times, began = [], time.perf_counter()
    for number in range(args.warmup + args.steps):
        ids = torch.randint(0, s["V"], (args.batch, s["T"] + 1))
        x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        if device.type == "cuda":
            x, y = x.pin_memory(), y.pin_memory()
        if number == args.warmup:
            warmup_s = time.perf_counter() - began
        wait()
        started = time.perf_counter()
        step(x, y)
        wait()
        times.append(time.perf_counter() - started)
    median = statistics.median(times[args.warmup :])
    rate, peak = args.batch * s["T"] / median, args.peak or find_peak(device)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    report(
        {"impl": args.impl, "shape": args.shape, "tiny": args.tiny, "batch": args.batch, "compile": not args.eager,
         "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type, "torch": torch.__version__,
         "step_ms": round(median * 1e3, 2), "tokens_per_second": round(rate), "warmup_s": round(warmup_s, 1),
         "mfu": round(flops_of_token(model, s) * rate / peak, 4) if peak else None, "peak_flops": peak,
         "peak_memory_mib": None if memory is None else round(memory / 2**20)}
    )  # fmt: skip


if __name__ == "__main__":
    main()
