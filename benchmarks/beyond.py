"""Pools that stay in their file: what strategies take in seconds and memory, one after the other in one process.

    python benchmarks/beyond.py --pool 10m-file --strategies random,margins,coreset:batch=1000 --json beyond.json

The pool is opened, moments and axes for the default head are made (both once, with their seconds; no head where no
strategy sees one), and each strategy is asked for a batch. Peak: of the whole process while a strategy answers, with
what those before it left behind; blocks are read, not mapped, so the system's page cache is not in it. A run that is
stopped, or asked again with the same --json, goes on with the strategies that have no figures yet.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import machine
import pools
from machine import comma, gib, table

STRATEGIES = "random,margins,entropy,badge,coreset:batch=1000,dropquery,typiclust,clue,alfamix,uherding,maxherding"


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="10m-file", help=f"one of {', '.join(pools.POOLS)}")
    parser.add_argument("--strategies", default=STRATEGIES, help="a,b; with options: a:p=0.5; batch=N is the batch")
    parser.add_argument("--replicates", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="no strategy is begun after so many")
    options = parser.parse_args()
    spec = pools.POOLS["tiny" if options.smoke else options.pool]
    result: dict[str, Any] = {
        "benchmark": "beyond", "machine": machine.describe(options.device), "threads": options.threads,
        "pool": str(spec), "replicates": options.replicates, "strategies": {},
    }  # fmt: skip
    path: Path | None = options.json
    if path is not None and path.exists():
        result["strategies"] = json.loads(path.read_text(encoding="utf-8"))["strategies"]
    left = [name for name in comma(options.strategies) if name not in result["strategies"]]
    if left:
        measure(spec, left, options, result)
    rows = [
        [
            name, one["batch"], one["seconds"], one["cpu_seconds"], one.get("load"), gib(one["query_bytes"]),
            gib(one["whole_bytes"]),
        ]
        for name, one in result["strategies"].items()
    ]  # fmt: skip
    columns = ["strategy", "B", "query s", "query CPU s", "load", "query's own GiB", "whole process GiB"]
    note = "opened in {opened:.0f} s, first fit {fit:.0f} s".format(**result) if "fit" in result else ""
    table(f"From the file, {spec}, {spec.labelled} labels, {options.replicates} replicate(s)", columns, rows, note)


def measure(spec: pools.Spec, names: list[str], options: Any, result: dict[str, Any]) -> None:
    import numpy as np
    import torch

    from alfm.config.parts import from_config
    from alfm.strategies.ask import ask
    from alfm.strategies.query import Query

    torch.set_num_threads(options.threads)
    device, started = options.device, time.perf_counter()
    folder = pools.make(spec, options.work)
    began = time.perf_counter()
    task = pools.task(folder, device)
    result["opened"], began = time.perf_counter() - began, time.perf_counter()
    head_of = from_config("classifier", "logistic")
    rows = np.stack([
        np.random.default_rng(r).choice(spec.items, spec.labelled, replace=False) for r in range(options.replicates)
    ])  # fmt: skip
    labelled = torch.from_numpy(rows).to(device)
    targets, seeds = task.labels[labelled], list(range(options.replicates))
    available = torch.ones(len(rows), spec.items, dtype=torch.bool, device=device).scatter_(1, labelled, False)
    head = None
    if any(_built(name)[0].needs != ("features",) for name in names):
        head = head_of.fit(task.pool, labelled, targets, task.num_classes, seeds, 2)
        result["fit"] = time.perf_counter() - began
    for name in names:
        if time.perf_counter() - started > options.seconds:
            break
        print(f"  {name} ...", file=sys.stderr, flush=True)
        built, own = _built(name)
        batch = own or spec.batch
        query = Query(task.pool, labelled, targets, available, task.num_classes, seeds, 2, head, head_of, {})
        machine.reset_peak(device)
        before, began, cpu = machine.resident_bytes(device), machine.drain(device), time.process_time()
        picks, filled = ask(built, query, batch)
        seconds, cpu = machine.drain(device) - began, time.process_time() - cpu
        peak = machine.peak_bytes(device)
        result["strategies"][name] = {
            "batch": batch, "seconds": seconds, "cpu_seconds": cpu, "query_bytes": peak - before, "whole_bytes": peak,
            "filled": max(filled), "picks": int(picks.sum()), "time": machine.describe(device)["time"],
            "load": machine.describe(device)["load_average"][0], "first_fit": result.get("fit") if head else None,
            "opened": result["opened"],
        }  # fmt: skip
        machine.save(options.json, result)


def _built(name: str) -> tuple[Any, int | None]:
    """The strategy of a name with options, and its batch if it has one of its own."""
    strategy, _, rest = name.partition(":")
    own = [part for part in rest.split("+") if part]
    batch = next((int(part.removeprefix("batch=")) for part in own if part.startswith("batch=")), None)
    return pools.strategy(":".join([strategy, "+".join(p for p in own if not p.startswith("batch="))])), batch


if __name__ == "__main__":
    main()
