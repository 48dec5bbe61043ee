"""The side of llama.cpp in `verify`, a process of its own: a job as JSON on standard input, findings into a file.

xllamacpp is llama.cpp's server in a package; it is asked over HTTP on the loopback. The cache is float32 and flash
attention is off, so that a float32 file is computed in float32 throughout.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any


def start(path: str, context_tokens: int, threads: int) -> Any:
    """A server on a free port of the loopback, for one request at a time."""
    import importlib

    xllamacpp: Any = importlib.import_module("xllamacpp")  # its package has no types

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.warmup = params.fit_params = False
    params.verbosity = 1
    return xllamacpp.Server(params)


def ask(server: Any, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """The JSON answer of a route."""
    request = urllib.request.Request(
        server.listening_address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=300) as answer:
        return json.load(answer)


def tokenize(server: Any, text: str) -> list[int]:
    """Ids of a text, nothing added, special tokens read as such."""
    body = {"content": text, "add_special": False, "parse_special": True}
    return list(ask(server, "/tokenize", body)["tokens"])


def log_probabilities(answer: dict[str, Any], vocab_size: int) -> list[float] | None:
    """Those of the first token written; None where the server tells none: it keeps back a token that ends inside a character."""
    told = answer.get("completion_probabilities")
    if not told or told[0]["id"] != answer["tokens"][0]:
        return None
    row = [float("-inf")] * vocab_size
    for entry in told[0]["top_logprobs"]:
        row[entry["id"]] = entry["logprob"]
    return row


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Ids of the texts, log-probabilities of the prompts' last position, greedy continuations (the end included)."""
    server = start(job["path"], job["context_tokens"], job["threads"])
    logits, continuations = [], []
    greedy = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "cache_prompt": False, "return_tokens": True}
    for prompt, room in zip(job["prompts"], job["rooms"], strict=True):
        first = ask(server, "/completion", {"prompt": prompt, "n_predict": 1, "n_probs": job["vocab_size"], **greedy})
        logits.append(log_probabilities(first, job["vocab_size"]))
        answer = ask(server, "/completion", {"prompt": prompt, "n_predict": room, **greedy})
        ids = list(answer["tokens"])
        if answer.get("stop_type") == "eos" and (not ids or ids[-1] not in job["end_ids"]):
            ids.append(job["end_ids"][0])
        continuations.append(ids)
    return {"ids": [tokenize(server, text) for text in job["texts"]], "logits": logits, "continuations": continuations}


if __name__ == "__main__":
    task = json.load(sys.stdin)
    findings = work(task)
    with open(task["answer"], "w", encoding="utf-8") as file:
        json.dump(findings, file)
