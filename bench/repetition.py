"""What sampling settings do to free samples: how many loop, how varied they are, and how far they are from real text.

    python bench/repetition.py RUN [--samples 64] [--max-new-tokens 256]

The prompts are openings of the run's validation documents. Beside loops and distinct-4 of characters (fangcun.evaluation.
repetition) stand two distances from the validation text itself, both 0 for text of its own kind: `unigrams`, half the sum
of differences between the shares of characters (a penalty that makes commas and function words rare shows here), and
`strange`, the share of character 4-grams that stand nowhere in the run's corpus. One JSON line a setting, the real text last.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from pathlib import Path

import torch
from common import report

import fangcun
from fangcun.corpus.shards import read_shards
from fangcun.evaluation.repetition import describe_samples
from fangcun.generation import SamplingSettings
from fangcun.generation.memory import Memory

SETTINGS = {
    "greedy": SamplingSettings(0.0),
    "temperature 0.5": SamplingSettings(0.5),
    "temperature 0.8, top-k 50": SamplingSettings(),
    "temperature 0.8, top-p 0.95": SamplingSettings(0.8, None, 0.95),
    "temperature 0.8, min-p 0.05": SamplingSettings(0.8, None, min_p=0.05),
    "temperature 1, min-p 0.1": SamplingSettings(1.0, None, min_p=0.1),
    "temperature 1, min-p 0.05": SamplingSettings(1.0, None, min_p=0.05),
    "temperature 1": SamplingSettings(1.0, None),
}
RULES = {
    "": {},
    " + penalty 1.05": {"repetition_penalty": 1.05},
    " + penalty 1.1": {"repetition_penalty": 1.1},
    " + penalty 1.3": {"repetition_penalty": 1.3},
    " + frequency 0.2": {"frequency_penalty": 0.2},
    " + presence 0.5": {"presence_penalty": 0.5},
    " + no 8-gram twice": {"no_repeat_ngram": 8},
    " + no 12-gram twice": {"no_repeat_ngram": 12},
    " + no 4-gram twice": {"no_repeat_ngram": 4},
}


def unigrams(texts: list[str]) -> dict[str, float]:
    counts = Counter("".join(texts))
    total = sum(counts.values())
    return {character: count / total for character, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument(
        "--only", nargs="*", help="settings to try; default: all without rules, and two with every rule"
    )
    args = parser.parse_args()
    torch.set_num_threads(2)
    lm = fangcun.load(args.run, device="cpu")
    val = [document.text for document in read_shards(sorted((args.run / "corpus").glob("val-*")))]
    train = [document.text for document in read_shards(sorted((args.run / "corpus").glob("train-*")))]
    whole = "\n".join(val)
    length = len(whole) // args.samples
    pieces = [whole[i * length : i * length + 600] for i in range(args.samples)]
    prompts = [piece[:20] for piece in pieces]
    known: set[str] = set()
    for text in (*train, *val):
        known.update(text[i : i + 4] for i in range(len(text) - 3))
    real = unigrams(val)

    def line(name: str, texts: list[str]) -> None:
        found = describe_samples(texts)
        shares = unigrams(texts)
        grams = [text[i : i + 4] for text in texts for i in range(len(text) - 3)]
        report(
            {"setting": name, "loop_share": round(found["loop_share"], 3), "distinct_4": round(found["distinct_4"], 3),
             "unigrams": round(sum(abs(real.get(c, 0) - shares.get(c, 0)) for c in {*real, *shares}) / 2, 3),
             "strange": round(sum(gram not in known for gram in grams) / len(grams), 3),
             "mean_characters": round(found["mean_characters"])}
        )  # fmt: skip

    ruled = ("greedy", "temperature 0.8, top-k 50", "temperature 0.5")
    for name, settings in SETTINGS.items():
        for rule, changes in RULES.items():
            label = name + rule
            if (args.only and label not in args.only) or (not args.only and rule and name not in ruled):
                continue
            changed = dataclasses.replace(settings, **changes)
            line(label, lm.generate_batch(prompts, changed, max_new_tokens=args.max_new_tokens, seed=1))
    for rule in (" + no 4-gram twice", " + no 8-gram twice", " + no 12-gram twice"):
        forbidden = total = 0
        for text in val[:2000]:
            ids = lm.tokenizer.encode(text)
            memory = Memory(SamplingSettings(**RULES[rule]), [])
            for index in ids:
                forbidden += bool(memory.apply(torch.zeros(lm.tokenizer.vocab_size))[index] < 0)
                memory.add(index)
            total += len(ids)
        report({"validation text" + rule: f"{forbidden} of {total} tokens would be forbidden"})
    line("the validation text", [piece[20 : 20 + length] for piece in pieces])


if __name__ == "__main__":
    main()
