"""A server of the 44M shape (random weights, vocabulary 65,024) under many streaming clients: errors, memory, speed, fairness.

    python bench/serving.py [--clients 200] [--seconds 300] [--max-tokens 32] [--max-batch 16] [--dtype auto] [--warmup 15]

`fangcun serve` runs in a process of its own; every client asks anew as soon as its stream has ended, each time another
prompt of 16 to 48 tokens. Memory is the server's resident set, idle, after a warm-up of the same load and again at the
end. Time to first token: of single requests on the idle server, and of all under load. Fairness: the fewest tokens that a
client got over the most, counted up to the moment when the time is over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import report

V = 65024


def make_folder(folder: Path) -> None:
    """A Hugging Face folder of the 44M shape with a tokenizer of as many ids."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    from fangcun.config import ModelConfig, resolve_model
    from fangcun.model import Transformer, initialize, save_model
    from fangcun.tokenizer import Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    vocabulary |= {f"w{index}": index for index in range(256, V - 1)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    words = Tokenizer(backend)
    shape = ModelConfig(family="mistral", block_size=512, n_layer=6, n_head=6, head_size=48, n_embd=512, intermediate_size=768, qk_norm=False)  # fmt: skip
    model = Transformer(resolve_model(shape, vocab_size=V))
    initialize(model, 0)
    save_model(model, folder, eos_id=words.eos_id, pad_id=words.pad_id, bos_id=words.bos_id)
    words.save(folder)


@dataclass
class Client:
    """What one client saw."""

    tokens: int = 0
    requests: int = 0
    first_seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def ask(port: int, client: Client, draw: random.Random, max_tokens: int, until: float) -> None:
    """One streamed completion. Tokens count while the clock has not reached `until`."""
    prompt = [draw.randrange(V - 1) for _ in range(draw.randint(16, 48))]
    body = {
        "model": "bench",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "stream": True,
        "logprobs": 0,
        "temperature": 1,
    }
    data = json.dumps(body).encode()
    started, first = time.perf_counter(), True
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)  # fmt: skip
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(status.decode(errors="replace").strip())
        done = False
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(chunk["error"]["message"])
                if first:
                    client.first_seconds.append(time.perf_counter() - started)
                    first = False
                if time.perf_counter() < until:
                    client.tokens += sum(len(choice["logprobs"]["tokens"]) for choice in chunk["choices"])
        if not done:
            raise RuntimeError("the stream broke off")
        client.requests += 1
    except (OSError, RuntimeError, ValueError) as error:
        client.errors.append(f"{type(error).__name__}: {error}")
    finally:
        writer.close()


async def load(port: int, clients: int, seconds: float, max_tokens: int) -> list[Client]:
    """`clients` at once, each asking again and again for `seconds`."""
    until = time.perf_counter() + seconds

    async def one(number: int) -> Client:
        client, draw = Client(), random.Random(number)
        while time.perf_counter() < until:
            await ask(port, client, draw, max_tokens, until)
        return client

    return await asyncio.gather(*(one(number) for number in range(clients)))


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024, 1)  # type: ignore[index]


def measure(pid: int, port: int, args: argparse.Namespace) -> dict[str, Any]:
    """The record of one server."""

    async def idle() -> list[float]:
        client, draw = Client(), random.Random(-1)
        for _ in range(12):
            await ask(port, client, draw, 4, 0)
        assert not client.errors, client.errors
        return client.first_seconds[2:]

    at_start = resident_mib(pid)
    asyncio.run(load(port, args.clients, args.warmup, args.max_tokens))
    first_idle = statistics.median(asyncio.run(idle()))
    time.sleep(1)
    before = resident_mib(pid)
    started = time.perf_counter()
    clients = asyncio.run(load(port, args.clients, args.seconds, args.max_tokens))
    ended = time.perf_counter() - started
    time.sleep(1)
    after = resident_mib(pid)
    tokens = [client.tokens for client in clients]
    firsts = sorted(second for client in clients for second in client.first_seconds)
    errors = [error for client in clients for error in client.errors]
    return {
        "clients": args.clients, "seconds": args.seconds, "seconds_until_all_ended": round(ended, 1), "max_batch": args.max_batch,
        "dtype": args.dtype, "requests": sum(client.requests for client in clients), "errors": len(errors),
        "first_errors": errors[:3], "tokens_per_second": round(sum(tokens) / args.seconds, 1),
        "first_token_idle_ms": round(first_idle * 1e3, 1), "first_token_loaded_ms_p50": round(statistics.median(firsts) * 1e3, 1),
        "first_token_loaded_ms_p95": round(firsts[int(len(firsts) * 0.95)] * 1e3, 1),
        "tokens_a_client_min": min(tokens), "tokens_a_client_max": max(tokens), "fairness": round(min(tokens) / max(1, max(tokens)), 3),
        "rss_mib_at_start": at_start, "rss_mib_before": before, "rss_mib_after": after, "rss_change": round(after / before - 1, 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--warmup", type=float, default=15)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bench"
        folder.mkdir()
        make_folder(folder)
        command = [sys.executable, "-m", "fangcun", "serve", str(folder), "--port", "0", "--dtype", args.dtype]
        command += ["--max-batch", str(args.max_batch), "--max-waiting", str(max(256, args.clients))]
        log = Path(temporary) / "log"
        with log.open("w") as said, subprocess.Popen(command, stderr=said) as server:
            try:
                report(measure(server.pid, port_of(server, log), args))
            finally:
                # A server that is gone already has a return code of its own: that is the finding.
                if server.poll() is not None:
                    print(f"the server ended by itself with {server.returncode}", file=sys.stderr)
                server.terminate()
                server.wait()
                print(log.read_text(), file=sys.stderr)


def port_of(server: subprocess.Popen, log: Path) -> int:
    """Where the server listens, once it does."""
    while server.poll() is None:
        if found := re.search(r" at http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.1)
    sys.exit(f"the server did not start:\n{log.read_text()}")


if __name__ == "__main__":
    main()
