"""What a model gives to known ids: rows of many lengths in batches of like length, the head at wanted positions alone.

Everything that reads text with a model (exams, bits per byte of a text, surprise, the adapter of lm-eval) comes
through here, so one number is one number everywhere. The logits of all positions never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from fangcun.evaluation.shared_prefix import AfterPrefix, Prefix
from fangcun.generation.engine import evaluation_mode
from fangcun.model import Documents, Transformer
from fangcun.model.loss import cap_logits

BATCH_TOKENS = 2048
"""Tokens of a batch, padding included. Chosen, not measured."""

LOGITS_AT_ONCE = 1 << 23
"""Logits held in float32 at a time: 32 MiB."""

Floats = npt.NDArray[np.float64]
Head = Callable[[Transformer, Tensor, Tensor], Tensor]
"""(model, hidden states (N, n_embd), target ids (N,)) -> float64 (N, columns)."""


@dataclass(frozen=True)
class Row:
    """Ids that are read together, and the ids that are to be predicted."""

    inputs: Sequence[int]
    """Read from position 0, or behind the shared prefix."""
    targets: Sequence[int]
    """Ids to predict."""
    places: Sequence[int]
    """For each target the index of the input whose hidden state predicts it."""
    branches: Sequence[int] | None = None
    """For each input 0 (all see it) or the number of a branch that sees itself and the 0s before; None: one text.
    Each branch begins where the 0s end."""


def log_probability(model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
    """Natural log of the probability of each target, (N, 1)."""
    return torch.cat([_log_probabilities(*part)[0] for part in _logits(model, hidden, targets)])


def log_probability_and_greedy(model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
    """The same, and 1 where the target is the likeliest id of all: (N, 2)."""
    parts = []
    for logits, wanted in _logits(model, hidden, targets):
        found, logits = _log_probabilities(logits, wanted)
        parts.append(torch.cat((found, (logits.argmax(-1) == wanted).double()[:, None]), dim=1))
    return torch.cat(parts)


def target_logit(model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
    """The target's logit, (N, 1): what compares targets of one place needs no normaliser, and no other row of the head."""
    products = (hidden.float() * model.head_weight[targets].float()).sum(-1)
    return cap_logits(products, model.config.logit_softcap).double()[:, None]


def predict_rows(
    model: Transformer,
    rows: Sequence[Row],
    head: Head,
    *,
    prefix: Prefix | None = None,
    batch_tokens: int = BATCH_TOKENS,
    done: Callable[[int], None] | None = None,
) -> list[Floats]:
    """For each row what `head` makes of its targets: float64 (targets, columns), in the order given.

    prefix: ids that stand before every row and were read once. batch_tokens: of one forward pass, padding included (a
    longer row goes alone). done: called with the number of rows of each batch. The model reads in the type of its
    weights, dropout off; its mode is put back. Results do not depend on the batches but for rounding.
    """
    results: list[Floats] = [np.empty((0, 0))] * len(rows)
    device = model.head_weight.device
    with torch.inference_mode(), evaluation_mode(model), torch.autocast(device.type, enabled=False):
        for batch in _batches(rows, batch_tokens):
            chosen = [rows[i] for i in batch]
            hidden = _read(model, chosen, prefix, device)
            width = hidden.shape[1]
            places = np.concatenate([np.asarray(r.places, np.int64) + n * width for n, r in enumerate(chosen)])
            targets = np.concatenate([np.asarray(r.targets, np.int64) for r in chosen])
            states = hidden.flatten(0, 1)[torch.from_numpy(places).to(device)]
            found = head(model, states, torch.from_numpy(targets).to(device)).cpu().numpy()
            ends = np.cumsum([len(r.targets) for r in chosen])
            for i, part in zip(batch, np.split(found, ends[:-1]), strict=True):
                results[i] = part
            if done is not None:
                done(len(batch))
    return results


def _batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of rows that are read together: the longest first, of like length, trees apart from plain text."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].branches is None, -len(rows[i].inputs), i))
    batch: list[int] = []
    for i in order:
        if batch:
            first, length = rows[batch[0]], len(rows[i].inputs)
            longest = len(first.inputs)
            full = longest * (len(batch) + 1) > batch_tokens
            if (
                full
                or (first.branches is None) != (rows[i].branches is None)
                or length < longest - max(8, longest // 4)
            ):
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch


def _read(model: Transformer, rows: Sequence[Row], prefix: Prefix | None, device: torch.device) -> Tensor:
    """Hidden states (B, T, n_embd). Padding stands on the right, where a causal model does not see it."""
    width = max(len(row.inputs) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    for row, line in zip(rows, ids, strict=True):
        line[: len(row.inputs)] = row.inputs
    x = torch.from_numpy(ids).to(device)
    if prefix is None and rows[0].branches is None:
        return model.hidden(x)
    branches = np.full((len(rows), width), -1, np.int64)  # padding sees itself, so that no softmax is empty
    for row, line in zip(rows, branches, strict=True):
        line[: len(row.inputs)] = 0 if row.branches is None else row.branches
    numbers = torch.from_numpy(branches).to(device)
    mask = ((numbers[:, None, :] == 0) | (numbers[:, None, :] == numbers[:, :, None])).tril()
    positions = mask.sum(-1) - 1  # as many as it sees before itself
    if prefix is None:
        return model.hidden(x, documents=Documents(numbers, positions, mask[:, None]))
    # Padding may stand past the last position the model knows.
    positions = (positions + prefix.length).clamp(max=model.config.block_size - 1)
    return model.hidden(x, documents=AfterPrefix(numbers, positions, mask[:, None], prefix))


def _logits(model: Transformer, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """float32 logits (n, rows of the head) with their targets, some at a time."""
    at_once = max(1, LOGITS_AT_ONCE // int(model.head_weight.shape[0]))
    for part, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True):
        yield cap_logits(F.linear(part, model.head_weight), model.config.logit_softcap).float(), wanted


def _log_probabilities(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of the targets as float64 (n, 1), and the logits that they were taken from."""
    picked = logits.gather(1, wanted[:, None])
    return picked.double() - logits.logsumexp(-1, keepdim=True).double(), logits
