"""How long a person waits: a label told, suggestions refreshed, the next batch, on a labelling pool.

    python benchmarks/refit.py --json benchmarks/results/refit.json

For each pool and number of classes: 1,000 labels told; then, label by label, `tell` (stored on disk before it
returns) and `refit` with suggestions for the whole pool; then `ask` of every strategy, the first and later ones, each
after ten more labels. Every pool is a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
import pools
from machine import alone, comma, numbers

LABELS, BATCH = 1_000, 10


def waits(cache: str, strategies: list[str], repeats: int, labels: int) -> dict[str, Any]:
    """Seconds of one pool: median and worst `tell` and `refit`, first and median later `ask` of each strategy."""
    import alfm

    with h5py.File(cache) as file:
        truth = [f"class{label}" for label in file["train/labels"][:]]
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for name in strategies:
        order = iter(rng.permutation(len(truth)).tolist())
        with tempfile.TemporaryDirectory() as folder:
            learner = alfm.ActiveLearner(
                cache, query_strategy=name, folder=Path(folder) / "state", labels_in_cache="ignore",
                classes=sorted(set(truth)),
            )  # fmt: skip
            some = [next(order) for _ in range(labels)]
            learner.tell(some, [truth[row] for row in some])
            learner.refit()
            told, refitted, asked = [], [], []
            for _ in range(repeats):
                row = next(order)
                began = time.perf_counter()
                learner.tell([row], [truth[row]])
                told.append(time.perf_counter() - began)
                began = time.perf_counter()
                learner.refit()
                learner.suggestions()
                refitted.append(time.perf_counter() - began)
            for _ in range(max(2, repeats // 3)):
                began = time.perf_counter()
                batch = learner.ask(BATCH)
                asked.append(time.perf_counter() - began)
                learner.tell(batch, [truth[item.row] for item in batch])
            result[name] = {
                "tell": float(np.median(told)), "refit": float(np.median(refitted)), "worst_refit": max(refitted),
                "first_ask": asked[0], "ask": float(np.median(asked[1:])),
            }  # fmt: skip
    return result


def cache_of(spec: pools.Spec, work: Path | None) -> Path:
    """The pool as an HDF5 cache; made once."""
    folder = pools.make(spec, work)
    path = folder / "pool.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file["train/features"], file["train/labels"] = pools.arrays(folder)
    return path


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pools", default="10k,50k")
    parser.add_argument("--classes", default="20,100")
    parser.add_argument("--strategies", default="random,margins,badge,uherding")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    if options.job:
        machine.serve({"waits": waits}, options.job)
        return
    names, classes, labels = comma(options.pools), numbers(options.classes), LABELS
    if options.smoke:
        names, classes, labels = ["tiny"], [4], 50
    rows, result = [], {"benchmark": "refit", "machine": machine.describe(options.device), "pools": {}}
    for name in names:
        for count in classes:
            spec = replace(pools.POOLS[name], classes=count)
            print(f"  {spec} ...", file=sys.stderr, flush=True)
            arguments = {
                "cache": str(cache_of(spec, options.work)), "strategies": comma(options.strategies),
                "repeats": options.repeats, "labels": labels,
            }  # fmt: skip
            point = alone(
                __file__, "waits", arguments, threads=options.threads, timeout=options.timeout,
                memory_gib=options.memory,
            )  # fmt: skip
            result["pools"][str(spec)] = point
            if point["status"] != "ok":
                print(f"{spec}: {machine.report_problem(point)}")
                continue
            for strategy in comma(options.strategies):
                one = point[strategy]
                rows.append([f"{spec}: {strategy}", *(one[key] for key in KEYS)])
    machine.table("Seconds", ["pool and strategy", *(key.replace("_", " ") for key in KEYS)], rows)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


KEYS = ("tell", "refit", "worst_refit", "first_ask", "ask")

if __name__ == "__main__":
    main()
