"""A cold start that is given: the rows of an index set."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alfm.results.row_numbers import RowNumbers
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks


class GivenRows(Strategy):
    """The first `budget` of these rows of the pool, in order, whatever the seed. rows: int64 (n,)."""

    needs = ()
    name = "index_sets"
    needs_head = False

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = torch.from_numpy(np.asarray(rows, dtype=np.int64))

    @property
    def lists_rows(self) -> bool:
        return True

    def in_pool(self, numbers: RowNumbers) -> GivenRows:
        return self

    def select(self, query: Query, budget: int) -> Tensor:
        rows = self.rows.to(query.pool.device)
        picks = [rows[query.available[r][rows]][:budget] for r in range(query.R)]
        return stack_picks(picks, budget, query.pool.device)
