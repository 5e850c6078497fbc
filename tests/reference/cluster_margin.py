"""Cluster-Margin (Citovsky et al. 2021) in plain NumPy."""

from __future__ import annotations

import numpy as np


def margin_candidates(p: np.ndarray, free: np.ndarray, count: int) -> list[int]:
    """The free items of smallest margin, smallest first."""
    margin = [np.sort(row)[-1] - np.sort(row)[-2] for row in p]
    return [int(i) for i in sorted(np.flatnonzero(free), key=lambda i: (margin[i], i))[:count]]


def average_linkage(x: np.ndarray, clusters: int) -> np.ndarray:
    """Merge the two clusters with the smallest mean distance until `clusters` are left: (N,) names of clusters."""
    groups = [[i] for i in range(len(x))]
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    while len(groups) > clusters:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a)]
        a, b = min(pairs, key=lambda ab: distance[np.ix_(groups[ab[0]], groups[ab[1]])].mean())
        groups[b] += groups.pop(a)
    name = np.zeros(len(x), dtype=int)
    for g, members in enumerate(groups):
        name[members] = g
    return name


def turns(candidates: list[int], cluster: np.ndarray) -> list[list[int]]:
    """The round-robin's clusters turn by turn: for each pick in order, the cluster it must come from."""
    members = {c: [i for i in candidates if cluster[i] == c] for c in {cluster[i] for i in candidates}}
    order = sorted(members, key=lambda c: (len(members[c]), candidates.index(members[c][0])))
    longest = max(len(m) for m in members.values())
    return [[int(c) for c in order if len(members[c]) > turn] for turn in range(longest)]
