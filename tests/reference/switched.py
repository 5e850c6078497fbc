"""Which of two strategies a round asks, in plain Python."""

from __future__ import annotations

import numpy as np


def by_rounds(round: int, rounds: int) -> str:
    """Round 1 is the initial set; the next `rounds` queries are the first strategy's."""
    return "first" if round - 2 < rounds else "then"


def by_labels(labelled: int, classes: int, per_class: float) -> str:
    return "then" if labelled / classes >= per_class else "first"


def agreement(h: np.ndarray, predicted: np.ndarray, labelled: np.ndarray, y: np.ndarray, free: np.ndarray) -> float:
    """On which share of the free items the prediction is the label of the nearest labelled item's unit feature."""
    u = h / np.linalg.norm(h, axis=1, keepdims=True)
    pairs = [(predicted[i], y[min(range(len(y)), key=lambda j: np.linalg.norm(u[i] - u[labelled[j]]))]) for i in free]
    return float(np.mean([a == b for a, b in pairs]))
