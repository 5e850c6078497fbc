"""TypiClust (Hacohen et al. 2022, section 3, appendix F) in plain NumPy, for given clusters."""

from __future__ import annotations

import numpy as np


def typicality(d: np.ndarray, members: list[int], neighbours: int = 20) -> np.ndarray:
    """1 / mean distance of each member to its min(neighbours, size // 2) nearest other members; d (N, N)."""
    k = min(neighbours, len(members) // 2)
    if k == 0:
        return np.ones(len(members))
    out = []
    for i in members:
        others = sorted(d[i, j] for j in members if j != i)
        mean = np.mean(others[:k])
        out.append(1 / mean if mean > 0 else np.inf)
    return np.array(out)


def typiclust(
    h: np.ndarray,
    clusters: np.ndarray,
    labelled: np.ndarray,
    free: np.ndarray,
    budget: int,
    neighbours: int = 20,
    min_size: int = 5,
) -> list[int]:
    """Large clusters in the order (labelled, -size), round and round; those used up passed over; then small ones."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    d = np.linalg.norm(u[:, None] - u[None], axis=2)
    members = {c: [int(i) for i in np.flatnonzero((clusters == c) & free)] for c in np.unique(clusters)}
    size = {c: int((clusters == c).sum()) for c in members}
    known = {c: int((clusters[labelled] == c).sum()) for c in members}
    order = sorted(members, key=lambda c: (known[c], -size[c], c))
    picks: list[int] = []
    for ring in ([c for c in order if size[c] > min_size], [c for c in order if size[c] <= min_size]):
        while any(members[c] for c in ring):
            for c in ring:
                if members[c] and len(picks) < budget:
                    picks.append(members[c][int(typicality(d, members[c], neighbours).argmax())])
                    members[c].remove(picks[-1])
            if len(picks) == budget:
                break
    return picks
