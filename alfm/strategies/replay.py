"""What another run has picked, seed by seed and round by round."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.options import PathName, checked
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query, stack_picks


@dataclass(eq=False)
@checked
class Replay(Strategy):
    """The picks of a finished run, to see what another head or another backbone learns from them.

    path: the run's folder. Items are found by their ids on another cache; rows="cache": both caches hold the same items
    in the same order. A simulation reads the run (see `alfm.simulation.transfer`), nobody else can replay it.
    """

    needs = ()
    name = "replay"
    needs_head = False
    path: PathName
    rows: Literal["cache"] | None = None
    # of every seed, pool rows int64 (n,) for each round
    _rounds = cast("Mapping[int, Sequence[np.ndarray]] | None", None)

    def bound(self, rounds: Mapping[int, Sequence[np.ndarray]]) -> Replay:
        """The same with the picks of every seed and round, as pool rows."""
        other = copy.copy(self)
        other._rounds = rounds
        return other

    def select(self, query: Query, budget: int) -> Tensor:
        if self._rounds is None:
            raise UserError(
                "replay repeats the picks of a finished run, which is for python -m alfm.al_train alone: choose "
                "another query_strategy."
            )
        device = query.pool.device
        rows = [self._rounds[seed][query.round - 1][:budget] for seed in query.seeds]
        return stack_picks([torch.from_numpy(own).to(device) for own in rows], budget, device)
