"""What a callback is, and what it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Run:
    """Which run: its folder, what its parts are called, how many rounds are planned, and its configuration."""

    path: Path
    dataset: str
    model: str
    query_strategy: str
    init_strategy: str
    classifier: str
    rounds: int
    config: Mapping[str, Any]


@dataclass(frozen=True)
class SeedRound:
    """One replicate's round.

    picks int64 (B,): rows of the cache's split, in order; num_labeled: labels paid for so far; metrics as in
    `rounds.csv`; ended: why the replicate goes on no more, or None.
    """

    seed: int
    num_labeled: int
    metrics: Mapping[str, float]
    picks: np.ndarray
    ended: str | None


@dataclass(frozen=True)
class Round:
    """One round, from 1 on, of the replicates that went through it side by side; seconds are those of all together."""

    round: int
    seeds: Sequence[SeedRound]
    fit_seconds: float
    query_seconds: float
    eval_seconds: float


class Callback(ABC):
    """Subclass it anywhere, and name it by `_target_` in a config that begins with `# @package callback.NAME`."""

    @abstractmethod
    def on_round(self, run: Run, round: Round) -> None:
        """Told of a round when it is stored; of one that an earlier start has stored, never again.

        What it raises ends the run in a sentence, and the round is kept.
        """
