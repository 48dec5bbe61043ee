"""Batches that fit the cache and memory that is kept change how fast a step is, never what it computes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fangcun.config import ModelConfig, resolve_model
from fangcun.training.cpu import FEWEST_TOKENS, WIDEST_BYTES, samples_at_once

CPU = torch.device("cpu")


@given(
    width=st.sampled_from([32, 128, 768]),
    block_size=st.sampled_from([16, 256, 1024]),
    micro_batch_size=st.integers(1, 96),
)
def test_the_part_divides_the_micro_batch_and_fits_the_cache_where_it_can(
    width: int, block_size: int, micro_batch_size: int
) -> None:
    config = resolve_model(ModelConfig(n_layer=1, n_head=2, n_embd=width, block_size=block_size), vocab_size=70)
    n = samples_at_once(config, micro_batch_size, block_size, CPU)
    assert micro_batch_size % n == 0
    widest = 4 * n * block_size * max(config.intermediate_size or 0, width)
    assert n == 1 or widest <= WIDEST_BYTES or n * block_size < FEWEST_TOKENS + block_size
    assert samples_at_once(config, micro_batch_size, block_size, torch.device("cuda")) == micro_batch_size


def in_a_fresh_process(program: str) -> int:
    """What `program` prints. What this process has allocated so far would decide where its tensors come to lie."""
    told = "import resource, torch\nfrom fangcun.training.cpu import tune_allocator\n" + program
    said = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.strip()
    if said == "not told":
        pytest.skip("this C library has no mallopt")
    return int(said)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_serves_the_next_tensor_of_the_same_size() -> None:
    faults = in_a_fresh_process("""
told, faults = tune_allocator(keep=True), []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(4 << 20)  # 16 MiB, 4,096 pages
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[6:]) if told else "not told")
""")
    assert faults < 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_returned_memory_is_gone_at_once() -> None:
    pages_left = in_a_fresh_process("""
def pages():
    return int(open("/proc/self/statm").read().split()[1])
told, tensors = tune_allocator(keep=False), []
torch.ones(1)
before = pages()
for _ in range(20):
    tensors.append(torch.ones(1 << 20))  # 4 MiB
last = tensors.pop()  # what lies at the end must not hold the rest
tensors.clear()
print(pages() - before if told else "not told")
""")
    assert pages_left < 3 * 1024
