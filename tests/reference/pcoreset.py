"""PCoreSet (Kang et al. 2025, section 4) in plain NumPy: farthest first between softmax rows."""

from __future__ import annotations

import numpy as np


def pcoreset(p: np.ndarray, labelled: np.ndarray, free: np.ndarray, budget: int) -> list[int]:
    """p (N, C): repeatedly the free item of largest smallest distance to what is labelled or picked."""
    centres, picks = [int(i) for i in labelled], []
    for _ in range(budget):
        rest = [int(i) for i in np.flatnonzero(free) if i not in picks]
        best = max(rest, key=lambda i: min(float(np.sqrt(((p[i] - p[c]) ** 2).sum())) for c in centres))
        picks.append(best)
        centres.append(best)
    return picks
