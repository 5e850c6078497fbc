"""A cold start that somebody else chose: rows from a file, or another run's picks."""

from __future__ import annotations

import copy
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.options import checked
from alfm.results.row_numbers import Counted, RowNumbers
from alfm.results.run_folder import read_picks, read_state
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks


@dataclass(eq=False)
@checked
class IndexFile(Strategy):
    """The first `budget` rows listed in a file, in order.

    path: text with one row number per line (the same rows for every seed), .npy with int64 (n,) or, one line per
    replicate, (R, n), or a run's picks.npz where it lies (each seed takes its own array, without the labels that it
    validated on). Picks count the rows of their
    run's cache: of this one, or of another whose items are found here by their ids. Other files count rows of the pool
    or, where items without a label are left out of it, what `rows` says, which is asked for: `cache` or `pool`. Raises
    UserError when the file holds no such rows; fewer than `budget` are completed at random.
    """

    needs = ()
    name = "index_file"
    path: str
    rows: Counted | None = None
    needs_head = False
    # of the cache that is worked on; None: whatever is listed counts the pool's rows
    _numbers = cast("RowNumbers | None", None)

    @property
    def lists_rows(self) -> bool:
        return True

    def in_pool(self, numbers: RowNumbers) -> IndexFile:
        """See `Strategy.in_pool`; the file is read when its rows are asked for."""
        bound = copy.copy(self)
        bound._numbers = numbers
        return bound

    def replays_otherwise(self, numbers: RowNumbers) -> bool:
        """Does a run's picks.npz mean other items than if its numbers were the pool's, as they once were read?"""
        run = self._run()
        if run is None or not numbers.whole or numbers.is_same(run):
            return run is not None and not numbers.whole
        return any((numbers.of_run(own, run) != own).any() for own in read_picks(run).values())

    def select(self, query: Query, budget: int) -> Tensor:
        picks = []
        for r, seed in enumerate(query.seeds):
            listed = self._listed(seed, r, query.R)
            rows = listed if self._numbers is None else self._pool_rows(listed, self._numbers)
            known = rows if self._numbers is None else rows[rows >= 0]
            if len(np.unique(known)) != len(known) or known.min(initial=0) < 0 or known.max(initial=0) >= query.pool.N:
                raise UserError(f"{self.path} must list different pool rows in [0, {query.pool.N}).")
            free = query.available[r].cpu().numpy()
            use = np.flatnonzero((rows < 0) | free[rows])[:budget]
            absent = use[rows[use] < 0]
            if len(absent):
                assert self._numbers is not None
                raise self._numbers.not_in_pool(self.path, listed[absent[0]])
            picks.append(torch.from_numpy(rows[use]).to(query.pool.device))
        return stack_picks(picks, budget, query.pool.device)

    def _pool_rows(self, listed: np.ndarray, numbers: RowNumbers) -> np.ndarray:
        """Listed rows (n,) -> pool rows (n,), -1 for items that are not in the pool."""
        run = self._run()
        if run is not None:
            return numbers.of_run(listed, run)
        return numbers.listed(listed, self.rows, self.path, "init_strategy.rows")

    def _run(self) -> Path | None:
        """The run folder in which the file lies, where it is a run's and nobody has said what its rows count."""
        path = Path(self.path).expanduser()
        is_run = path.name == "picks.npz" and (path.parent / "config.yaml").exists()
        return path.parent if is_run and self.rows is None else None

    def _listed(self, seed: int, r: int, replicates: int) -> np.ndarray:
        """The rows (n,) of one replicate, as they stand in the file."""
        path = Path(self.path).expanduser()
        try:
            if path.suffix == ".npz":
                run = self._run()
                with np.load(path, allow_pickle=False) as stored:
                    if str(seed) not in stored:
                        raise UserError(f"{path} holds no picks of seed {seed} (it has {', '.join(stored)}).")
                    rows = stored[str(seed)]
                if (path.parent / "config.yaml").exists():
                    rows = rows[_held(path.parent, seed) :]
                if run is not None:
                    picks = read_picks(run)  # checked against the rest of that folder
                    rows = picks[seed][_held(run, seed) :] if seed in picks else rows
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


def _held(run: Path, seed: int) -> int:
    """How many validation labels stand first among a seed's picks, which nothing was trained on."""
    rows = read_state(run).rows.get(seed, [])
    return int(rows[0].get("num_validation", 0)) if rows else 0
