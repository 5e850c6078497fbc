"""One report over several caches, twelve strategies, twenty seeds and six stopping rules that watch.

Runs go through `alfm.al_train` into ordinary run folders, so that an interrupted benchmark goes on where it was; then
the page, its figures and its tables are written as `python -m alfm.report --html` writes them.

    python benchmarks/report.py --data features --out logs/report --html report.html
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from compare_strategies import find_caches
from machine import comma

CACHES = "dtd,oxford_pets,cifar10"
STRATEGIES = (
    "random,margins,entropy,uncertainty,powermargins,badge,coreset,probcover,cluster_margin,tcm,alfamix,uherding"
)
RULES = "kappa_average,classification_change,delta_f,min_expected_error,selected_accuracy,uncertainty_convergence"
UNFINISHED = 3
"""Exit status where `--minutes` were over before all runs were there."""


def main() -> int:
    arguments = parse()
    caches = find_caches(arguments.data, comma(arguments.caches))
    os.environ["LOG_DIR"] = str(arguments.out)
    status = 0 if arguments.report else run(arguments, caches)
    if status:
        return status
    from alfm.report.__main__ import main as report

    return report([str(arguments.out), "--html", str(arguments.html)])


def parse() -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of caches, <dataset>/<model>.h5")
    parser.add_argument("--caches", default=CACHES, help="data sets to use, a,b; all when empty")
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--rules", default=RULES, help="stopping rules that watch")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds, 1 to this")
    parser.add_argument("--rounds", type=int, default=10, help="rounds, the initial set being the first")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("logs/report"), help="where the run folders go")
    parser.add_argument("--html", type=Path, default=Path("report.html"), help="the page")
    parser.add_argument("--report", action="store_true", help="run nothing, read what is there")
    parser.add_argument("--minutes", type=float, help=f"begin no run after these, and end with status {UNFINISHED}")
    return parser.parse_args()


def run(arguments: argparse.Namespace, caches: Sequence[Path]) -> int:
    """All runs that are not there yet; the exit status of the worst, or `UNFINISHED`."""
    from alfm.al_train import TASK
    from alfm.config.hydra import run_hydra
    from alfm.engines.base import open_session
    from alfm.engines.local import Local

    engine = Local(open_session(TASK))  # one for all, so that each cache is read once
    end = time.monotonic() + 60 * (arguments.minutes or float("inf"))
    seeds = ",".join(str(seed) for seed in range(1, arguments.seeds + 1))
    status = 0
    for strategy in comma(arguments.strategies):
        for cache in caches:
            if time.monotonic() > end:
                return UNFINISHED
            words = [
                f"cache='{cache}'", f"seeds=[{seeds}]", f"iterations.n={arguments.rounds}", "init_strategy=random",
                f"device={arguments.device}", f"query_strategy={strategy}", f"stopping=[{arguments.rules}]",
            ]  # fmt: skip
            status = max(status, run_hydra("al_train", TASK, engine.run, argv=words))
    return status


if __name__ == "__main__":
    sys.exit(main())
