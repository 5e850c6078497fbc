"""One small task on any device, and its third round. `python -m device.rounds [strategy ...]` in tests/ prints counts.

The lines are those of `budgets.py`, with what five replicates would take on a card of 3.3 TB/s and 60 Tflop/s, 5 us a
launch and 15 us a wait: a model, not a measurement. DEVICE_TASK=2000,128,100,100 in the environment makes it
another task: items, features, classes, picks a round.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from device import start

import numpy as np  # isort: skip - after the device
import torch

import alfm
from alfm.config.parts import from_config
from alfm.features.features import Features

N, D, C, B = (int(n) for n in os.environ.get("DEVICE_TASK", "400,16,10,20").split(","))
FIVE = os.environ.get("DEVICE_DTYPE", "float64")
CONF = Path(__file__).parents[2] / "conf"
WITHOUT = {"replay": "picks what a finished run picked", "index_file": "picks what a file says"}
SMALLER: dict[str, dict[str, Any]] = {  # the same kernels, less often
    "batchbald": {"oversample": 3, "max_samples": 100},
    "boss": {"batches": 3},
    "parbals_epig": {"labellings": 2, "num_targets": 50, "oversample": 3},
    "vaal": {"steps": 10},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # greedy picks in forms that are not a strategy's first
    "bait, diagonal": ("bait", {"variant": "diagonal"}),
    "bait, full": ("bait", {"variant": "full"}),
    "bait, top_k": ("bait", {"variant": "top_k"}),
    "coreset, cosine": ("coreset", {"metric": "cosine"}),
    "coreset, head": ("coreset", {"space": "head"}),
    "facility_location, flqmi": ("facility_location", {"query_classes": [1], "form": "flqmi"}),
    "facility_location, flvmi": ("facility_location", {"query_classes": [1]}),
    "falcun, deterministic": ("falcun", {"deterministic": True}),
    "log_det, query": ("log_det", {"query_classes": [1]}),
    "probcover, a radius": ("probcover", {"delta": 0.3, "memory_cap": 0}),
}
STRATEGIES = sorted({path.stem for path in (CONF / "query_strategy").glob("*.yaml")} - set(WITHOUT))
COLD_STARTS = sorted({path.stem for path in (CONF / "init_strategy").glob("*.yaml")} - set(WITHOUT))

torch.set_num_threads(1)  # counts follow from sums' last bits, which follow from how they are split

_random = np.random.default_rng(0)
Y = np.concatenate([np.arange(C), _random.integers(0, C, N - C)])
X = _random.normal(size=(C, D))[Y] + _random.normal(size=(N, D))
TESTED = min(N, 300)


def task(device: str, dtype: str = "float32", memory: Any = "auto") -> alfm.Task:
    x, y = X.astype(dtype), torch.from_numpy(Y).to(device)
    test = Features(x[:TESTED], device)
    return alfm.Task(Features(x, device, memory=memory), y, test, y[:TESTED], C)


def rounds(of: alfm.Task, strategy: str, seeds: Sequence[int], init: str = "random", done: Any = None, **parts: Any):
    classifier = parts.get("classifier") or from_config("classifier", "logistic")
    name, options = VARIANTS.get(strategy, (strategy, SMALLER.get(strategy, {})))
    query = from_config("query_strategy", name, **options)
    return alfm.run(of, classifier, from_config("init_strategy", init), query, [B] * 4, seeds, done)


def third_round(strategy: str, device: str, seeds: Sequence[int], dtype: str = "float32"):
    """The picks (R, B) and measures of the third round, and what it cost where that can be counted."""
    going = rounds(task(device, dtype), strategy, seeds)
    next(going), next(going)
    with nullcontext() if start.REAL else start.simulated.counting() as cost:
        made = next(going)
    return made, cost


if __name__ == "__main__":
    for name in sys.argv[1:] or STRATEGIES:
        (_, one), (_, five) = (
            third_round(name, "cuda", [*range(1, R + 1)], dtype) for R, dtype in ((1, "float32"), (5, FIVE))
        )
        busy = max(5e-6 * five.launches, five.device_time) + 15e-6 * five.syncs
        print(
            f'    "{name}": ({one.launches}, {five.launches}, {five.syncs}),  # modelled {1e3 * busy:.1f} ms',
            flush=True,
        )
