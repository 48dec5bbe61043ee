"""Loss, perplexity and bits per byte of a model over windows of a token split.

Loss is the cross entropy of all targets divided by their number. Bits per byte is the same sum in bits, divided by the
UTF-8 bytes that the targets stand for: a fair measure between vocabularies, since a model with longer tokens has fewer
and harder targets for the same text. The end-of-document token is a target like any other and stands for no byte.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fangcun.errors import FangcunError
from fangcun.generation.ids import evaluation_mode
from fangcun.model import Transformer, find_documents
from fangcun.tokens import MASKED, TokenSplit, Window, fetch_windows

LOGITS_AT_ONCE = 1 << 24
"""Logits held in float32 at a time: 64 MiB."""

T = TypeVar("T")


class Peers(Protocol):
    """The processes that share an evaluation (`fangcun.training.Ranks` is one)."""

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of `items`."""
        ...

    def sums(self, *numbers: float) -> list[float]:
        """Each number summed over the processes."""
        ...

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on some windows."""

    loss: float
    """Cross entropy per target token, in nats."""

    perplexity: float
    """e to the loss (inf where that overflows)."""

    bits_per_byte: float | None
    """Cross entropy of all targets in bits over the bytes of their text; None where the bytes are not known."""

    comparable: bool
    """Whether bits_per_byte may be held against that of another tokenizer: it is known, and ids give the text back."""

    n_tokens: int
    """Targets that were predicted."""

    n_bytes: int | None
    """UTF-8 bytes of the text of these targets."""


def evaluate_windows(
    model: Transformer,
    split: TokenSplit,
    windows: Sequence[Window],
    *,
    batch_size: int,
    token_bytes: Tensor | Sequence[int] | None,
    device: torch.device | str = "cpu",
    autocast: contextlib.AbstractContextManager | None = None,
    before_batch: Callable[[], None] | None = None,
    peers: Peers | None = None,
    loss_sum: Callable[[Tensor, Tensor], Tensor] | None = None,
    document_mask: bool = False,
) -> Evaluation:
    """Predict the targets of `windows`, `batch_size` windows at a time, dropout off; the model's mode is put back.

    token_bytes: UTF-8 bytes of each id (`Tokenizer.token_bytes()`), or None where bits per byte is not wanted.
    device: where the model lies. autocast: context of the forward passes, as in training (None: none).
    before_batch: called before each batch; what it raises ends the evaluation.
    peers: each of them calls this with the same windows, predicts its share, and gets the result of all.
    loss_sum: (ids, targets) -> summed cross entropy, where the model is sharded and only its owner can run it. Then every
    process calls it equally often.
    document_mask: documents do not see each other (train.document_mask); `loss_sum`, where given, sees to that itself.
    The sum is kept in float64, so the result does not depend on `batch_size` but for the rounding of the forward pass.
    Raises FangcunError when there is no window, or split, model and token_bytes do not fit together.
    """
    rows, block_size = int(model.head_weight.shape[0]), model.config.block_size
    longest = max((window.stop - window.start - 1 for window in windows), default=0)
    table = None if token_bytes is None else torch.as_tensor(token_bytes, dtype=torch.int64).cpu()
    if not windows:
        raise FangcunError(
            f"There is nothing to evaluate on: the {split.split} split has {split.n_tokens:,} tokens. Give more text, or a larger corpus.val_share."
        )
    if batch_size < 1:
        raise FangcunError(f"batch_size is {batch_size}, expected at least 1.")
    if longest > block_size:
        raise FangcunError(
            f"A window has {longest:,} inputs, the model reads at most block_size = {block_size:,}. Cut the windows to the model's block_size."
        )
    if split.vocab_size > rows:
        raise FangcunError(
            f"The tokens in {split.folder} have {split.vocab_size:,} ids, the model knows {rows:,}. Pack the text with the model's own tokenizer."
        )
    if table is not None and len(table) < split.vocab_size:
        raise FangcunError(
            f"token_bytes has {len(table):,} entries, the tokens in {split.folder} have {split.vocab_size:,} ids. Use the tokenizer that packed them."
        )

    nats = torch.zeros((), dtype=torch.float64, device="cpu")
    n_tokens = n_bytes = 0
    batches = _batches(windows, batch_size)
    if peers is not None:
        batches = list(peers.share(batches))
    idle = peers.most(len(batches)) - len(batches) if peers is not None and loss_sum is not None else 0
    # A sharded model gathers its weights anew each time, which inference tensors do not survive.
    no_gradients = torch.inference_mode() if loss_sum is None else torch.no_grad()
    with no_gradients, evaluation_mode(model), autocast or contextlib.nullcontext():
        for batch in batches:
            if before_batch is not None:
                before_batch()
            inputs, targets = fetch_windows(split, batch)
            counted = targets[targets != MASKED]
            n_tokens += len(counted)
            if table is not None:
                n_bytes += int(table[counted].sum())
            x, y = inputs.to(device), targets.to(device)
            end = split.eos_id if document_mask else None
            nats += (_cross_entropy_sum(model, x, y, end) if loss_sum is None else loss_sum(x, y)).cpu()
        for _ in range(idle):
            assert loss_sum is not None
            inputs, targets = fetch_windows(split, windows[:1])
            loss_sum(inputs.to(device), torch.full_like(targets, MASKED).to(device))
    if peers is not None:
        total, n_tokens, n_bytes = peers.sums(float(nats), n_tokens, n_bytes)
        nats, n_tokens, n_bytes = torch.tensor(total, dtype=torch.float64), int(n_tokens), int(n_bytes)
    if table is not None and _covers(windows, split):
        # The bytes of the documents as they were read: exact even where token_bytes is only close (<unk>).
        n_bytes = split.total_bytes - int(table[int(split.read(0, 1)[0])])
    loss = float(nats) / n_tokens
    bits = float(nats) / math.log(2) / n_bytes if table is not None and n_bytes > 0 else None
    return Evaluation(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=bits,
        comparable=bits is not None and split.comparable,
        n_tokens=n_tokens,
        n_bytes=None if table is None else n_bytes,
    )


def _batches(windows: Sequence[Window], batch_size: int) -> list[list[Window]]:
    """Windows of one length together, at most `batch_size`, in the order given."""
    by_length: dict[int, list[Window]] = {}
    for window in windows:
        by_length.setdefault(window.stop - window.start, []).append(window)
    return [group[i : i + batch_size] for group in by_length.values() for i in range(0, len(group), batch_size)]


def _cross_entropy_sum(model: Transformer, inputs: Tensor, targets: Tensor, document_end: int | None) -> Tensor:
    """Nats of all targets of a batch, inputs and targets (B, T), as a float64 scalar (on mps, which has none, on the CPU).

    The head is applied to some positions at a time: the logits of a whole batch may be larger than the model.
    """
    documents = None if document_end is None else find_documents(inputs, document_end)
    hidden = model.hidden(inputs, documents=documents).flatten(0, 1)
    at_once = max(1, LOGITS_AT_ONCE // int(model.head_weight.shape[0]))
    where = torch.device("cpu") if hidden.device.type == "mps" else hidden.device
    total = torch.zeros((), dtype=torch.float64, device=where)
    for part, wanted in zip(hidden.split(at_once), targets.flatten().split(at_once), strict=True):
        nats = F.cross_entropy(model.logits(part).float(), wanted, ignore_index=MASKED, reduction="none")
        total += nats.to(where).sum(dtype=torch.float64)
    return total


def _covers(windows: Sequence[Window], split: TokenSplit) -> bool:
    """Whether every token of the split but the first is a target exactly once."""
    expected = 1
    for first, last in sorted((window.first_target, window.last_target) for window in windows):
        if first != expected:
            return False
        expected = last + 1
    return expected == split.n_tokens
