"""Generation speed of one program: random weights of the 44M shape, prompt 16, 256 new tokens, greedy, batch 1.

    python bench/generation.py --impl fangcun [--dtype bf16] [--repeats 3]
    python bench/generation.py --make FOLDER --tokenizer QWEN2/tokenizer.json    (then: fangcun export FOLDER --to gguf …)
    python bench/generation.py --impl llama.cpp --gguf FILE

--impl: fangcun (as `fangcun.load` opens a model: matrices packed for the CPU; fangcun-plain: without), litgpt, hf-mistral,
nanogpt (a GPT of like size; needs --nanogpt CLONE; it has no cache), llama.cpp (a GGUF file of the same shape, through
xllamacpp). Tokens/s are 256 over the median wall time of a call, prefill included; weights are cast to the dtype. int8 and
int4 are Fangcun's alone. --make writes the model with a tokenizer of 65,024 ids cut from a larger one, for the export.
`read_gbs` is what summing a 256 MiB tensor reads in this process: with `weights_mib` it gives the limit that memory sets.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import peak_memory_mib, reference_gflops, report

P, N, V = 16, 256, 65024


def make(
    impl: str, dtype: torch.dtype, nanogpt: str | None, quantized: Any = None, gguf: str | None = None
) -> Callable[[torch.Tensor], Any]:
    if impl in ("fangcun", "fangcun-plain"):
        from fangcun.config import ModelConfig, resolve_model
        from fangcun.generation import generate_ids
        from fangcun.model import Transformer, initialize

        shape = ModelConfig(family="mistral", block_size=512, n_layer=6, n_head=6, head_size=48, n_embd=512, intermediate_size=768, qk_norm=False)  # fmt: skip
        model = Transformer(resolve_model(shape, vocab_size=V))
        initialize(model, 0)
        model = model.to(dtype).eval()
        if impl == "fangcun":
            from fangcun.model.packed import pack

            pack(model, quantized or "float")

        def go(x: torch.Tensor) -> Any:
            out = generate_ids(model, x[0].tolist(), vocab_size=V, end_id=-1, max_new_tokens=N, temperature=0.0, top_k=None, top_p=1.0, repetition_penalty=1.0, seed=0)  # fmt: skip
            assert len(out) == N, len(out)
            return out

        return go
    if impl == "llama.cpp":
        import xllamacpp  # type: ignore[import-not-found]

        from fangcun.export.with_llama_cpp import ask

        params = xllamacpp.CommonParams()  # its own defaults: a float16 cache, flash attention where it pays
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = gguf or "", 512, 1, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        server = xllamacpp.Server(params)

        def write(x: torch.Tensor) -> Any:
            asked = {
                "prompt": x[0].tolist(),
                "n_predict": N,
                "temperature": 0.0,
                "ignore_eos": True,
                "cache_prompt": False,
            }
            out = ask(server, "/completion", asked)
            assert out["tokens_predicted"] == N, out
            return out

        return write
    if impl == "litgpt":
        from litgpt import GPT, Config  # type: ignore[import-not-found]
        from litgpt.generate.base import generate  # type: ignore[import-not-found]

        model = GPT(Config(name="x", block_size=512, n_layer=6, n_head=6, n_query_groups=6, head_size=48, n_embd=512, padded_vocab_size=V, vocab_size=V, rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", intermediate_size=768))  # fmt: skip
        model.lm_head.weight = model.transformer.wte.weight
        model = model.to(dtype).eval()
        model.max_seq_length = P + N
        model.set_kv_cache(batch_size=1, dtype=dtype)
        return lambda x: generate(model, x[0], P + N, temperature=0.0, top_k=1)
    if impl == "nanogpt":
        sys.path.insert(0, nanogpt or "")
        from model import GPT as NanoGPT  # type: ignore[import-not-found]
        from model import GPTConfig

        model = NanoGPT(GPTConfig(block_size=512, vocab_size=V, n_layer=6, n_head=8, n_embd=512, dropout=0.0, bias=False)).to(dtype).eval()  # fmt: skip

        def sample(x: torch.Tensor) -> Any:
            with torch.no_grad():
                return model.generate(x, N, top_k=1)

        return sample
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(vocab_size=V, hidden_size=512, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=6, head_dim=48, max_position_embeddings=512, tie_word_embeddings=True, sliding_window=None)).to(dtype).eval()  # fmt: skip
    return lambda x: model.generate(input_ids=x, attention_mask=torch.ones_like(x), max_new_tokens=N, min_new_tokens=N, do_sample=False, pad_token_id=0)  # fmt: skip


def read_gbs(repeats: int = 9) -> float:
    """GB/s at which this process reads 256 MiB of memory, median."""
    large = torch.ones(1 << 26)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        large.sum()
        times.append(time.perf_counter() - started)
    return round(large.nbytes / statistics.median(times) / 1e9, 1)


def write_folder(folder: Path, tokenizer: Path) -> None:
    """The model in float32 as a Hugging Face folder, with the first ids of a byte-level BPE tokenizer."""
    from fangcun.config import ModelConfig, resolve_model
    from fangcun.model import Transformer, initialize, save_model

    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    vocabulary = {token: index for token, index in content["model"]["vocab"].items() if index < V - 1}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in content["model"]["merges"]]
    content["model"]["vocab"] = vocabulary
    content["model"]["merges"] = [
        pair for pair in pairs if "".join(pair) in vocabulary and all(p in vocabulary for p in pair)
    ]
    content["added_tokens"] = [
        {"id": V - 1, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ]  # fmt: skip
    shape = ModelConfig(family="mistral", block_size=512, n_layer=6, n_head=6, head_size=48, n_embd=512, intermediate_size=768, qk_norm=False)  # fmt: skip
    model = Transformer(resolve_model(shape, vocab_size=V))
    initialize(model, 0)
    save_model(model, folder, eos_id=V - 1)
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", choices=["fangcun", "fangcun-plain", "nanogpt", "litgpt", "hf-mistral", "llama.cpp"])
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "int8", "int4"])
    parser.add_argument("--gguf", help="file for llama.cpp")
    parser.add_argument("--make", help="write the model into this folder and end")
    parser.add_argument("--tokenizer", help="tokenizer.json to cut 65,024 ids from, for --make")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nanogpt", help="clone of nanoGPT")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x = torch.randint(0, V, (1, P))
    if args.make:
        write_folder(Path(args.make), Path(args.tokenizer))
        return
    quantized = args.dtype if args.dtype.startswith("int") else None
    go = make(args.impl, torch.bfloat16 if args.dtype == "bf16" else torch.float32, args.nanogpt, quantized, args.gguf)
    reference = reference_gflops()
    go(x)
    times = []
    for _ in range(args.repeats):
        started = time.perf_counter()
        go(x)
        times.append(time.perf_counter() - started)
    report(
        {"impl": args.impl, "shape": "generation", "dtype": args.dtype, "tokens_per_second": round(N / statistics.median(times), 1),
         "peak_memory_mib": peak_memory_mib(), "ref_gflops": reference, "read_gbs": read_gbs()}
    )  # fmt: skip


if __name__ == "__main__":
    main()
