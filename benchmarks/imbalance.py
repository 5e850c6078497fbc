"""Who still beats random when classes are rare, and when a fifth of the answers are wrong?

Power-law imbalance, drawn by three pool seeds, and symmetric label noise; ten seeds each, the same random initial set
for all strategies, default head. Runs go through `alfm.al_train` into ordinary run folders, so an interrupted
comparison goes on where it was, and `python -m alfm.report` reads the same runs.

    python benchmarks/imbalance.py --data features --out logs/imbalance
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import comma, describe

if TYPE_CHECKING:
    import pandas as pd

STRATEGIES = "random,margins,badge,bait,uherding,typiclust,coreset,dropquery"
IMBALANCED = ("balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Setting:
    """One cache under one condition: words for al_train, the draws of its pool, and what it is measured by."""

    name: str
    dataset: str
    words: tuple[str, ...]
    pool_seeds: str = "0"
    metrics: tuple[str, ...] = ("accuracy",)


FEW = ("budget.init=1", "budget.step=1", "iterations.n=15")
MANY = ("budget.init=1", "budget.step=0.5", "iterations.n=8")
SETTINGS = (
    Setting("cifar10, power law 1:100", "cifar10", (*FEW, "pool.imbalance=power_law", "pool.ratio=100"), "0,1,2",
            IMBALANCED),
    Setting("banking77, power law 1:20", "banking77", (*MANY, "pool.imbalance=power_law", "pool.ratio=20"), "0,1,2",
            IMBALANCED),
    Setting("cifar10, 20 % noise", "cifar10", (*FEW, "oracle.noise=0.2")),
    Setting("oxford_pets, 20 % noise", "oxford_pets", (*MANY, "oracle.noise=0.2")),
    Setting("cifar10, as it is", "cifar10", FEW, metrics=("accuracy", *IMBALANCED)),
    Setting("oxford_pets, as it is", "oxford_pets", MANY),
    Setting("banking77, as it is", "banking77", MANY, metrics=IMBALANCED),
)  # fmt: skip


def main() -> int:
    arguments = parse()
    os.environ["LOG_DIR"] = str(arguments.out)
    chosen = [one for one in SETTINGS if not arguments.settings or one.name in arguments.settings.split(";")]
    status = 0 if arguments.report else run(arguments, chosen)
    figures = [row for one in chosen for row in measured(arguments, one)]
    print(table(figures))
    if arguments.json:
        result = {"machine": describe(arguments.device), "seeds": arguments.seeds, "figures": figures}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return status


def parse() -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of caches, <dataset>/<model>.h5")
    parser.add_argument("--strategies", default=STRATEGIES, help="a,b; random is among them")
    parser.add_argument("--settings", default="", help="names, split by semicolons; all when empty")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, 1 to this; tests need 10")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("logs/imbalance"), help="where the run folders go")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further run after this")
    parser.add_argument("--report", action="store_true", help="run nothing, read what is there")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    return parser.parse_args()


def run(arguments: argparse.Namespace, settings: list[Setting]) -> int:
    """All runs that are not there yet; the exit status of the worst."""
    from alfm.al_train import TASK
    from alfm.config.hydra import run_hydra
    from alfm.engines.base import open_session
    from alfm.engines.local import Local

    engine = Local(open_session(TASK))
    seeds = ",".join(str(seed) for seed in range(1, arguments.seeds + 1))
    status, until = 0, time.monotonic() + 60 * arguments.minutes
    for setting in settings:
        common = [f"cache='{cache_of(arguments, setting)}'", f"seeds=[{seeds}]", f"device={arguments.device}"]
        for strategy in comma(arguments.strategies):
            if time.monotonic() > until:
                return status
            drawn = ["-m", f"pool.seed={setting.pool_seeds}"] if "," in setting.pool_seeds else []
            words = [*common, *setting.words, *drawn, f"query_strategy={strategy}", "init_strategy=random"]
            status = max(status, run_hydra("al_train", TASK, engine.run, argv=words))
    return status


def cache_of(arguments: argparse.Namespace, setting: Setting) -> Path:
    found = sorted((arguments.data / setting.dataset).glob("*.h5"))
    if not found:
        sys.exit(f"Error: no cache of {setting.dataset} in {arguments.data}")
    return found[0].absolute()


def measured(arguments: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    """A row per metric and strategy: gain over random in points, and in each pool."""
    from alfm.results.against_random import against_random
    from alfm.results.pairing import paired_curves

    runs = runs_of(arguments, setting)
    rows: list[dict[str, Any]] = []
    for metric in setting.metrics if runs is not None else ():
        curves = paired_curves(runs, metric)
        areas = 100 * curves.areas()
        level = float(areas[curves.strategies.index("random")].mean())
        draws = [str(one).rpartition("/")[0] for one in curves.seeds]
        for one in against_random(curves).to_dict("records"):
            gains = areas[curves.strategies.index(one["strategy"])] - areas[curves.strategies.index("random")]
            pools = {draw: round(float(gains[[d == draw for d in draws]].mean()), 2) for draw in dict.fromkeys(draws)}
            plain = {key: _plain(value) for key, value in one.items()}
            rows.append(
                {"setting": setting.name, "metric": metric, "random": round(level, 2), **plain,
                 "pools": list(pools.values()), "labels": int(curves.num_labeled[-1])}
            )  # fmt: skip
    return rows


def _plain(value: Any) -> Any:
    """Ready for JSON, which has no NaN."""
    return value if not isinstance(value, float) else None if value != value else float(f"{value:.4g}")


def runs_of(arguments: argparse.Namespace, setting: Setting) -> pd.DataFrame | None:
    """The finished runs of a setting; None without runs of random and something else."""
    from alfm.errors import UserError
    from alfm.results.load import load_runs

    try:
        df = load_runs(arguments.out / setting.dataset)
    except UserError:
        return None
    options = [json.loads(text) for text in df["conditions"]]
    wanted = {tuple(word.split("=")) for word in setting.words}
    made = {key: value for key, value in wanted if key.startswith(("pool.", "oracle."))}

    def here(own: dict[str, Any]) -> bool:
        pool, oracle = own.get("pool", {}), own.get("oracle", {})
        noise, ratio = made.get("oracle.noise", "0"), made.get("pool.ratio", "0")
        return f"{oracle.get('noise', 0):g}" == noise and f"{pool.get('ratio') or 0:g}" == ratio

    df = df[[here(own) for own in options]]
    return df if {"random"} < set(df["query_strategy"]) else None


def table(figures: list[dict[str, Any]]) -> str:
    """In Markdown: gain over random in points with its interval, ▲ better and ▼ worse after Holm."""
    marks = {"better": " ▲", "worse": " ▼"}
    names = list(dict.fromkeys(row["strategy"] for row in figures))
    lines = [f"| setting | metric | random | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for key in dict.fromkeys((row["setting"], row["metric"]) for row in figures):
        own = {row["strategy"]: row for row in figures if (row["setting"], row["metric"]) == key}
        cells = []
        for name in names:
            row = own.get(name)
            text = "" if row is None else f"{row['gap']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
            cells.append(text + (marks.get(row["verdict"], "") if row else ""))
        first = next(iter(own.values()))
        lines.append(f"| {key[0]} | {key[1]} | {first['random']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
