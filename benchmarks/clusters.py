"""What k-means on a part of a large pool loses, and what typicality among some members does.

    python benchmarks/clusters.py --json clusters.json

k-means on all items and on parts of several sizes, both from k-means++ seeds with five passes: inertia of all items to
the centroids, beside that of the whole. Then TypiClust's picks from the clusters of the first k: mean distance of the
picked item to its 20 nearest members, beside that of the most typical one; its rank among the members.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from typing import Any

import machine
import pools
from machine import alone, numbers, report_problem, table


def one(folder: str, k: int, part: int | None, repeats: int, device: str) -> dict[str, Any]:
    """Inertia and seconds of k-means on all items (None) or a part; typicality of picks in some clusters."""
    import numpy as np
    import torch

    from alfm.geometry.kmeans import kmeans
    from alfm.geometry.kmeans_on_part import centroids_of_part, nearest_clusters
    from alfm.geometry.typicality import most_typical_of_part

    unit = pools.task(folder, device).pool.points()
    take = partial(unit.rows, plain=True)
    inertia, seconds, excess, ranks = [], [], [], []
    for seed in range(repeats):
        rng, began = np.random.default_rng(seed), time.process_time()
        if part is None:
            centroids = kmeans(torch.cat([x for _, x in unit.blocks()]), k, rng, iterations=5).centroids
        else:
            centroids = centroids_of_part(take, unit.N, k, rng, unit.device, most=part, iterations=5)
        clusters = nearest_clusters(unit, [centroids])[0].long()
        seconds.append(time.process_time() - began)
        inertia.append(sum(
            float((x - centroids[clusters[rows]]).double().square().sum()) for rows, x in unit.blocks()
        ))  # fmt: skip
        for c in torch.bincount(clusters, minlength=k).topk(5).indices.tolist() if part is None else ():
            members = (clusters == c).nonzero()[:, 0]
            x = take(members)
            mean = torch.cat([torch.cdist(some, x).topk(21, largest=False).values.sum(1) / 20 for some in x.split(512)])
            found = most_typical_of_part(lambda rows, x=x: x[rows], len(x), 20, rng, x.device)
            excess.append(100 * float(mean[found] / mean.min() - 1))
            ranks.append([int((mean < mean[found]).sum()), len(x)])
    return {"inertia": inertia, "cpu_seconds": seconds, "excess_percent": excess, "ranks": ranks}


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="100k-384", choices=sorted(pools.POOLS))
    parser.add_argument("--clusters", default="20,100,500")
    parser.add_argument("--parts", default="50000,20000")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.job:
        machine.serve({"one": one}, options.job)
        return
    spec = pools.POOLS["tiny" if options.smoke else options.pool]
    counts = [4] if options.smoke else numbers(options.clusters)
    result: dict[str, Any] = {
        "benchmark": "clusters", "machine": machine.describe(options.device), "threads": options.threads,
        "pool": str(spec), "points": [],
    }  # fmt: skip
    rows = []
    for k in counts:
        whole: dict[str, Any] = {}
        for part in (None, *([300] if options.smoke else numbers(options.parts))):
            print(f"  k={k} {part or 'all'} ...", file=sys.stderr, flush=True)
            arguments = {
                "folder": str(pools.make(spec, options.work)), "k": k, "part": part, "repeats": options.repeats,
                "device": options.device,
            }  # fmt: skip
            point = alone(
                __file__, "one", arguments, threads=options.threads, timeout=options.timeout, memory_gib=options.memory
            )
            result["points"].append({"k": k, "part": part} | point)
            machine.save(options.json, result)
            whole = whole or point
            more = None
            if point["status"] == whole["status"] == "ok":
                more = 100 * (statistics.fmean(point["inertia"]) / statistics.fmean(whole["inertia"]) - 1)
            cpu = statistics.fmean(point["cpu_seconds"]) if "cpu_seconds" in point else None
            excess = statistics.fmean(point["excess_percent"]) if point.get("excess_percent") else None
            rows.append([str(k), part or "all", more, cpu, excess, report_problem(point)])
    columns = ["clusters", "learned from", "inertia more %", "CPU s", "typical item's distance more %", "status"]
    table(f"k-means on a part, {spec}", columns, rows, f"Means of {options.repeats} seeds.")


if __name__ == "__main__":
    main()
