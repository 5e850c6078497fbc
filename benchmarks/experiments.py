"""The curves of published settings (`conf/experiment`) on caches that are at hand.

Each is the command that the documentation names, `experiment=NAME cache=CACHE`, with fewer seeds; runs are ordinary run
folders under OUT/NAME, so an interrupted command goes on where it was, and `python -m alfm.report OUT/NAME` reads them.

    python benchmarks/experiments.py --data FEATURES --out RUNS --json benchmarks/results/experiments.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from machine import comma, describe

CACHES = {
    "torchal_budget_5": "cifar10",
    "torchal_budget_10": "cifar10",
    "torchal_imbalance": "cifar10",
    "torchal_noise": "cifar10",
    "torchal_validation": "cifar10",
    "torchal_partitions": "cifar10",
    "torchal_regularisation": "cifar10",
    "mdalth_ag_news": "banking77",
    "mdalth_food101": "oxford_pets",
}
"""Which data set's cache each is run on; MDALTH's own data sets are not at hand, others of their kind stand in."""


def main() -> int:
    arguments = parse()
    chosen = {name: data for name, data in CACHES.items() if name in (comma(arguments.experiments) or CACHES)}
    status = 0 if arguments.report else run(arguments, chosen)
    curves = [one for name, data in chosen.items() for one in curves_of(arguments.out / name, name, data)]
    print(table(curves))
    if arguments.json:
        result = {"machine": describe(arguments.device), "seeds": arguments.seeds, "curves": curves}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return status


def parse() -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of caches, <dataset>/<model>.h5")
    parser.add_argument("--experiments", default="", help="names, a,b; all of the list when empty")
    parser.add_argument("--strategies", default="", help="a,b; the experiment's own when empty")
    parser.add_argument(
        "--partitions", default="", metavar="FOLDER", help="index sets of torchal_partitions, a run's own too"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, 1 to this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("logs/experiments"), help="where the run folders go")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further experiment after this")
    parser.add_argument("--report", action="store_true", help="run nothing, read what is there")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all curves here")
    return parser.parse_args()


def run(arguments: argparse.Namespace, chosen: dict[str, str]) -> int:
    """All runs that are not there yet; the exit status of the worst."""
    from alfm.al_train import main as al_train

    status, until = 0, time.monotonic() + 60 * arguments.minutes
    for name, data in chosen.items():
        if time.monotonic() > until:
            break
        if name == "torchal_partitions" and not arguments.partitions:
            continue
        os.environ["LOG_DIR"] = str(arguments.out / name)
        cache = sorted((arguments.data / data).glob("*.h5"))
        if not cache:
            sys.exit(f"Error: no cache of {data} in {arguments.data}")
        seeds = ",".join(str(seed) for seed in range(1, arguments.seeds + 1))
        words = [f"experiment={name}", f"cache='{cache[0].absolute()}'", f"seeds=[{seeds}]"]
        words += [f"device={arguments.device}"]
        words += [f"index_sets.folder='{arguments.partitions}'"] if name == "torchal_partitions" else []
        words += ["-m", f"query_strategy={arguments.strategies}"] if arguments.strategies else []
        status = max(status, al_train(words))
    return status


def curves_of(folder: Path, name: str, data: str) -> list[dict[str, Any]]:
    """Of every setting and strategy: mean accuracy (%) after so many labels, and the gain over random in points."""
    from alfm.errors import UserError
    from alfm.results.against_random import runs_against_random
    from alfm.results.load import load_runs
    from alfm.results.setting import REFERENCE, settings_of

    try:
        runs = load_runs(folder)
    except UserError:
        return []
    found = []
    for setting in settings_of(runs):
        df = setting.shared
        gains: dict[str, Any] = {}
        if REFERENCE in set(df["strategy"]):
            frame = runs_against_random(df, "accuracy", "strategy")
            gains = {one["strategy"]: one for one in frame.to_dict("records")}
        apart = setting.own.assign(strategy=setting.own["strategy"] + " (" + setting.own["init_strategy"] + " start)")
        named = [one for runs in (df, apart) for one in runs.groupby("strategy", sort=False)]
        for strategy, own in named:  # those with a cold start of their own have no paired gain
            mean = 100 * own.groupby("num_labeled")["accuracy"].mean()
            one = gains.get(str(strategy), {})
            gain = {key: plain(one.get(key)) for key in ("gap", "low", "high", "verdict")}
            found.append(
                {"experiment": name, "data": data, "setting": setting.rules, "strategy": strategy,
                 "labels": [int(n) for n in mean.index], "accuracy": [round(float(v), 2) for v in mean], **gain}
            )  # fmt: skip
    return found


def plain(value: Any) -> Any:
    """Ready for JSON, which has no NaN."""
    return value if not isinstance(value, float) else None if value != value else round(value, 3)


def table(curves: list[dict[str, Any]]) -> str:
    """In Markdown: random's accuracy in the first and the last round, and every strategy's gain over its area."""
    marks = {"better": " ▲", "worse": " ▼"}
    paired = [one for one in curves if one["gap"] is not None]
    names = sorted({one["strategy"] for one in paired})
    lines = [f"| experiment | setting | labels | random, % | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for key in dict.fromkeys((one["experiment"], one["setting"]) for one in curves):
        own = {one["strategy"]: one for one in curves if (one["experiment"], one["setting"]) == key}
        if "random" not in own:
            continue
        labels, accuracy = own["random"]["labels"], own["random"]["accuracy"]
        gains = [(one := own.get(name)) and f"{one['gap']:+.2f}{marks.get(one['verdict'], '')}" for name in names]
        lines.append(
            f"| {key[0]} on {own['random']['data']} | {key[1]} | {labels[0]} to {labels[-1]} | {accuracy[0]:.1f} to "
            f"{accuracy[-1]:.1f} | {' | '.join(gain or '' for gain in gains)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
