"""Run folders as the loop writes them, of strategies that are better than random by what is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alfm.metrics import METRICS
from alfm.results.rounds_file import columns
from alfm.results.run_folder import RunFolder
from alfm.results.verdicts import NEVER, Verdict, options_text

ROUNDS = 5


def made_up(
    logs: Path,
    gains: Mapping[str, float],
    seeds: int = 10,
    data: str = "digits",
    model: str = "pixels",
    **config: object,
) -> list[Path]:
    """Writes them, with verdicts of a rule that fired for every other seed; the run folders."""
    folders = []
    for s, (name, gain) in enumerate(gains.items()):
        with RunFolder.open(
            logs, dataset=data, model=model, classifier="logistic", query_strategy=name, init_strategy="random",
            config={"query_strategy": {"name": name}, "init_strategy": "random", "seeds": list(range(seeds)), **config},
            cache_fingerprint=f"{data}-{model}",
        ) as folder:  # fmt: skip
            for t in range(ROUNDS):
                rows, picks = [], {}
                for seed in range(seeds):
                    noise = np.random.default_rng([s, seed, t]).normal(0, 0.005) if t else 0.0
                    value = 0.5 + 0.05 * t + (gain + noise if t else 0.0)
                    row = dict.fromkeys(columns(), 0) | dict.fromkeys(METRICS, value)
                    rows.append(
                        row | {"seed": seed, "round": t + 1, "num_labeled": 10 * (t + 1), "num_replicates": seeds}
                        | {"fit_seconds": 0.1, "query_seconds": 0.2, "eval_seconds": 0.01, "num_filled": s * (t > 0)}
                        | {"peak_memory_bytes": 10**6}
                    )  # fmt: skip
                    picks[seed] = np.arange(10 * t, 10 * (t + 1)) + 1000 * seed + (100_000 * (s + 1) if t else 0)
                folder.append(rows, picks)
            folder.finish(range(seeds), "all rounds done")
            options = options_text({"threshold": 0.9})
            fired, never = (3, 30, 0, "calm"), (None, None, 0, NEVER)
            folder.keep(Verdict(seed, "delta_f", options, *(fired if seed % 2 else never)) for seed in range(seeds))
        folders.append(folder.path)
    return folders
