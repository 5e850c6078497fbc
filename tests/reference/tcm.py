"""TCM (Doucet et al. 2024) in plain NumPy: which of its two methods a round asks."""

from __future__ import annotations


def tcm(round: int, rounds: int = 3) -> str:
    """Round 1 is the initial set; the next `rounds` queries are TypiClust's, the others are margins'."""
    queries_before = round - 2
    return "typiclust" if queries_before < rounds else "margins"
