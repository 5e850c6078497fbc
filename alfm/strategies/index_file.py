"""A cold start that somebody else chose: pool rows from a file, or from another run's picks."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.options import checked
from alfm.strategies.base import Query, Strategy, stack_picks


@dataclass(eq=False)
@checked
class IndexFile(Strategy):
    """The first `budget` rows listed in a file, in order.

    path: text with one row number per line (the same rows for every seed), .npy with int64 (n,) or, one line per
    replicate, (R, n), or a run's picks.npz (each seed takes its own array). Rows count the pool, items without a
    label left out. Raises UserError when the file holds no such rows; fewer than `budget` are completed at random.
    """

    path: str
    needs_head = False

    def select(self, query: Query, budget: int) -> Tensor:
        picks = []
        for r, seed in enumerate(query.seeds):
            rows = self._rows(seed, r, query.R)
            if len(np.unique(rows)) != len(rows) or rows.min(initial=0) < 0 or rows.max(initial=0) >= query.pool.N:
                raise UserError(f"{self.path} must list different pool rows in [0, {query.pool.N}).")
            free = query.available[r].cpu().numpy()
            picks.append(torch.from_numpy(rows[free[rows]][:budget]).to(query.pool.device))
        return stack_picks(picks, budget, query.pool.device)

    def _rows(self, seed: int, r: int, replicates: int) -> np.ndarray:
        path = Path(self.path).expanduser()
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as stored:
                    if str(seed) not in stored:
                        raise UserError(f"{path} holds no picks of seed {seed} (it has {', '.join(stored)}).")
                    rows = stored[str(seed)]
            elif path.suffix == ".npy":
                rows = np.load(path, allow_pickle=False)
                if rows.ndim == 2 and len(rows) != replicates:
                    raise UserError(f"{path} has rows for {len(rows)} replicates, but {replicates} run.")
                rows = rows[r] if rows.ndim == 2 else rows
            else:
                rows = np.loadtxt(path, dtype=np.int64, ndmin=1)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no list of pool rows: {error}.") from None
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise UserError(f"{path} is no list of pool rows: it holds {rows.dtype} of shape {rows.shape}.")
        return rows.astype(np.int64)
