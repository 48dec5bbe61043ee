"""Evaluation and samples during training, shared out over the ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fangcun.config import Recipe
from fangcun.evaluation import evaluate_windows
from fangcun.evaluation.repetition import describe_samples
from fangcun.evaluation.samples import Sample, write_sample
from fangcun.generation import LanguageModel, SamplingSettings
from fangcun.model import Transformer, attention_logit_max, find_documents, model_of
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import TokenSplit, Window, fetch_windows, fixed_windows
from fangcun.training.checkpoint import Progress
from fangcun.training.parallel import Parallel, whole_state
from fangcun.training.precision import Compute
from fangcun.training.reporter import Reporter
from fangcun.training.step import seed_of


class Evaluator:
    """Measures the model on fixed windows of both splits, and lets it write."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        model: Transformer,
        parallel: Parallel,
        compute: Compute,
        tokenizer: Tokenizer,
        train: TokenSplit,
        val: TokenSplit,
        n_windows: int,
        block_size: int,
        prompts: list[str],
        reporter: Reporter,
        pause: Callable[[], None],
    ) -> None:
        """pause: called between the pieces of the work; what it raises ends it."""
        # What is measured is what computes.
        self.model = model if parallel.low is None else parallel.low.model
        self.recipe, self.parallel, self.compute = recipe, parallel, compute
        self.tokenizer, self.train_split, self.val_split = tokenizer, train, val
        self.n_windows, self.block_size, self.prompts = n_windows, block_size, prompts
        self.reporter, self.pause = reporter, pause
        self.token_bytes = torch.tensor(tokenizer.token_bytes(), dtype=torch.int64)
        self.train_windows = fixed_windows(train, block_size, n_windows)
        self.val_windows = fixed_windows(val, block_size, n_windows)

    def evaluate(self, progress: Progress) -> bool:
        """Loss on fixed windows of both splits; True when that of the validation split is the best so far."""
        record: dict[str, Any] = {"kind": "eval", "step": progress.step, "tokens": progress.tokens}
        record |= {f"train_{k}": v for k, v in self._measure(self.train_split, self.train_windows).items()}
        improved = False
        if self.val_windows:
            record |= {f"val_{k}": v for k, v in self._measure(self.val_split, self.val_windows).items()}
            loss = progress.val_loss = record["val_loss"]
            if loss is not None and (progress.best_val_loss is None or loss < progress.best_val_loss):
                progress.best_val_loss, improved = loss, True
        if not self.parallel.sharded:  # it wants the whole model
            ids = fetch_windows(self.train_split, self.train_windows[:1])[0].to(self.compute.device)
            documents = find_documents(ids, self.train_split.eos_id) if self.recipe.train.document_mask else None
            record["attention_logit_max"] = attention_logit_max(
                self.model, ids, forward=lambda ids: self.model.hidden(ids, documents=documents)
            )
        self.reporter.record(record | {"seconds": progress.seconds})
        self._say("eval", record)
        return improved

    def evaluate_finally(self, progress: Progress) -> None:
        """Loss on all of the validation split, or on as much of it as the recipe says."""
        limit = self.recipe.eval.final_max_iters
        count = None if limit is None else limit * self.n_windows // self.recipe.eval.max_iters
        windows = fixed_windows(self.val_split, self.block_size, count)
        if not windows:
            return
        record: dict[str, Any] = {"kind": "final", "step": progress.step, "tokens": progress.tokens}
        record |= {f"val_{k}": v for k, v in self._measure(self.val_split, windows).items()}
        by_source = self._by_source()
        for name, measured in by_source.items():
            record |= {f"val_{name}_{k}": measured[k] for k in ("loss", "bits_per_byte")}
        self.reporter.record(record | {"seconds": progress.seconds})
        self._say("final", record)
        for name, measured in by_source.items():
            bits = "" if measured["bits_per_byte"] is None else f", {measured['bits_per_byte']:.4f} bits/byte"
            self.reporter.say(f"  {name}: val loss {measured['loss']:.4f}{bits}")

    def _by_source(self) -> dict[str, dict[str, Any]]:
        """Each named source by itself, on as many windows as an evaluation in between has."""
        found = {
            name: fixed_windows(self.val_split, self.block_size, self.n_windows, source=name)
            for name in self.val_split.sources
        }
        return {name: self._measure(self.val_split, windows) for name, windows in found.items() if windows}

    def _measure(self, split: TokenSplit, windows: list[Window]) -> dict[str, Any]:
        result = evaluate_windows(
            self.model,
            split,
            windows,
            batch_size=self.recipe.train.micro_batch_size,
            token_bytes=self.token_bytes,
            device=self.compute.device,
            autocast=self.compute.autocast(),
            before_batch=self.pause,
            peers=self.parallel.ranks,
            document_mask=self.recipe.train.document_mask,
            loss_sum=self.parallel.objective if self.parallel.sharded else None,
        )
        return {
            "loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte,
            "comparable": result.comparable,
        }

    def _say(self, label: str, record: dict[str, Any]) -> None:
        parts = [f"{label} at step {record['step']}:"]
        for split in ("train", "val"):
            if record.get(f"{split}_loss") is not None:
                bits = record[f"{split}_bits_per_byte"]
                mark = "" if record[f"{split}_comparable"] else " (not comparable)"
                bits_text = f", {bits:.4f} bits/byte{mark}" if bits is not None else ""
                parts.append(f"{split} loss {record[f'{split}_loss']:.4f}{bits_text}")
        self.reporter.say("  ".join(parts))

    def write_samples(self, progress: Progress) -> None:
        """Each rank continues some of the prompts; the first one records them all."""
        if not self.prompts:
            return
        writer = LanguageModel(self._whole_model(), self.tokenizer)
        numbered = self.parallel.ranks.share(list(enumerate(self.prompts)))
        written = [(number, self._continue(writer, progress.step, number, prompt)) for number, prompt in numbered]
        gathered = sorted((n, sample) for part in self.parallel.ranks.gather(written) for n, sample in part)
        for number, sample in gathered:
            self.reporter.sample(progress.step, number, sample.prompt, sample.text)
        record: dict[str, Any] = {"kind": "samples", "step": progress.step, "tokens": progress.tokens}
        record |= describe_samples([sample.text for _, sample in gathered], [sample.ended for _, sample in gathered])
        self.reporter.record(record | {"seconds": progress.seconds})
        self.model.train()

    def _continue(self, writer: LanguageModel, step: int, number: int, prompt: str) -> Sample:
        config = self.recipe.samples
        return write_sample(
            writer,
            prompt,
            SamplingSettings(config.temperature, config.top_k, config.top_p, config.repetition_penalty),
            max_new_tokens=config.max_new_tokens,
            seed=seed_of(self.recipe.seed, "sample", step, number),
            pause=self.pause,
        )

    def _whole_model(self) -> Transformer:
        """The model itself, or a whole copy of a sharded one, which a rank can run alone."""
        if not self.parallel.sharded:
            return self.model
        device = self.compute.device
        state = whole_state(self.model, everywhere=True)
        return model_of(self.model.config, {name: tensor.to(device) for name, tensor in state.items()}, device)
