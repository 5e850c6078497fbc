"""Does choosing a head's strength in each round help, does it hurt, and what does it cost?

    python benchmarks/tuning.py --data FEATURES --json benchmarks/results/tuning.json  # FEATURES/<dataset>/<model>.h5
    python benchmarks/tuning.py --cost --data FEATURES --json benchmarks/results/tuning-cost.json

Areas: random labels, so many per class in each round; the mean test accuracy over the rounds (in points) of the head
with its default strength, of one whose given strength is a thousand times too small or too large, and of the tuned
head, whose choices do not look at what was given. Lost: default less wrong; won back: (tuned less wrong) / lost, where
half a point or more was lost. The file is written after each cache and read again: a stopped command goes on.

Cost: seven strengths x five folds x two replicates at n labels as `tune=true` fits them, against the same fits one by
one: `Logistic.fit` in a loop, with as many threads.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from heads import caches
from machine import numbers, table

from alfm.heads.logistic import Logistic
from alfm.heads.tuned import Tuned, _Fold, judged, stratified
from alfm.simulation.cached_task import Simulation
from alfm.streams import stream
from alfm.threads import side_by_side


def areas(cache: Path, per_class: list[int], seeds: int) -> dict[str, Any]:
    """Accuracies (round, seed) in points of every head, and the strengths that were chosen over the default."""
    task = Simulation(cache, "cpu")
    C, default = task.num_classes, Logistic().inverse_l2(task.num_classes)
    made = {
        "default": Logistic(),
        "too small": Logistic(strength=default / 1000),
        "too large": Logistic(strength=default * 1000),
        "tuned": Tuned(Logistic()),
    }
    orders = [stream(seed, 0, "labels").permutation(task.pool.N) for seed in range(seeds)]
    order = torch.from_numpy(np.stack(orders))
    found: dict[str, Any] = {name: [] for name in made} | {"chosen": []}
    for number, each in enumerate(per_class, 1):
        rows = order[:, : each * C]
        for name, head in made.items():
            fitted = head.fit(task.pool, rows, task.labels[rows], C, list(range(seeds)), number)
            found[name].append([100 * one["accuracy"] for one in task.measure(fitted)])
        chosen = [made["tuned"].choices[seed, number] for seed in range(seeds)]
        found["chosen"].append([one.options["strength"] / default for one in chosen])
    return found


def summary(found: dict[str, Any]) -> dict[str, float | None]:
    """Areas in points, and what was lost and won back."""
    area = {name: float(np.mean(found[name])) for name in ("default", "too small", "too large", "tuned")}
    said: dict[str, float | None] = dict(area) | {"gain": area["tuned"] - area["default"]}
    for name in ("too small", "too large"):
        lost = area["default"] - area[name]
        said[f"lost, {name}"] = lost
        said[f"won back, {name}"] = (area["tuned"] - area[name]) / lost if lost >= 0.5 else None
    return said


def cost(cache: Path, n: int, replicates: int, repeats: int) -> dict[str, float]:
    """Median seconds of both ways, wall and processor."""
    task, head = Simulation(cache, "cpu"), Logistic()
    C, pool = task.num_classes, task.pool
    strengths = head.tuning_space(C)["strength"]
    problems = []
    for seed in range(replicates):
        rows = torch.from_numpy(stream(seed, 0, "labels").permutation(pool.N)[:n].copy())
        labels = task.labels[rows]
        fold = torch.from_numpy(stratified(labels.numpy(), 5, stream(seed, 1, "tuning folds")))
        own = [_Fold(rows[fold != k], labels[fold != k], rows[fold == k], labels[fold == k]).seen() for k in range(5)]
        problems.append(own)
    head.prepare(pool)
    head.fit(pool, problems[0][0].rows[None], problems[0][0].targets[None], C)

    def together() -> None:
        candidates = [{"strength": one} for one in strengths]
        jobs = [partial(judged, head, pool, folds, C, seed, 1, candidates) for seed, folds in enumerate(problems)]
        side_by_side(jobs, pool.device)  # as `Tuned` does

    def one_by_one() -> None:
        for folds in problems:
            for strength in strengths:
                for fold in folds:
                    replace(head, strength=strength).fit(pool, fold.rows[None], fold.targets[None], C)

    said = {}
    for name, run in (("together", together), ("one by one", one_by_one)):
        walls, processors = [], []
        for _ in range(repeats):
            wall, processor = time.perf_counter(), time.process_time()
            run()
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
        said |= {f"{name}, s": statistics.median(walls), f"{name}, processor s": statistics.median(processors)}
    return said


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="caches, or folders <dataset>/<model>.h5")
    parser.add_argument("--per-class", default="1,2,3,4,5,6,8,10", help="labels per class in each round")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cost", action="store_true", help="time fits instead of measuring accuracy")
    parser.add_argument("--labels", default="100,1000", help="--cost: labelled items")
    parser.add_argument("--repeats", type=int, default=3, help="--cost: runs that a median is taken of")
    options = parser.parse_args()
    if options.smoke:
        options.per_class, options.seeds, options.labels, options.repeats = "1,3", 2, "100", 1
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"benchmark": "tuning", "machine": machine.describe("cpu"), "threads": options.threads}
    if options.json and Path(options.json).exists():
        result |= json.loads(Path(options.json).read_text())
    cells = result.setdefault("cells", {})
    for cache in caches(options.data):
        name = f"{cache.parent.name}/{cache.stem}"
        for n in numbers(options.labels) if options.cost else [0]:
            key = f"{name}, n={n}" if options.cost else name
            if key in cells:
                continue
            if options.cost:
                cells[key] = cost(cache, n, 2, options.repeats)
            else:
                found = areas(cache, numbers(options.per_class), options.seeds)
                cells[key] = {"seeds": options.seeds, "per_class": options.per_class, **summary(found), "rounds": found}
            machine.save(options.json, result)
    if options.cost:
        rows = []
        for name, one in cells.items():
            ratios = [one[f"together, {unit}"] / one[f"one by one, {unit}"] for unit in ("s", "processor s")]
            rows.append([name, one["together, s"], one["one by one, s"], *ratios])
        columns = ["cache", "together s", "one by one s", "ratio", "ratio of processor time"]
        table("Seven strengths x five folds x two replicates", columns, rows, f"{options.threads} threads, medians.")
        return
    names = [name for name in next(iter(cells.values())) if name not in ("seeds", "per_class", "rounds")]
    rows = [[cache, *(one[name] for name in names)] for cache, one in cells.items()]
    table("Mean accuracy over the rounds, points", ["cache", *names], rows, "Won back: a share of what was lost.")


if __name__ == "__main__":
    main()
