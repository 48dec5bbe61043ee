"""What training minimises, as one module: the thing that is compiled, replicated on ranks, or sharded."""

from __future__ import annotations

from torch import Tensor, nn

from fangcun.model import Transformer, find_documents
from fangcun.model.kernels_cpu import give_gradient_last
from fangcun.model.loss import head_loss_sum


class Objective(nn.Module):
    """Ids and targets in, summed cross entropy out. The model lies under `.model`.

    Head and loss belong inside: replication and sharding hook the module's forward, and the loss never builds all logits.
    document_end: the id that ends a document; given, documents do not see each other.
    """

    def __init__(self, model: Transformer, *, document_end: int | None = None) -> None:
        super().__init__()
        self.model, self.document_end = model, document_end

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """(B, T) ids and (B, T) targets (-100: none) -> cross entropy in nats, summed: a float32 scalar."""
        model = self.model
        weight = give_gradient_last(model.head_weight)
        documents = None
        if self.document_end is not None:
            documents = find_documents(ids, self.document_end)
        hidden = model.hidden(ids, documents=documents)
        return head_loss_sum(hidden, weight, targets, softcap=model.config.logit_softcap)
