"""What a card is worth, part by part; `on_device.sh` runs all of them, each in a process of its own.

    python benchmarks/on_device.py --part rounds-10k --device cuda --json rounds-10k.json

Parts: `rounds-10k`, `rounds-50k`: a round of every strategy but boss, 1 and 5 replicates; `rounds-1m`: of five
strategies on 1.28 million items, float16, drawn on the device; `study`: twelve strategies x five seeds x 20 rounds from
a cache to learning curves; `fits`: 5 seeds x 12 strengths x 5 folds of the logistic head at once. What is measured is
written after each strategy, so that a part which is cut off keeps what it has. `--smoke`: tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pools
from machine import comma, describe, drain, strategy_names, table

STUDY = (
    "random", "uncertainty", "entropy", "margins", "bald", "powerbald", "coreset", "badge", "alfamix", "typiclust",
    "probcover", "dropquery",
)  # fmt: skip
LARGE = ("random", "margins", "badge", "coreset", "dropquery")
PARTS = ("rounds-10k", "rounds-50k", "rounds-1m", "study", "fits")


class Part:
    """One part: where its figures go, and how long it may take."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device
        self.began = time.monotonic()
        self.result: dict[str, Any] = {"part": options.part, "machine": describe(options.device), "found": {}}

    def say(self, name: str, figures: dict[str, Any]) -> None:
        """Another line of the table, on disk at once."""
        self.result["found"][name] = figures
        print(f"  {name}: {figures}", flush=True)
        if self.options.json:
            self.options.json.parent.mkdir(parents=True, exist_ok=True)
            self.options.json.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def time_is_up(self) -> bool:
        return time.monotonic() - self.began > self.options.seconds

    def rounds(self, task: Any, spec: pools.Spec, strategies: Sequence[str]) -> None:
        """Median seconds of rounds after the first query, which is told apart."""
        for name in strategies:
            for R in (1, 5):
                if self.time_is_up():
                    print(f"no time is left for {name} and what follows", flush=True)
                    return
                self.say(f"{name}, R={R}", attempt(self._steady, task, spec, name, R))

    def _steady(self, task: Any, spec: pools.Spec, name: str, R: int) -> dict[str, Any]:
        from alfm.config.parts import from_config
        from alfm.simulation.loop import run

        made, began = [], time.monotonic()
        budgets = [spec.labelled] + [spec.batch] * 8
        parts = [from_config("classifier", "logistic"), from_config("init_strategy", "random"), pools.strategy(name)]
        for one in run(task, *parts, budgets, [*range(1, R + 1)]):
            made.append(one)
            if len(made) >= 3 and time.monotonic() - began > self.options.each:
                break
        steady = made[2:]
        found = {
            "fit": statistics.median(one.fit_seconds for one in steady),
            "query": statistics.median(one.query_seconds for one in steady),
            "eval": statistics.median(one.eval_seconds for one in steady),
        }
        return found | {"first_query": made[1].query_seconds, "rounds": len(steady)}

    def large(self, spec: pools.Spec) -> None:
        self.rounds(drawn(spec, self.device), spec, LARGE)

    def study(self, spec: pools.Spec, rounds: int) -> None:
        """Wall time from a cache in a file to the curves of every strategy."""
        import alfm

        strategies = self.options.strategies or STUDY
        with tempfile.TemporaryDirectory() as folder:
            cache = written(spec, Path(folder))
            began = drain(self.device)
            simulation = alfm.Simulation(cache, self.device)
            self.say("load", {"seconds": drain(self.device) - began})
            for name in strategies:
                started = drain(self.device)
                curve = alfm.simulate(simulation, name, rounds=rounds, step=1, init=1)
                seconds = drain(self.device) - started
                last = curve.groupby("seed")["accuracy"].last().mean()
                self.say(name, {"seconds": seconds, "last accuracy": float(last)})
            self.say("all", {"seconds": drain(self.device) - began})

    def fits(self, labels: int, dim: int, classes: int) -> None:
        """300 heads, as choosing a strength by cross-validation asks for them."""
        import numpy as np
        import torch

        from alfm.features.features import Features
        from alfm.heads.logistic import Logistic
        from alfm.heads.tuned import Tuned

        rng = np.random.default_rng(0)
        y = np.arange(8 * labels) % classes
        x = rng.normal(size=(classes, dim))[y] + 3 * rng.normal(size=(len(y), dim))
        pool = Features(x.astype(np.float32), self.device)
        rows = torch.from_numpy(np.stack([rng.permutation(len(y))[:labels] for _ in range(5)])).to(self.device)
        targets = torch.from_numpy(y).to(self.device)[rows]
        strengths = {"strength": [float(s) for s in np.logspace(-4, 2, 12)]}
        for number in range(3):
            tuned = Tuned(Logistic(), space=strengths)
            began = drain(self.device)
            tuned.fit(pool, rows, targets, classes, [1, 2, 3, 4, 5], number)
            self.say(f"5 seeds x 12 strengths x 5 folds, {number + 1}", {"seconds": drain(self.device) - began})

    def run(self) -> None:
        smoke, part = self.options.smoke, self.options.part
        if part == "rounds-1m":
            self.large(pools.Spec(2_000, 24, 10, 200, 50, 20, "float16") if smoke else pools.POOLS["1m"])
        elif part == "fits":
            self.fits(*((100, 16, 4) if smoke else (1000, 768, 100)))
        else:
            spec = pools.POOLS["tiny" if smoke else "10k" if part == "rounds-10k" else "50k-1536"]
            if part == "study":
                self.study(spec, 4 if smoke else 20)
            else:
                task = pools.task(pools.make(spec, self.options.work), self.device)
                every = self.options.strategies or [name for name in strategy_names() if name not in ("boss", "replay")]
                self.rounds(task, spec, every)


def attempt(measure: Any, *arguments: Any) -> dict[str, Any]:
    """Figures, or what went wrong: one strategy's failure is a line of the table."""
    try:
        return measure(*arguments)
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def drawn(spec: pools.Spec, device: str) -> Any:
    """A task whose features are drawn where they stay: Gaussian classes, for time and memory only."""
    import torch

    import alfm
    from alfm.features.features import Features

    generator = torch.Generator(device).manual_seed(spec.seed)
    centres = torch.randn(spec.classes, spec.dim, generator=generator, device=device)

    def split(items: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(items, device=device) % spec.classes
        x = torch.empty(items, spec.dim, dtype=getattr(torch, spec.dtype), device=device)
        for rows in torch.arange(items, device=device).split(1 << 16):
            noise = torch.randn(len(rows), spec.dim, generator=generator, device=device)
            x[rows] = (0.3 * centres[labels[rows]] + noise).to(x.dtype)
        return x, labels

    (train, y), (test, test_y) = split(spec.items), split(spec.test)
    return alfm.Task(Features(train, device, "device"), y, Features(test, device), test_y, spec.classes)


def written(spec: pools.Spec, folder: Path) -> Path:
    """The pool as a feature cache."""
    import h5py

    path = folder / "synthetic" / "gaussian.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            x, y = pools.arrays(pools.make(spec, None), split)
            file[f"{split}/features"], file[f"{split}/labels"] = x.astype("float16"), y
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--strategies", type=comma, help="these instead of all")
    parser.add_argument("--seconds", type=float, default=85, help="after which no other strategy is begun")
    parser.add_argument("--each", type=float, default=1.5, help="seconds of rounds of one strategy")
    parser.add_argument("--work", type=Path, help="where pools are kept")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it works")
    part = Part(parser.parse_args())
    part.run()
    found = part.result["found"]
    columns = list(dict.fromkeys(key for one in found.values() for key in one))
    table(part.options.part, ["", *columns], [[name, *(one.get(c) for c in columns)] for name, one in found.items()])


if __name__ == "__main__":
    main()
