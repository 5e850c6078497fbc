"""Centre of gravity: the distance of an item's embedding to the mean embedding, as in the TorchAL toolkit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.host_ops import add_rows
from alfm.options import checked
from alfm.strategies.base import Need, Strategy
from alfm.strategies.parts.candidates import best
from alfm.strategies.query import Query, embedding, per_replicate


@dataclass(eq=False)
@checked
class Cog(Strategy):
    """The items farthest from the mean of all embeddings phi, labelled and unlabelled, far first.

    per_class: the mean of the items with the same predicted class instead of the whole pool's. Distances are taken
    from differences, not from squared lengths, so that they are exact also near the mean; means are summed in float64.
    Cost: O(N D), or O(N D C) per class; memory O(N).
    """

    per_class: bool = False

    @property
    def needs(self) -> Sequence[Need]:  # type: ignore[override]
        return ("embedding", "probabilities") if self.per_class else ("embedding",)

    def select(self, query: Query, budget: int) -> Tensor:
        return best(query, self.score(query), budget)

    def score(self, query: Query) -> Tensor:
        """Distances (R, N)."""
        assert query.head is not None
        if query.head.shared and not self.per_class:  # one centre for all
            return self._distance(query, 0).repeat(query.R, 1)
        return torch.stack(per_replicate(query, lambda r: self._distance(query, r)))

    def _distance(self, query: Query, r: int) -> Tensor:
        """|phi_i - its centre|, (N,)."""
        head, phi = query.head, embedding(query, r)
        assert head is not None
        groups = head.C if self.per_class else 1
        label = torch.zeros(phi.N, dtype=torch.int64, device=phi.device)
        total = torch.zeros(groups, phi.dim, dtype=torch.float64, device=phi.device)
        for rows, x in phi.blocks():
            if self.per_class:
                label[rows] = head.at(rows, x, r).argmax(1)
            add_rows(total, label[rows], x.double())
        count = torch.bincount(label, minlength=groups).clamp_min(1)
        centre = (total / count[:, None]).to(query.pool.dtype)
        return torch.cat([torch.linalg.vector_norm(x - centre[label[rows]], dim=1) for rows, x in phi.blocks()])
