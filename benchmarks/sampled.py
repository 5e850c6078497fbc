"""What coverage strategies lose by what they do on pools too large for all pairs of items.

    python benchmarks/sampled.py --json sampled.json

On a pool that the exact forms still answer, maxherding picks a batch exactly and on random parts of several sizes, and
probcover exactly, with several numbers of cells looked at, and on random parts with the radius of the whole, as of
pools too large for cells; both are judged by the method's own objective over the WHOLE pool: mean largest similarity to
what is labelled or picked, or the share of items within the exact radius of it.
Loss: the share of the exact batch's gain over the labels alone that is missing.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import machine
import pools
from machine import alone, numbers, report_problem, table

LIMITED = {"maxherding": ["sample"], "probcover": ["probe", "part"]}  # what says how much of the pool is looked at


def one(
    folder: str, strategy: str, limit: str, value: int | None, delta: float | None, replicates: int, labelled: int,
    batch: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of a first query, and the objective before and after it, for each replicate.

    value: of the limit to what is looked at; None: exact. delta: probcover's exact radius, None: found here.
    """
    import numpy as np
    import torch

    from alfm.config.parts import from_config
    from alfm.geometry.kernels import RBF, best_similarity
    from alfm.geometry.pairs import limit as inside
    from alfm.geometry.pairs import squared_distances
    from alfm.strategies.ask import ask
    from alfm.strategies.parts.sub_pool import Subsampled
    from alfm.strategies.probcover import purity_delta
    from alfm.strategies.query import Query

    task = pools.task(folder, device)
    unit = task.pool.unit
    starts = [np.random.default_rng(r).choice(task.pool.N, labelled, replace=False) for r in range(replicates)]
    rows = torch.from_numpy(np.stack(starts)).to(device)
    available = torch.ones(replicates, task.pool.N, dtype=torch.bool, device=device).scatter_(1, rows, False)
    query = Query(task.pool, rows, task.labels[rows], available, task.num_classes, list(range(replicates)), 2)
    if limit == "part" and value is not None:
        built = Subsampled(from_config("query_strategy", strategy, exact_up_to=10**9, delta=delta), value)
    else:
        options = {"exact_up_to": 10**9} if value is None else {"exact_up_to": 0, limit: value}
        built = from_config("query_strategy", strategy, **options)
    began = machine.drain(device)
    picks, filled = ask(built, query, batch)
    seconds = machine.drain(device) - began
    if strategy == "probcover" and delta is None:
        delta = purity_delta(query, task.num_classes, built.purity)

    def objective(chosen: Any) -> float:
        if delta is None:
            return float(best_similarity(unit, RBF(built.width), chosen).mean())
        centres, sq = unit.rows(chosen), unit.sq_norms
        covered = [
            squared_distances(x, centres, sq[place], sq[chosen]).amin(1) < inside(delta, unit)
            for place, x in unit.blocks()
        ]
        return float(torch.cat(covered).double().mean())

    return {
        "seconds": seconds,
        "filled": filled,
        "delta": delta,
        "before": [objective(own) for own in rows],
        "after": [objective(torch.cat([own, more])) for own, more in zip(rows, picks, strict=True)],
    }


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="100k-384", choices=sorted(pools.POOLS))
    parser.add_argument("--strategies", default=",".join(LIMITED))
    parser.add_argument("--sizes", default="50000,20000", help="items of maxherding's part")
    parser.add_argument("--parts", default="50000,10000", help="items of probcover's part")
    parser.add_argument("--probes", default="1,2,4,8,16,32,64", help="probcover's cells near each item")
    parser.add_argument("--replicates", type=int, default=2)
    options = parser.parse_args()
    if options.job:
        machine.serve({"one": one}, options.job)
        return
    spec = pools.POOLS["tiny" if options.smoke else options.pool]
    values = {
        "sample": [300, 150] if options.smoke else numbers(options.sizes), "probe": numbers(options.probes),
        "part": [300, 150] if options.smoke else numbers(options.parts),
    }  # fmt: skip
    result: dict[str, Any] = {
        "benchmark": "sampled", "machine": machine.describe(options.device), "threads": options.threads,
        "pool": str(spec), "points": [],
    }  # fmt: skip
    rows = []
    for strategy in options.strategies.split(","):
        exact: dict[str, Any] = {}
        points = [(limit, value) for limit in LIMITED[strategy] for value in values[limit]]
        for limit, value in [(LIMITED[strategy][0], None), *points]:
            how = "exact" if value is None else f"{limit} {value}"
            print(f"  {strategy} {how} ...", file=sys.stderr, flush=True)
            arguments = {
                "folder": str(pools.make(spec, options.work)), "strategy": strategy, "limit": limit, "value": value,
                "delta": exact.get("delta"), "replicates": options.replicates, "labelled": spec.labelled,
                "batch": spec.batch, "device": options.device,
            }  # fmt: skip
            point = alone(
                __file__, "one", arguments, threads=options.threads, timeout=options.timeout, memory_gib=options.memory
            )
            result["points"].append({"strategy": strategy, limit: value} | point)
            machine.save(options.json, result)
            exact = exact or point
            loss = None
            if point["status"] == exact["status"] == "ok":
                gains = [
                    [after - before for before, after in zip(p["before"], p["after"], strict=True)]
                    for p in (point, exact)
                ]
                loss = 100 * statistics.fmean(1 - mine / best for mine, best in zip(*gains, strict=True))
                result["points"][-1]["loss_percent"] = loss
            after = statistics.fmean(point["after"]) if "after" in point else None
            rows.append([strategy, how, after, loss, point.get("seconds"), report_problem(point)])
    columns = ["strategy", "looks at", "objective on the whole pool", "loss of gain %", "query s", "status"]
    note = f"{spec.labelled} labels, B={spec.batch}, {options.replicates} replicates, {options.threads} threads."
    table(f"Exact and not, {spec}", columns, rows, note)
    machine.save(options.json, result)


if __name__ == "__main__":
    main()
