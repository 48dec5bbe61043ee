"""Several documents in one window that do not see each other: attention ends at a document's end, positions begin anew.

A window is cut out of a stream of documents, each of which ends with the end-of-document token. That token belongs to
the document that it ends. What comes before the window is not there, so the first document's positions count from the
window's beginning. Without `Documents` a window is read as one text, which is the usual way.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from fangcun.model.attention_cpu import attention_pays, causal_attention


@dataclass(frozen=True)
class Documents:
    """The documents in a batch of windows, as the layers of one forward pass need them."""

    numbers: Tensor
    """(B, T) int64: which document of its window each position belongs to, from 0."""
    positions: Tensor
    """(B, T) int64: places within the document, from 0: the positions of it that come before."""
    mask: Tensor
    """(B, 1, T, T) bool: which key positions (the last dimension) a query position sees."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        """Attention of queries (B, H, T, D) to keys and values (B, G, T, D) of the same document up to each one."""
        if attention_pays(query):
            return causal_attention(query, key, value, seen=self.mask, dropout=dropout)
        share = query.shape[1] // key.shape[1]
        if share > 1 and key.device.type == "cuda":  # its fused kernel takes a mask or grouped queries, not both
            key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
        grouped = key.shape[1] < query.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.mask, dropout_p=dropout, enable_gqa=grouped
        )


def find_documents(ids: Tensor, end: int) -> Documents:
    """The documents in ids (B, T), each of which ends with the id `end`. The mask takes B x T x T bytes."""
    ends = ids == end
    numbers = ends.cumsum(1) - ends.long()  # the ends before each position
    mask = (numbers[:, None, :] == numbers[:, :, None]).tril()
    return Documents(numbers, mask.sum(-1) - 1, mask[:, None])
