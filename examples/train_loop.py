"""The whole training loop in one screenful, to step through and to change.

    fangcun pack demo --out runs/demo          # text -> corpus, tokenizer, tokens
    python examples/train_loop.py runs/demo    # tokens -> a model in runs/demo-loop

It is what `fangcun pretrain` does, less the resuming, the logs and the guards. Everything comes from the package's public
parts, so any of them can be swapped for your own: another model, another optimizer, another order of the data.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
from fangcun.evaluation import evaluate_windows
from fangcun.generation import LanguageModel
from fangcun.model import Transformer, cross_entropy_sum, initialize, save_model
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import Batches, fixed_windows, open_split
from fangcun.training import build_optimizers, learning_rate, set_learning_rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder that holds tokenizer/ and tokens/")
    parser.add_argument("--out", type=Path, help="folder for the model (default: <run>-loop)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16, help="windows of one optimizer step")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="windows of one forward pass")
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()

    # ---- data: one stream of tokens, cut into windows; sample i is a function of (seed, i)
    tokenizer = Tokenizer.load(args.run / "tokenizer")
    train, val = open_split(args.run / "tokens", "train"), open_split(args.run / "tokens", "val")
    batches = Batches(train, args.block_size, args.seed)
    val_windows = fixed_windows(val, args.block_size, 32)
    token_bytes = torch.tensor(tokenizer.token_bytes())

    # ---- model: weights drawn on the CPU from the seed, by parameter name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = resolve_model(
        ModelConfig(block_size=args.block_size, n_layer=args.layers, n_head=4, n_embd=args.width),
        vocab_size=tokenizer.vocab_size,
    )
    model = Transformer(config)
    initialize(model, args.seed)
    model.to(device).train()

    # ---- optimizer: AdamW, decay on the matrices alone
    optimizers = build_optimizers(model, OptimizerConfig(lr=args.lr))
    warmup_steps = min(100, args.steps // 10)

    def validate(step: int) -> None:
        result = evaluate_windows(
            model, val, val_windows, batch_size=args.micro_batch_size, token_bytes=token_bytes, device=device
        )
        bits = result.bits_per_byte if result.bits_per_byte is not None else math.nan
        print(f"step {step}: validation loss {result.loss:.4f}, {bits:.4f} bits per byte")

    validate(0)
    started = time.perf_counter()
    for step in range(args.steps):
        inputs, targets = batches.fetch(step * args.batch_size, args.batch_size)
        n_targets = int((targets != -100).sum())
        loss_sum = 0.0
        for i in range(0, args.batch_size, args.micro_batch_size):
            x = inputs[i : i + args.micro_batch_size].to(device)
            y = targets[i : i + args.micro_batch_size].to(device)
            micro_sum, _ = cross_entropy_sum(model(x), y)
            # Sum over the whole step, divided by all its targets: a mean of micro-batch means would weigh them wrongly.
            (micro_sum / n_targets).backward()
            loss_sum += micro_sum.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_learning_rate(
            optimizers,
            learning_rate(
                step,
                schedule="cosine",
                peak=args.lr,
                minimum=args.lr / 10,
                warmup_steps=warmup_steps,
                decay_steps=args.steps,
            ),
        )
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 20 == 0:
            speed = (step + 1) * args.batch_size * args.block_size / (time.perf_counter() - started)
            print(f"step {step + 1}: loss {loss_sum / n_targets:.4f}, {speed:,.0f} tokens/s")
    validate(args.steps)

    # ---- the result: a folder that transformers and Fangcun open
    out = args.out or args.run.with_name(args.run.name + "-loop")
    out.mkdir(parents=True, exist_ok=True)
    save_model(model, out, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id)
    tokenizer.save(out)
    opening = tokenizer.decode(val.read(0, min(8, val.n_tokens)).tolist())
    print(opening + "▸" + LanguageModel(model, tokenizer).generate(opening, max_new_tokens=40, seed=args.seed))
    print(f"saved to {out}: try  fangcun generate {out} --prompt {opening!r}")


if __name__ == "__main__":
    main()
