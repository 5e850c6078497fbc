"""Do the intervals of an audit hold, on real caches, and how wrong is what needs no audit?

    python benchmarks/audit.py --data FEATURES --json audit.json       # FEATURES/<dataset>/<model>.h5, or files

Per cache and strategy: runs of active learning from a random start (as many items as classes, then as many a round, ten
rounds; one seed each), and for each run many random orders of the pool. A session is one run with one order: 20 audit
labels a round, each item that the strategy picks leaving the audit. Neither picks nor heads depend on the order, so a
run is made once. Truth: the share of all items that a round's model was not trained on that it gets right.

holds: how often an interval from the first 50, 100 or 200 of the audit covers the truth, over all rounds and sessions.
advice: in how many whole sessions not one of its intervals, looked at after every label, misses; beside it Wilson's
interval looked at as often. Others: what the same models' labelled items and confidences would have said instead.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from heads import caches
from machine import alone, comma, report_problem, table

SIZES = (50, 100, 200)
ROUNDS, EACH = 10, 20
"""Rounds of a session, and audit labels that come in each."""
FEW = 5
"""Runs in which labelled items are cross-validated."""
WANTED, NARROWER = 0.93, 0.04


def cell(cache: str, strategy: str, runs: int, orders: int, device: str) -> dict[str, Any]:
    """All that is measured of one strategy on one cache."""
    answers, others = simulated(cache, strategy, runs, device)
    return sessions(answers, orders) | {"others": others}


# -- the runs --------------------------------------------------------------------------------------------------------


def simulated(cache: str, strategy: str, runs: int, device: str) -> tuple[list[list[Any]], dict[str, Any]]:
    """For each round and run: right bool (N',) and confidence float64 (N',) of the items that its model was not trained
    on, and their rows int64 (N',); and what other estimates miss by."""
    from alfm.config.parts import from_config
    from alfm.simulation.cached_task import Simulation
    from alfm.simulation.loop import learners_of, play, schedule

    task = Simulation(cache, device)
    parts = [from_config(*one) for one in (("classifier", "logistic"), ("init_strategy", "random"))]
    learner = learners_of(task, *parts, from_config("query_strategy", strategy), list(range(runs)))
    answers, others = [], {}
    for one in play(learner, task, schedule(ROUNDS, task.num_classes, task.num_classes)):
        right, sure, p1 = seen(task, learner.head)
        free = learner.available.cpu().numpy()
        answers.append(
            [(right[r, rows], sure[r, rows], rows) for r in range(runs) for rows in [np.flatnonzero(free[r])]]
        )
        truth = np.array([right[r, free[r]].mean() for r in range(runs)])
        if one.round in (3, ROUNDS):
            said = {
                "mean confidence": np.array([p1[r, free[r]].mean() for r in range(runs)]),
                "cross-validation": cross_validated(task, learner, min(runs, FEW)),
            }
            misses = {name: value - truth[: len(value)] for name, value in said.items()}
            others[one.round] = {"truth": float(truth.mean())} | {
                name: {"error": float(miss.mean()), "worst": float(np.abs(miss).max())} for name, miss in misses.items()
            }
    return answers, others


def seen(task: Any, head: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R, N) each: is the pool's item right; how sure is the head, as an audit weighs it; the largest probability."""
    from alfm.labelling.audit import sureness

    def look(phi: Any, logits: Any, rows: slice, r: int) -> Any:
        classes, sure, p1 = sureness(logits)
        return classes == task.labels[rows], sure, p1

    return tuple(part.cpu().numpy() for part in head.map(task.pool, look))


def cross_validated(task: Any, learner: Any, runs: int) -> np.ndarray:
    """float64 (runs,): share of the labelled items that heads fitted without their fold get right."""
    from alfm.labelling.disputed import out_of_fold

    shares = []
    for rows, targets in zip(learner.rows[:runs], learner.targets[:runs], strict=True):
        probabilities, _ = out_of_fold(task.pool, rows, targets, task.num_classes, learner.classifier, seed=0)
        shares.append(float((probabilities.argmax(1) == targets.cpu().numpy()).mean()))
    return np.array(shares)


# -- the sessions ----------------------------------------------------------------------------------------------------


def sessions(answers: list[list[Any]], orders: int) -> dict[str, Any]:
    """Coverage, widths and methods over all orders of all runs."""
    from alfm.labelling.estimates import ConfidenceSequence, ppi_plus_plus, spent

    kinds = ("wilson", "estimate")
    held: dict[str, dict[int, list[bool]]] = {kind: {m: [] for m in SIZES} for kind in kinds}
    widths: dict[str, dict[int, list[float]]] = {kind: {m: [] for m in SIZES} for kind in kinds}
    misses: dict[int, list[float]] = {m: [] for m in SIZES}
    with_confidences: dict[int, list[bool]] = {m: [] for m in SIZES}
    never: dict[str, list[bool]] = {"advice": [], "wilson": []}
    last = []
    most = 1 + max(int(rows[-1]) for _, _, rows in answers[0])
    lefts = [len(of_round[0][2]) for of_round in answers]  # the same in every run
    advices, wilsons = [], []
    for k, N in enumerate(lefts, 1):
        now = range(EACH * (k - 1) + 1, EACH * k + 1)  # audit labels that come while this model is the newest
        advices.append(table_of(range(1, EACH * k + 1), ConfidenceSequence(N, spent(k)).looks))
        wilsons.append(table_of({*SIZES, *now}, wilson_looks(N)))
    times = np.arange(1, max(SIZES) + 1)
    for run in range(len(answers[0])):
        for number in range(orders):
            place = np.random.default_rng([run, number]).permutation(most)
            left = {"advice": True, "wilson": True}
            for k, (right, sure, rows) in enumerate((of_round[run] for of_round in answers), 1):
                truth = float(right.mean())
                order = np.argpartition(place[rows], max(SIZES))[: max(SIZES)]
                order = order[np.argsort(place[rows][order])]
                c, f = right[order], sure[order]
                plain = wilsons[k - 1][:, times, np.cumsum(c)]  # (2, 200): low and high after each label
                for m in SIZES:
                    found = ppi_plus_plus(c[:m], f[:m], sure)
                    held["wilson"][m].append(bool(plain[0, m - 1] <= truth <= plain[1, m - 1]))
                    widths["wilson"][m].append(plain[1, m - 1] - plain[0, m - 1])
                    held["estimate"][m].append(truth in found.interval)
                    widths["estimate"][m].append(found.interval.width)
                    misses[m].append(found.value - truth)
                    with_confidences[m].append(found.method == "PPI++")
                low, high = advices[k - 1][:, times, np.cumsum(c)][:, : EACH * k]
                left["advice"] &= bool(low.max() <= truth <= high.min())
                looked = plain[:, EACH * (k - 1) : EACH * k]
                left["wilson"] &= bool(looked[0].max() <= truth <= looked[1].min())
            last.append(high.min() - low.max())
            for kind, whole in left.items():
                never[kind].append(whole)

    def mean(values: dict[int, list[Any]]) -> dict[int, float]:
        return {m: float(np.mean(one)) for m, one in values.items()}

    return {
        "sessions": len(last),
        "holds": {kind: mean(one) for kind, one in held.items()},
        "width": {kind: mean(one) for kind, one in widths.items()},
        "error": {m: float(np.sqrt(np.mean(np.square(one)))) for m, one in misses.items()},
        "bias": mean(misses),
        "with_confidences": mean(with_confidences),
        "narrower": {m: 1 - np.mean(widths["estimate"][m]) / np.mean(widths["wilson"][m]) for m in SIZES},
        "never_left": {kind: float(np.mean(one)) for kind, one in never.items()},
        "advice_width": float(np.mean(last)),
    }


def table_of(
    times: Iterable[int], looks: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """low and high of every outcome, float64 (2, m + 1, m + 1) by labels and right ones, by the intervals' own code."""
    m = max(SIZES)
    t = np.concatenate([np.full(one + 1, one) for one in times])
    S = np.concatenate([np.arange(one + 1) for one in times])
    out = np.full((2, m + 1, m + 1), np.nan)
    out[:, t, S] = looks(S, t)
    return out


def wilson_looks(N: int) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The same for one look."""
    from alfm.labelling.estimates import wilson

    def looks(correct: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [wilson(S, t, population=N) for S, t in zip(correct.tolist(), m.tolist(), strict=True)]
        return np.array([one.low for one in found]), np.array([one.high for one in found])

    return looks


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="cache files, or folders <dataset>/<model>.h5")
    parser.add_argument("--strategies", default="random,margins,uherding")
    parser.add_argument("--runs", type=int, default=20, help="of active learning, one seed each")
    parser.add_argument("--orders", type=int, default=50, help="of the pool, for each run")
    options = parser.parse_args()
    if options.job:
        machine.serve({"cell": cell}, options.job)
        return
    if not caches(options.data):
        parser.error("--data names no cache: give .h5 files, or a folder that holds <dataset>/<model>.h5")
    if options.smoke:
        options.runs, options.orders = 2, 3
    result: dict[str, Any] = {
        "benchmark": "audit", "machine": machine.describe(options.device), "threads": options.threads,
        "runs": options.runs, "orders": options.orders, "cells": {},
    }  # fmt: skip
    for cache in caches(options.data):
        for strategy in comma(options.strategies):
            print(f"  {cache.parent.name}, {strategy} ...", file=sys.stderr, flush=True)
            arguments = {
                "cache": str(cache), "strategy": strategy, "runs": options.runs, "orders": options.orders,
                "device": options.device,
            }  # fmt: skip
            result["cells"][f"{cache.parent.name}, {strategy}"] = alone(
                __file__, "cell", arguments, threads=options.threads, timeout=options.timeout, memory_gib=options.memory
            )
            machine.save(options.json, result)
    show(result)


def show(result: dict[str, Any]) -> None:
    """The two tables."""
    for title, columns, rows, note in tables(result):
        table(title, columns, rows, note)


def tables(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[Any]], str]]:
    """title, columns, rows, note of each; figures as they come out of the file, whose sizes are texts."""
    first, second = [], []
    for name, of_cell in result["cells"].items():
        if of_cell["status"] != "ok":
            first.append([name, *[None] * 9, report_problem(of_cell)])
            continue
        holds, never = of_cell["holds"], of_cell["never_left"]
        worst = min(*holds["wilson"].values(), *holds["estimate"].values(), never["advice"])
        enough = worst >= WANTED and of_cell["narrower"]["100"] >= NARROWER
        first.append([
            name, *(" / ".join(f"{100 * one:.1f}" for one in holds[kind].values()) for kind in ("wilson", "estimate")),
            f"{100 * of_cell['width']['wilson']['100']:.1f}", f"{100 * of_cell['narrower']['100']:.1f}",
            f"{100 * of_cell['with_confidences']['100']:.0f}", f"{100 * never['advice']:.1f}",
            f"{100 * of_cell['advice_width']:.1f}", f"{100 * never['wilson']:.1f}", of_cell["sessions"],
            "yes" if enough else "NO",
        ])  # fmt: skip
        for number in ("3", str(ROUNDS)):
            others = of_cell["others"][number]
            second.append([
                f"{name}, {number} labels per class", f"{100 * others['truth']:.1f}",
                *(f"{100 * others[kind]['error']:+.1f} ({100 * others[kind]['worst']:.0f})"
                  for kind in ("cross-validation", "mean confidence")),
                f"{100 * of_cell['bias']['100']:+.2f} ({100 * of_cell['error']['100']:.1f})",
            ])  # fmt: skip
    good = [one for one in result["cells"].values() if one["status"] == "ok"]
    gain = 100 * statistics.fmean(one["narrower"]["100"] for one in good) if good else float("nan")
    note = (
        f"Percent. {result['runs']} runs x {result['orders']} orders, {ROUNDS} rounds, {EACH} audit labels a round. "
        f"Wanted: everything holds in {100 * WANTED:.0f} %, {100 * NARROWER:.0f} % narrower at 100; narrower on "
        f"average: {gain:.1f} %."
    )
    columns = [
        "cache, strategy", "Wilson holds at 50 / 100 / 200", "estimate holds", "Wilson's width at 100", "narrower by",
        "used confidences", "advice never left", "its width at 200", "Wilson never left", "sessions", "as wanted",
    ]  # fmt: skip
    other = "Points: mean error over runs (worst); of the audit of 100, over all rounds (root mean square)."
    return [
        ("Intervals of an audit", columns, first, note),
        ("What else one might have called accuracy", ["cache, strategy", "accuracy on the rest", "cross-validation",
         "mean confidence", "audit of 100"], second, other),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
