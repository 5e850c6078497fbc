"""DropQuery's candidates (Gupte et al. 2024, section 3) in plain NumPy, for given masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def changes(h: np.ndarray, masks: np.ndarray, drop: float, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """In how many of M passes the label changes. masks (M, N, D), True = kept; predict: features (N, D) -> labels."""
    plain = predict(h)
    count = np.zeros(len(h), dtype=int)
    for kept in masks:
        count += predict(np.where(kept, h / (1 - drop), 0.0)) != plain
    return count


def dropquery(count: np.ndarray, free: np.ndarray, budget: int, passes: int = 3, enough: int = 25) -> list[int]:
    """Candidates: more than M // 2 changes; fewer suffice, down to one, while candidates are scarce."""
    for threshold in range(passes // 2, -1, -1):
        found = [int(i) for i in np.flatnonzero(free) if count[i] > threshold]
        if len(found) >= enough * budget:
            break
    return found
