"""When should UHerding give way to BAIT? Rules of `switched` beside both, on caches of one's own choice.

Every rule on every cache from the same random initial sets, default head, one label per class and round. What is
finished is kept in the file of results, so an interrupted run goes on where it was.

    python benchmarks/switching.py --caches features/dtd/clip_vitb32.h5 features/digits/pixels.h5 --json switching.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, markdown

import alfm
from alfm.metrics import Scale
from alfm.report.cells import TableCell
from alfm.strategies import AfterAgreement, AfterLabels, Bait, Strategy, Switched, UHerding

LABELS = (1, 2, 3, 4, 6, 10, 15)
"""Labels per class after which BAIT goes on; from 1 on it is BAIT alone."""
POINTS, HUNDREDTHS = Scale(digits=2, sign="+"), Scale(digits=2)


def strategies() -> dict[str, Strategy]:
    """By the name that they have in the results."""
    fixed = {f"after {n} labels per class": Switched(UHerding(), Bait(), AfterLabels(n)) for n in LABELS if n > 1}
    return {"uherding": UHerding(), "bait": Bait(), "agreement": Switched(after=AfterAgreement())} | fixed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--caches", nargs="+", type=Path, required=True, help="cache files")
    parser.add_argument("--strategies", nargs="+", default=["uherding", "bait", "agreement"], choices=[*strategies()])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, default=Path("switching.json"), help="results, kept and completed")
    parser.add_argument("--report", action="store_true", help="run nothing, read what is there")
    arguments = parser.parse_args()
    found: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for cache in [] if arguments.report else arguments.caches:
        name = f"{cache.parent.name}/{cache.stem}"
        done = found.setdefault(name, {"seeds": arguments.seeds, "rounds": arguments.rounds, "areas": {}})
        task = alfm.Simulation(cache, device="cpu")
        for label in arguments.strategies:
            if label not in done["areas"]:
                done["areas"][label] = areas(task, strategies()[label], done["seeds"], done["rounds"])
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(describe("cpu")["cpu"])
    for name, done in found.items():
        print(f"\n{name}, {done['seeds']} seeds\n")
        print("\n".join(table(done["areas"])))


def areas(task: alfm.Simulation, strategy: Strategy, seeds: int, rounds: int) -> list[float]:
    """Of each seed: the area under its accuracy over rounds, in points."""
    runs = alfm.simulate(task, strategy, seeds=range(1, seeds + 1), rounds=rounds)
    curves = runs.pivot(index="seed", columns="round", values="accuracy").to_numpy()
    return (100 * np.trapezoid(curves, axis=1) / (rounds - 1)).round(4).tolist()


def table(found: dict[str, list[float]]) -> list[str]:
    """Mean areas, and how far each lies above UHerding and above BAIT with its standard error over seeds."""
    rows = []
    for name, own in found.items():
        row: list[Any] = [name, TableCell(float(np.mean(own)), HUNDREDTHS)]
        for base in ("uherding", "bait"):
            gap = np.subtract(own, found[base]) if base in found and base != name else None
            error = None if gap is None else f"± {gap.std(ddof=1) / len(gap) ** 0.5:.2f}"
            row.append(None if gap is None else TableCell(float(gap.mean()), POINTS, error))
        rows.append(row)
    return markdown(["strategy", "area", "above uherding", "above bait"], rows)


if __name__ == "__main__":
    main()
