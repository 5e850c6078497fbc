"""Stochastic batches from any score: Kirsch et al. 2021, "Stochastic batch acquisition" (2106.12059), section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.options import checked
from alfm.strategies.bald import Bald
from alfm.strategies.entropy import Entropy
from alfm.strategies.margins import Margins
from alfm.strategies.parts.scored import Scored
from alfm.strategies.query import Query


@dataclass(eq=False)
@checked
class Power(Scored):
    """Items drawn without replacement with probability proportional to score^beta: the top of
    beta log(score) + Gumbel(0, 1). Scores are clamped at a tiny positive value, so a score of 0 is unlikely, not NaN.
    """

    stochastic = True
    beta: Annotated[float, Ge(0), Le(1e6)] = 1.0

    def score(self, query: Query) -> Tensor:
        score = super().score(query)  # type: ignore[safe-super]  # of the class that it is mixed with
        tiny = torch.finfo(score.dtype).tiny
        noise = [query.rng(r, "gumbel").gumbel(size=query.pool.N) for r in range(query.R)]
        gumbel = devices.of(score).sent(torch.from_numpy(np.stack(noise)).to(score.dtype))
        return self.beta * score.clamp_min(tiny).log() + gumbel


@dataclass(eq=False)
@checked
class PowerBald(Power, Bald):
    """BALD scores drawn by power. Cost: O(M N D C); memory O(N)."""


@dataclass(eq=False)
@checked
class PowerEntropy(Power, Entropy):
    """Predictive entropies drawn by power. Cost: O(N D C); memory O(N)."""


@dataclass(eq=False)
@checked
class PowerMargins(Power, Margins):
    """1 - margin drawn by power. Cost: O(N D C); memory O(N)."""
