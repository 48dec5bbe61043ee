"""Embeddings of the last two, three … ids together, added to the token's own: much knowledge for almost no arithmetic.

A small model spends its first layer on finding out which pairs of tokens are frequent; a table knows it at once.
No Hugging Face family has such a table, so a model with one says `exportable: false`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fangcun.config import ModelConfig
from fangcun.model.document_mask import Documents

_MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 over the golden ratio, as int64: its product wraps, and the upper bits are well mixed (Knuth, multiplicative hashing)."""


class NgramEmbedding(nn.Module):
    """One table for runs of 2 to `ngram_length` ids; a run's row is a hash of it, so some share one.

    Where the table has a row for every run of a length there is no hash: each has its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.ngram_rows is not None and config.padded_vocab_size is not None
        self.rows, self.length = config.ngram_rows, config.ngram_length
        self.nothing = config.padded_vocab_size
        """Stands for the ids before the first one."""
        self.table = nn.Embedding(self.rows, config.n_embd, _weight=torch.zeros(self.rows, config.n_embd))

    def forward(self, ids: Tensor, before: Tensor | None = None, documents: Documents | None = None) -> Tensor:
        """(B, T) ids -> (B, T, n_embd). `before`: the ids that precede them, at least length - 1 or all there are.

        With documents no run reaches back into the one before.
        """
        T = ids.shape[1]
        past = self.length - 1
        known = ids if before is None else torch.cat((before[:, -past:], ids), dim=1)
        known = F.pad(known, (past + T - known.shape[1], 0), value=self.nothing)
        base, runs = self.nothing + 1, 1
        total, key = None, known[:, past:]
        for back in range(1, self.length):
            runs *= base
            stride = (runs + (1 << 63)) % (1 << 64) - (1 << 63)  # as int64: long runs of a large vocabulary wrap
            earlier = known[:, past - back : past - back + T]
            if documents is not None:
                earlier = torch.where(documents.positions >= back, earlier, self.nothing)
            key = key + earlier * stride
            rows = key if runs * base <= self.rows else (key * _MULTIPLIER >> 20 & (1 << 40) - 1) % self.rows
            found = self.table(rows)
            total = found if total is None else total + found
        assert total is not None, "ngram_length is at least 2"
        return total
