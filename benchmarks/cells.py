"""Neighbours found by looking at near cells only: ours (ProbCover on large pools) beside faiss's inverted file.

    python benchmarks/cells.py --json cells.json

Both cut the pool into as many cells and look at `probe` of them for an item; ours looks at a pair when either visits
the other's cell. Recall: of the 20 exact nearest neighbours of random items. CPU seconds: to build, and to look at
the neighbours of every item.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import machine
import pools
from machine import alone, numbers, report_problem, table

NEAREST, ASKED = 20, 2000


def _truth(folder: str, device: str) -> tuple[Any, Any, Any]:
    """Unit features, some items, and the rows of their exact nearest neighbours."""
    import numpy as np
    import torch

    from alfm.geometry.knn import knn

    unit = pools.task(folder, device).pool.points()
    some = torch.from_numpy(np.random.default_rng(0).choice(unit.N, min(ASKED, unit.N // 4), replace=False))
    found = knn(unit, NEAREST + 1, unit.rows(some))[1]
    return unit, some, found


def ours(folder: str, probe: int, device: str) -> dict[str, Any]:
    from alfm.geometry.inverted_file import Cells

    unit, some, nearest = _truth(folder, device)
    began = time.process_time()
    cells = Cells(unit, probe)
    built = time.process_time()
    for _ in cells.each(lambda block, d2: None):
        pass
    looked = time.process_time()
    visits, cell = cells.visits[some], cells.cell
    forth = (visits[:, None, :] == cell[nearest][:, :, None]).any(2)
    back = (cells.visits[nearest] == cell[some][:, None, None]).any(2)
    other = nearest != some[:, None]
    recall = float(((forth | back) & other).sum() / other.sum())
    return {"recall": recall, "build_seconds": built - began, "look_seconds": looked - built, "cells": cells.count}


def faiss_cells(folder: str, probe: int, count: int, device: str) -> dict[str, Any]:
    import faiss
    import torch

    unit, some, nearest = _truth(folder, device)
    x = torch.cat([x for _, x in unit.blocks()]).numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    began = time.process_time()
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(x.shape[1]), x.shape[1], count)
    index.train(x)
    index.add(x)
    index.nprobe = probe
    built = time.process_time()
    _, found = index.search(x, NEAREST + 1)
    looked = time.process_time()
    hits = (torch.from_numpy(found)[some][:, None, :] == nearest[:, :, None]).any(2)
    other = nearest != some[:, None]
    recall = float((hits & other).sum() / other.sum())
    return {"recall": recall, "build_seconds": built - began, "look_seconds": looked - built, "cells": count}


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="100k-384", choices=sorted(pools.POOLS))
    parser.add_argument("--probes", default="4,16")
    options = parser.parse_args()
    if options.job:
        machine.serve({"ours": ours, "faiss_cells": faiss_cells}, options.job)
        return
    spec = pools.POOLS["tiny" if options.smoke else options.pool]
    result: dict[str, Any] = {
        "benchmark": "cells", "machine": machine.describe(options.device), "threads": options.threads,
        "pool": str(spec), "points": [],
    }  # fmt: skip
    rows = []
    for probe in numbers(options.probes):
        cells = 4 * int(spec.items**0.5)
        for who in ("ours", "faiss_cells"):
            print(f"  {who} probe={probe} ...", file=sys.stderr, flush=True)
            arguments = {"folder": str(pools.make(spec, options.work)), "probe": probe, "device": options.device}
            arguments |= {} if who == "ours" else {"count": cells}
            limits = {"threads": options.threads, "timeout": options.timeout, "memory_gib": options.memory}
            point = alone(__file__, who, arguments, **limits)
            cells = point.get("cells", cells)
            result["points"].append({"who": who, "probe": probe} | point)
            machine.save(options.json, result)
            seconds = [point.get("build_seconds"), point.get("look_seconds")]
            rows.append([who, probe, cells, point.get("recall"), *seconds, report_problem(point)])
    columns = ["cells of", "probe", "cells", "recall", "build CPU s", "all items CPU s", "status"]
    table(f"Near cells, {spec}", columns, rows)


if __name__ == "__main__":
    main()
