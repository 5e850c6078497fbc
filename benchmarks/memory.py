"""Peak memory of every strategy, each in a process of its own (wanted: under 4 GiB on 50k x 768 with 100 classes).

    python benchmarks/memory.py --json memory.json
    python benchmarks/memory.py --pool 100k-384 --strategies maxherding,probcover --replicates 5

    python benchmarks/memory.py --pool 10m-file --strategies random,margins --replicates 1 --queries 1 --limit 8

A job loads the pool, fits the heads, asks for a batch, labels it and asks again. Printed: the whole process's peak,
what it held just before the first query (interpreter, libraries, features, heads), and the difference: the query's own.
On CPU these are resident sets, on CUDA what torch's allocator gave out.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import machine
import pools
from machine import alone, comma, gib, numbers, report_problem, table


def one(
    folder: str, strategy: str, classifier: str, replicates: int, labelled: int, batch: int, queries: int, device: str
) -> dict[str, Any]:
    """Two queries of one strategy, or one."""
    import numpy as np
    import torch

    from alfm.config.parts import from_config
    from alfm.strategies.ask import ask
    from alfm.strategies.query import Query

    began = machine.drain(device)
    task = pools.task(folder, device)
    loaded = machine.drain(device) - began
    built, head_of = pools.strategy(strategy), from_config("classifier", classifier)
    starts = [np.random.default_rng(r).choice(task.pool.N, labelled, replace=False) for r in range(replicates)]
    rows = torch.from_numpy(np.stack(starts)).to(device)
    available = torch.ones(replicates, task.pool.N, dtype=torch.bool, device=device).scatter_(1, rows, False)
    seeds, carry = list(range(replicates)), {}
    before = own = 0
    seconds, fits, cpu = [], [], []
    for number in range(2, 2 + queries):
        targets = task.labels[rows]
        began = machine.drain(device)
        head = head_of.fit(task.pool, rows, targets, task.num_classes, seeds, number)
        fits.append(machine.drain(device) - began)
        if not before:
            reached = machine.peak_bytes(device)
            machine.reset_peak(device)
            before = machine.resident_bytes(device)
        hidden = task if built.oracle else None
        query = Query(
            task.pool, rows, targets, available, task.num_classes, seeds, number, head, head_of, carry, hidden
        )  # fmt: skip
        began, before_cpu = machine.drain(device), time.process_time()
        picks, _ = ask(built, query, batch)
        seconds.append(machine.drain(device) - began)
        cpu.append(time.process_time() - before_cpu)
        rows = torch.cat([rows, picks], 1)
        available.scatter_(1, picks, False)
    own = machine.peak_bytes(device)
    return {
        "before_bytes": before, "query_bytes": own - before, "whole_bytes": max(own, reached), "seconds": seconds,
        "cpu_seconds": cpu, "load_seconds": loaded, "fit_seconds": fits,
    }  # fmt: skip


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="50k", help=f"one or more of {', '.join(pools.POOLS)}")
    parser.add_argument("--strategies", default="", help="a,b; with options: bait:variant=full; default: every config")
    parser.add_argument("--replicates", default="1,5")
    parser.add_argument("--classifier", default="logistic")
    parser.add_argument("--labelled", type=int, help="items labelled at first, if not as many as the pool's row says")
    parser.add_argument("--batch", type=int, help="items asked for")
    parser.add_argument("--queries", type=int, default=2, help="rounds: the first makes what is made once per pool")
    parser.add_argument("--limit", type=float, default=4.0, metavar="GIB", help="what is reported as too much")
    options = parser.parse_args()
    if options.job:
        machine.serve({"one": one}, options.job)
        return
    result: dict[str, Any] = {
        "benchmark": "memory", "machine": machine.describe(options.device), "threads": options.threads, "pools": {}
    }  # fmt: skip
    for pool in ["tiny"] if options.smoke else comma(options.pool):
        spec = pools.POOLS[pool]
        folder = str(pools.make(spec, options.work))
        found = result["pools"][pool] = {"pool": str(spec), "strategies": {}}
        rows = []
        for name in comma(options.strategies) or machine.strategy_names():
            for R in numbers(options.replicates):
                print(f"  {name} R={R} ...", file=sys.stderr, flush=True)
                arguments = {
                    "folder": folder, "strategy": name, "classifier": options.classifier, "replicates": R,
                    "labelled": options.labelled or spec.labelled, "batch": options.batch or spec.batch,
                    "queries": options.queries, "device": options.device,
                }  # fmt: skip
                limits = {"timeout": options.timeout, "memory_gib": options.memory}
                got = alone(__file__, "one", arguments, threads=options.threads, **limits)
                found["strategies"].setdefault(name, {})[str(R)] = got
                peak = gib(got.get("whole_bytes"))
                verdict = None if peak is None else "yes" if peak <= options.limit else "NO"
                rows.append([
                    name, R, peak, verdict, gib(got.get("before_bytes")), gib(got.get("query_bytes")),
                    *[*(got.get("seconds") or ()), None, None][:2], sum(got.get("cpu_seconds") or [0.0]),
                    *[*(got.get("fit_seconds") or ()), None][:1], report_problem(got),
                ])  # fmt: skip
                machine.save(options.json, result)
        columns = [
            "strategy", "R", "peak GiB", f"within {options.limit:g}", "before the query GiB", "query's own GiB",
            "first query s", "second query s", "queries' CPU s", "first fit s", "status",
        ]  # fmt: skip
        asked = f"{options.labelled or spec.labelled} labels, B={options.batch or spec.batch}"
        table(f"Peak memory, {spec}, {asked}, {options.device}", columns, rows)


if __name__ == "__main__":
    main()
