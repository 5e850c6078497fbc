"""Run frames without runs, for tests of what is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from alfm.metrics import METRICS


def runs(strategy: str, values: np.ndarray, **changes) -> pd.DataFrame:
    """Rows as `load_runs` gives them; `values` (seeds, rounds)."""
    n, rounds = values.shape
    df = pd.DataFrame({"seed": np.repeat(np.arange(n), rounds), "round": np.tile(np.arange(rounds), n)})
    for metric in METRICS:
        df[metric] = values.reshape(-1)
    df["num_labeled"] = 10 * (df["round"] + 1)
    df["initial"] = "start of " + df["seed"].astype(str)
    df["picked"] = [f"{strategy} of {s} to {r}" for s, r in zip(df["seed"], df["round"], strict=True)]
    names = {"dataset": "digits", "model": "pixels", "classifier": "logistic", "init_strategy": "random"}
    for name, value in {**names, "budget": "b", "query_strategy": strategy, "run": strategy, **changes}.items():
        df[name] = value
    return df


def noisy(mean: float, seed: int, n: int = 12, rounds: int = 21, noise: float = 0.01) -> np.ndarray:
    shared = np.random.default_rng(0).normal(0, 0.05, (n, 1))  # what pairing takes out
    own = np.random.default_rng(seed).normal(mean, noise, (n, rounds))
    own[:, 0] = 0  # the same items, the same first round
    return 0.5 + shared + own + np.linspace(0, 0.3, rounds)
