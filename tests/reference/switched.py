"""Which of two strategies a round asks, in plain Python."""

from __future__ import annotations


def by_rounds(round: int, rounds: int) -> str:
    """Round 1 is the initial set; the next `rounds` queries are the first strategy's."""
    return "first" if round - 2 < rounds else "then"


def by_labels(labelled: int, classes: int, per_class: float) -> str:
    return "then" if labelled / classes >= per_class else "first"
