"""ProbCover (Yehuda et al. 2022, algorithm 1 and section 4.2) in plain NumPy."""

from __future__ import annotations

import numpy as np


def distances(h: np.ndarray) -> np.ndarray:
    """Between unit features, (N, D) -> (N, N)."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    return np.linalg.norm(u[:, None] - u[None], axis=2)


def purity(h: np.ndarray, pseudo: np.ndarray, delta: float) -> float:
    """Share of items whose ball of radius delta holds one pseudo-class only."""
    return pure_share(distances(h), pseudo, delta)


def pure_share(d: np.ndarray, pseudo: np.ndarray, delta: float) -> float:
    """The same from the distances (N, N)."""
    foreign = pseudo[:, None] != pseudo
    return 1 - float(((d < delta) & foreign).any(1).mean())


def purity_delta(h: np.ndarray, pseudo: np.ndarray, least: float = 0.95) -> float:
    """The largest of all pairwise distances that, as a radius, still has the purity wanted."""
    d = distances(h)
    return max(float(delta) for delta in np.unique(d) if pure_share(d, pseudo, delta) >= least - 1e-12)


def probcover(h: np.ndarray, delta: float, labelled: np.ndarray, free: np.ndarray, budget: int) -> list[int]:
    """Greedy maximum cover; when no free item covers anything new, the item farthest from all centres."""
    d = distances(h)
    ball = d < delta
    centres, picks = [int(i) for i in labelled], []
    for _ in range(budget):
        covered = ball[centres].any(0) if centres else np.zeros(len(h), bool)
        rest = [int(i) for i in np.flatnonzero(free) if i not in picks]
        gain = [int((ball[i] & ~covered).sum()) for i in rest]
        best = rest[int(np.argmax(gain))] if max(gain) > 0 else max(rest, key=lambda i: d[i, centres].min())
        picks.append(best)
        centres.append(best)
    return picks
