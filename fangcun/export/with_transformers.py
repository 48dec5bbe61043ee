"""The side of transformers in `verify`, a process of its own: a job as JSON on standard input, findings into a file.

The rest of Fangcun never imports this.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Ids of the texts, logits of the prompts' last position, greedy continuations (the end included)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(job["threads"])
    tokenizer: Any = AutoTokenizer.from_pretrained(job["path"])
    model: Any = AutoModelForCausalLM.from_pretrained(job["path"], dtype=torch.float32).eval()
    logits, continuations = [], []
    rows, ends = job["vocab_size"], set(job["end_ids"])
    with torch.no_grad():
        for prompt, room in zip(job["prompts"], job["rooms"], strict=True):
            ids: list[int] = list(prompt)
            for step in range(room):
                last = model(torch.tensor([ids])).logits[0, -1, :rows].float()
                if step == 0:
                    logits.append(last.tolist())
                ids.append(int(last.argmax()))
                if ids[-1] in ends:
                    break
            continuations.append(ids[len(prompt) :])
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in job["texts"]]
    return {"ids": texts, "logits": logits, "continuations": continuations}


if __name__ == "__main__":
    task = json.load(sys.stdin)
    with open(task["answer"], "w", encoding="utf-8") as file:
        json.dump(work(task), file)
