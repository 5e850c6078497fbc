"""Where would each stopping rule have ended a run, and what would that have saved and cost?

Every rule watches every run to its end: several strategies on every cache, the same random initial set for all, ten
seeds. Runs go through `alfm.al_train` into ordinary run folders, so that an interrupted benchmark goes on where it was
and `python -m alfm.report` shows the same verdicts.

    python benchmarks/stopping.py --data features --steps cifar10=5 --out logs/stopping
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare_strategies import find_caches, told
from machine import comma, describe, markdown

from alfm.metrics import Scale
from alfm.report.cells import TableCell

COUNTS = ("labelling_budget", "max_rounds", "time_limit")
TENTHS, WHOLE = Scale(100, digits=1), Scale(100, digits=0)
Lines = list[str]


def main() -> int:
    arguments = parse()
    caches = find_caches(arguments.data, comma(arguments.caches))
    steps = dict(pair.split("=") for pair in comma(arguments.steps))
    os.environ["LOG_DIR"] = str(arguments.out)
    status = 0 if arguments.report else run(arguments, caches, steps)
    text = "\n".join(report(arguments, caches))
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    return status


def parse() -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of caches, <dataset>/<model>.h5")
    parser.add_argument("--caches", default="", help="data sets to use, a,b; all when empty")
    parser.add_argument("--strategies", default="random,margins,badge,typiclust,uherding")
    parser.add_argument("--steps", default="", help="labels per class and round where it is not 1: cifar10=5")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, 1 to this")
    parser.add_argument("--rounds", type=int, default=25, help="rounds, the initial set being the first")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("logs/stopping"), help="where the run folders go")
    parser.add_argument("--report", action="store_true", help="run nothing, read what is there")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write what is printed here too")
    return parser.parse_args()


def rules() -> list[str]:
    """All but the counts, which stop where they are told to."""
    from alfm.config.paths import conf_dir

    return [path.stem for path in sorted((conf_dir() / "stopping").glob("*.yaml")) if path.stem not in COUNTS]


def run(arguments: argparse.Namespace, caches: Sequence[Path], steps: dict[str, str]) -> int:
    """All runs that are not there yet; the exit status of the worst."""
    from alfm.al_train import TASK
    from alfm.config.hydra import run_hydra
    from alfm.engines.base import open_session
    from alfm.engines.local import Local

    engine = Local(open_session(TASK))  # one for all, so that each cache is read once
    seeds = ",".join(str(seed) for seed in range(1, arguments.seeds + 1))
    status = 0
    for cache in caches:
        step = steps.get(cache.parent.name, "1")
        words = [
            f"cache='{cache}'", f"seeds=[{seeds}]", f"iterations.n={arguments.rounds}", f"device={arguments.device}",
            "init_strategy=random", f"budget.init={step}", f"budget.step={step}",
            f"query_strategy={arguments.strategies}", f"stopping=[{','.join(rules())}]",
        ]  # fmt: skip
        status = max(status, run_hydra("al_train", TASK, engine.run, argv=["-m", *words]))
    return status


def report(arguments, caches):
    return []


if __name__ == "__main__":
    sys.exit(main())
