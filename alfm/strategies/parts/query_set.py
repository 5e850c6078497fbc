"""Examples of what is looked for: the query set that conditions a submodular strategy (SIMILAR)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.strategies.query import Query


@dataclass(eq=False)
class QuerySet:
    """Pool rows, and whatever is labelled so far with one of the classes. Empty: nothing special is looked for."""

    rows: Sequence[int] = ()
    classes: Sequence[int] = ()

    def of_each(self, query: Query) -> list[Tensor]:
        """Every replicate's query set now, int64 (q,), ascending. Raises UserError for rows or classes that do not
        exist."""
        if any(not 0 <= row < query.pool.N for row in self.rows):
            raise UserError(f"query_rows must be pool rows in [0, {query.pool.N}).")
        if any(not 0 <= c < query.num_classes for c in self.classes):
            raise UserError(f"query_classes must be classes in [0, {query.num_classes}).")
        if not self:
            return [query.rows[r, :0] for r in range(query.R)]
        N, rows = query.pool.N, query.rows
        shown = torch.zeros(query.R, N + 1, dtype=torch.bool, device=rows.device)  # the last place is for the others
        shown.index_fill_(1, torch.tensor(list(self.rows), dtype=torch.int64, device=rows.device), True)
        wanted = torch.isin(query.targets, torch.tensor(list(self.classes), dtype=torch.int64, device=rows.device))
        shown.scatter_(1, rows.where(wanted, N), True)
        shown = shown[:, :N]
        return list(shown.nonzero()[:, 1].split(shown.sum(1).tolist()))

    def __bool__(self) -> bool:
        return bool(len(self.rows) or len(self.classes))
