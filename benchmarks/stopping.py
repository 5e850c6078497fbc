"""Where would each stopping rule have ended a run, and what would that have saved and cost?

Every rule watches every run to its end: several strategies on every cache, the same random initial set for all, ten
seeds. Runs go through `alfm.al_train` into ordinary run folders, so that an interrupted benchmark goes on where it was
and `python -m alfm.report` shows the same verdicts.

    python benchmarks/stopping.py --data features --steps cifar10=5 --out logs/stopping
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare_strategies import find_caches, told
from machine import comma, describe, markdown

from alfm.metrics import Scale
from alfm.report.cells import TableCell

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("labelling_budget", "max_rounds", "time_limit")
TENTHS = Scale(100, digits=1)
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
    parser.add_argument("--json", type=Path, metavar="PATH", help="write a row for each cache, strategy and rule")
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


def report(arguments: argparse.Namespace, caches: Sequence[Path]) -> Lines:
    """A table for each cache and one over all, as Markdown."""
    import pandas as pd

    from alfm.report.stops import stops_of
    from alfm.results.load import load_runs
    from alfm.results.setting import settings_of

    machine = describe(arguments.device)
    runs = load_runs(arguments.out)
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['device']}; written {machine['time']}.",
        f"`python benchmarks/stopping.py {shlex.join(told(sys.argv[1:]))}`",
        "",
        f"{arguments.rounds} rounds from the same random start, {arguments.seeds} seeds of {arguments.strategies}; "
        "rules at their defaults. fired: in how many of these replicates; labels (with an audit's), saved and given "
        "up: means over those in which it fired, beside the same replicate's whole budget; worst: the most given up.",
    ]
    parts = []
    for cache in caches:
        here = runs[(runs["dataset"] == cache.parent.name) & (runs["model"] == cache.stem)]
        stops = [stops_of(setting, "accuracy") for setting in settings_of(here)] if len(here) else []
        if not stops or not sum(map(len, stops)):
            lines += ["", f"{cache.parent.name}/{cache.stem}: not run."]
            continue
        own = pd.concat(stops).assign(cache=cache.parent.name)
        title = f"{cache.parent.name}/{cache.stem}, {own['whole labels'].max():.0f} labels in all, accuracy there "
        lines += ["", f"### {title}{100 * own['whole accuracy'].mean():.1f} %", "", *table(own, labels=True)]
        lines += ["", "By strategy, fired and mean given up:", "", *by_strategy(own)]
        parts.append(own)
    if arguments.json and parts:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": as_rows(pd.concat(parts))}, indent=1) + "\n")
    return [*lines, "", "### Over all", "", *table(pd.concat(parts))] if parts else lines


def table(stops: pd.DataFrame, labels: bool = False) -> Lines:
    """A row for each rule, the one that gives up least first; labels: their mean too, which caches do not share."""
    rows = []
    for rule, own in sorted(stops.groupby("rule"), key=lambda pair: -pair[1]["fired"].mean()):
        fired = own[own["fired"]]
        cells: list[Any] = [str(rule), f"{len(fired)} of {len(own)}"]
        if labels:
            cells.append(TableCell(fired["labels"].mean() if len(fired) else None, Scale()))
        for value in (fired["saved"].mean(), fired["given up"].mean(), fired["given up"].max()):
            cells.append(TableCell(value if len(fired) else None, TENTHS))
        rows.append(cells)
    header = ["rule", "fired", *(["labels"] if labels else []), "saved %", "given up, points", "worst"]
    return markdown(header, rows)


def as_rows(stops: pd.DataFrame) -> list[dict[str, Any]]:
    """The same for programs: of each cache, strategy and rule; shares and accuracies as fractions."""
    rows = []
    for (cache, strategy, rule), own in stops.groupby(["cache", "strategy", "rule"]):
        fired = own[own["fired"]]
        means = {name: round(float(fired[name].mean()), 5) for name in ("labels", "saved", "given up") if len(fired)}
        worst = {"worst": round(float(fired["given up"].max()), 5)} if len(fired) else {}
        rows.append({"cache": cache, "strategy": strategy, "rule": rule, "replicates": len(own), "fired": len(fired)})
        rows[-1] |= means | worst
    return rows


def by_strategy(stops: pd.DataFrame) -> Lines:
    """Of each rule and strategy: in how many seeds it fired, and what was given up there."""
    names = list(dict.fromkeys(stops["strategy"]))
    rows = []
    for rule, own in stops.groupby("rule"):
        cells = []
        for name in names:
            fired = own[(own["strategy"] == name) & own["fired"]]
            gone = f" ({TENTHS.text(fired['given up'].mean())})" if len(fired) else ""
            cells.append(f"{len(fired)}{gone}")
        rows.append([str(rule), *cells])
    return markdown(["rule", *names], rows)


if __name__ == "__main__":
    sys.exit(main())
