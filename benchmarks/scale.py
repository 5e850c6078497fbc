"""How time and peak memory grow with the pool (10k -> 100k -> 1M items, D = 384) and with replicates (1 -> 5 -> 25).

    python benchmarks/scale.py --strategies margins,coreset,badge --json scale.json

Every point is a process of its own. Exponents are the slopes of least-squares lines through log time (or log of the
memory above an idle process's) against log N or log R, printed with the number of points they rest on.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import machine
import pools
import speed
from machine import alone, comma, gib, numbers, report_problem, table

STRATEGIES = "random,margins,entropy,coreset,badge,dropquery,typiclust,probcover,maxherding"
QUADRATIC = ("uherding", "dcom", "facility_location", "graph_cut")


def idle(device: str) -> dict[str, Any]:
    """Nothing but the imports: what every process holds."""
    import torch

    import alfm.simulation.loop  # noqa: F401

    torch.zeros(1, device=device)
    return {}


def exponent(points: list[tuple[float, float]]) -> tuple[float, int] | None:
    """Slope of log y against log x, and the number of points; None below two."""
    points = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope, len(points)


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--items", default="10000,100000,1000000", help="pool sizes, at --at-replicates")
    parser.add_argument("--replicates", default="1,5,25", help="replicates, at --at-items")
    parser.add_argument("--at-items", type=int, default=100_000)
    parser.add_argument("--at-replicates", type=int, default=5)
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--quadratic-limit", type=int, default=100_000, help="N^2 strategies are not run beyond this")
    parser.add_argument("--classifier", default="logistic")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.job:
        machine.serve({"ours": speed.ours, "idle": idle}, options.job)
        return
    base, sizes, counts = "1m-384", numbers(options.items), numbers(options.replicates)
    if options.smoke:
        base, sizes, counts, options.at_items, options.at_replicates = "tiny", [300, 600], [1, 2], 300, 1
    limits = {"threads": options.threads, "timeout": options.timeout, "memory_gib": options.memory}
    empty = alone(__file__, "idle", {"device": options.device}, **limits)["peak_bytes"]
    result: dict[str, Any] = {
        "benchmark": "scale", "machine": machine.describe(options.device), "threads": options.threads,
        "idle_bytes": empty, "points": [], "exponents": {},
    }  # fmt: skip
    grid = sorted({(n, options.at_replicates) for n in sizes} | {(options.at_items, r) for r in counts})
    for name in comma(options.strategies):
        for n, R in grid:
            if name.partition(":")[0] in QUADRATIC and ":" not in name and n > options.quadratic_limit:
                point: dict[str, Any] = {"status": "not run", "message": "N^2 beyond --quadratic-limit"}
            else:
                print(f"  {name} N={n} R={R} ...", file=sys.stderr, flush=True)
                spec = pools.sized(base, n)
                arguments = {
                    "folder": str(pools.make(spec, options.work)), "strategy": name, "classifier": options.classifier,
                    "replicates": R, "labelled": spec.labelled, "batch": spec.batch, "repeats": options.repeats,
                    "seconds": options.timeout / 2, "device": options.device,
                }  # fmt: skip
                point = alone(__file__, "ours", arguments, **limits)
            result["points"].append({"strategy": name, "items": n, "replicates": R} | point)
            machine.save(options.json, result)

    rows = [
        [p["strategy"], f"{p['items']:,}", p["replicates"], p.get("round"), p.get("fit"), p.get("query"), p.get("eval"),
         p.get("first_query"), gib(p.get("peak_bytes")), report_problem(p)]
        for p in result["points"]
    ]  # fmt: skip
    columns = ["strategy", "N", "R", "round s", "fit s", "query s", "eval s", "first query s", "peak GiB", "status"]
    spec = pools.POOLS[base]
    note = (
        f"{spec.labelled} labels, B={spec.batch}, {options.threads} threads, {options.device}; "
        f"an idle process holds {gib(empty) or 0:.3g} GiB."
    )
    table(f"Growth, D={spec.dim}, {spec.classes} classes", columns, rows, note)

    rows = []
    for name in comma(options.strategies):
        ok = [p for p in result["points"] if p["strategy"] == name and p["status"] == "ok"]
        found = {}
        axes = ("items", "replicates", options.at_replicates), ("replicates", "items", options.at_items)
        for axis, fixed, value in axes:
            line = [p for p in ok if p[fixed] == value]
            for what in ("first_query", "query", "round", "memory"):
                heights = [(p[axis], p["peak_bytes"] - empty if what == "memory" else p[what] or 0) for p in line]
                found[f"{what} ~ {axis}"] = exponent(heights)
        result["exponents"][name] = found
        rows.append([name, *(f"{e[0]:.2f} ({e[1]})" if e else None for e in found.values())])
    columns = ["strategy"] + [
        f"{what} ~ {axis}" for axis in ("N", "R") for what in ("first query", "query", "round", "memory")
    ]
    table("Fitted exponents (points)", columns, rows, f"N at R={options.at_replicates}; R at N={options.at_items:,}.")
    machine.save(options.json, result)


if __name__ == "__main__":
    main()
