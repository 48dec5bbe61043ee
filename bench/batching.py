"""Sixteen requests of different lengths at once, random weights of the 44M shape, greedy: useful tokens/s of one program.

    python bench/batching.py --impl fangcun [--dtype bf16] [--repeats 3]

--impl: fangcun (`Engine`, 16 samples at a time), hf-mistral (`transformers.generate` on the batch padded on the left; every
row is written until the longest is done, for that is what it can do). Prompts have 8 to 128 tokens, 32 to 256 are wanted;
tokens/s are the sum of what was wanted over the median wall time, prefill included.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import peak_memory_mib, reference_gflops, report

V = 65024
_DRAW = random.Random(0)
PROMPTS = [[_DRAW.randrange(V - 1) for _ in range(_DRAW.randint(8, 128))] for _ in range(16)]
WANTED = [_DRAW.randint(32, 256) for _ in range(16)]


def make(impl: str, dtype: str) -> Callable[[], Any]:
    if impl == "fangcun":
        from fangcun.config import ModelConfig, resolve_model
        from fangcun.generation import Engine, LanguageModel, Request, SamplingSettings
        from fangcun.model import Transformer, initialize
        from fangcun.model.packed import pack

        shape = ModelConfig(family="mistral", block_size=512, n_layer=6, n_head=6, head_size=48, n_embd=512, intermediate_size=768, qk_norm=False)  # fmt: skip
        model = Transformer(resolve_model(shape, vocab_size=V))
        initialize(model, 0)
        model = pack(model.to(torch.bfloat16 if dtype == "bf16" else torch.float32).eval(), "int8" if dtype == "int8" else "float")  # fmt: skip

        class Words:
            vocab_size, eos_id, unk_id = V, -1, None

            def stream(self, context: Any = ()) -> Any:
                return self

            def push(self, index: int) -> str:
                return ""

            def flush(self) -> str:
                return ""

        lm = LanguageModel(model, Words())  # type: ignore[arg-type]

        def go() -> Any:
            engine = Engine(lm, max_batch=16)
            for prompt, wanted in zip(PROMPTS, WANTED, strict=True):
                engine.submit(Request(tuple(prompt), SamplingSettings(0.0), wanted), lambda event: None)
            while engine.running or engine.waiting:
                engine.turn()
            assert engine.totals.generated_tokens == sum(WANTED)

        return go
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import MistralConfig, MistralForCausalLM

    peer = MistralForCausalLM(MistralConfig(vocab_size=V, hidden_size=512, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=6, head_dim=48, max_position_embeddings=512, tie_word_embeddings=True, sliding_window=None)).to(torch.bfloat16 if dtype == "bf16" else torch.float32).eval()  # fmt: skip
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    return lambda: peer.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max(WANTED), min_new_tokens=max(WANTED), do_sample=False, pad_token_id=0)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", required=True, choices=["fangcun", "hf-mistral"])
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16", "int8"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    go = make(args.impl, args.dtype)
    reference = reference_gflops()
    go()
    times = []
    for _ in range(args.repeats):
        started = time.perf_counter()
        go()
        times.append(time.perf_counter() - started)
    report(
        {"impl": args.impl, "shape": "batch of 16", "dtype": args.dtype, "tokens_per_second": round(sum(WANTED) / statistics.median(times), 1),
         "peak_memory_mib": peak_memory_mib(), "ref_gflops": reference}
    )  # fmt: skip


if __name__ == "__main__":
    main()
