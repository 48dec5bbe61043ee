"""How much of the training time a checkpoint costs, at the 44M shape, in the background and waiting.

    python bench/checkpoint_stall.py [--steps 30] [--every 100]

Trains with one save in the middle, and compares the sum of the step times (save included) with as many median steps of
the time before it. The difference is what one save costs; the share is for one save every `--every` steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import report
from train_step import SHAPES

from fangcun.config import CheckpointConfig, ModelConfig, OptimizerConfig, TokenizerConfig, resolve_model
from fangcun.corpus import build_corpus
from fangcun.model import Transformer, initialize
from fangcun.tokenizer import Tokenizer, build_tokenizer
from fangcun.training import Compute, Objective, Parallel, Progress, build_optimizers, train_step
from fangcun.training.cpu import samples_at_once, tune_allocator
from fangcun.training.saving import Saver


def some_tokenizer(folder: Path) -> Tokenizer:
    from fangcun.config import CorpusConfig

    build_corpus(CorpusConfig(builtin="sanguo"), folder / "corpus")
    build_tokenizer(TokenizerConfig(kind="char"), folder / "corpus", folder / "tokenizer")
    return Tokenizer.load(folder / "tokenizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--every", type=int, default=100)
    args = parser.parse_args()
    tune_allocator(keep=True)
    s, cpu = SHAPES["c"], torch.device("cpu")
    config = resolve_model(
        ModelConfig(
            family="mistral", qk_norm=False, n_layer=s["L"], n_head=s["H"], n_embd=s["D"], block_size=s["T"],
            head_size=s["HS"], intermediate_size=s["I"], padding_multiple=1,
        ),
        vocab_size=s["V"],
    )  # fmt: skip
    model = Transformer(config)
    initialize(model, 0)
    parallel, optimizers = Parallel(Objective(model)), build_optimizers(model, OptimizerConfig())
    compute = Compute(cpu, "32-true", False, torch.get_num_threads())
    at_once = samples_at_once(config, s["B"], s["T"], cpu)

    def timed_step() -> float:
        ids = torch.randint(0, s["V"], (s["B"], s["T"] + 1))
        started = time.perf_counter()
        train_step(
            parallel, list(model.parameters()), optimizers, ids[:, :-1].contiguous(), ids[:, 1:].contiguous(),
            rate=1e-4, micro_batch_size=at_once, max_norm=1.0, compute=compute,
        )  # fmt: skip
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as work:
        tokenizer = some_tokenizer(Path(work))
        for background in (True, False):
            saver = Saver(
                Path(work) / f"run-{background}", model=model, optimizers=optimizers, tokenizer=tokenizer, settings={},
                parents={}, config=CheckpointConfig(background=background), parallel=parallel,
            )  # fmt: skip
            saver.run.mkdir()
            timed_step()
            before = [timed_step() for _ in range(args.steps // 2)]
            median = statistics.median(before)
            started = time.perf_counter()
            saver.save(Progress(step=1, settled=True))
            held = time.perf_counter() - started
            after = [timed_step() for _ in range(args.steps // 2)]
            saver.wait()
            cost = held + sum(after) - median * len(after)
            report(
                {"background": background, "median_step_seconds": round(median, 3), "held_seconds": round(held, 3),
                 "cost_seconds": round(cost, 3), f"share_at_one_save_in_{args.every}_steps": round(cost / (args.every * median), 4)}
            )  # fmt: skip


if __name__ == "__main__":
    main()
