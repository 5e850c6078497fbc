"""Which head predicts best from few labels, on real feature caches; and what a fit of the default head costs.

    python benchmarks/heads.py --data FEATURES --json heads.json       # FEATURES/<dataset>/<model>.h5, or files
    python benchmarks/heads.py --timing --data FEATURES/banking77/minilm_l6_v2.h5 --json heads-timing.json

Accuracy: the same labelled items for every head, so many per class, drawn anew for each seed. Printed per cell (cache
and labels per class): every head's mean, and over cells the mean and the worst gap to the best head tried.

Timing: five replicates of `logistic` against ONE fit of scikit-learn's LogisticRegression in float64, in a process of
its own at its best thread count and solver, with the loosest tolerance that reaches the same objective (within 1e-4 of
the optimum, which a fit to 1e-9 finds); and a warm refit after 100 more labels against a cold one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pools
from machine import alone, comma, drain, numbers, report_problem, table

# name -> (config of conf/classifier, its options)
HEADS: dict[str, tuple[str, dict[str, Any]]] = (
    {
        "logistic (default)": ("logistic", {}),
        "dropout": ("dropout", {}),
        "adapter": ("adapter", {}),
    }
    | {
        f"{name} {words}": (name, options)
        for name in ("dropout", "adapter")
        for words, options in {
            "averaging=20": {"averaging": 20},
            "averaging=100": {"averaging": 100},
            "mixup=0.4": {"mixup": 0.4},
            "averaging=20 mixup=0.4": {"averaging": 20, "mixup": 0.4},
        }.items()
    }
    | {
        f"{scaling}, c={c:g}": ("logistic", {"scaling": scaling, "strength": float(c)})
        for scaling in ("soft", "standard", "none")
        for c in (0.01, 0.1, 1, 10, 100)
    }
)


# -- accuracy --------------------------------------------------------------------------------------------------------


def accuracy(cache: str, head: str, per_class: int, seeds: int, device: str) -> dict[str, Any]:
    """Test accuracy of one head for each seed, with `per_class` labels of every class."""
    import torch

    from alfm.config.parts import from_config
    from alfm.simulation.cached_task import Simulation

    task = Simulation(cache, device)
    rows = torch.from_numpy(balanced(task.labels.cpu().numpy(), per_class, seeds)).to(device)
    targets = torch.where(rows >= 0, task.labels[rows.clamp_min(0)], -1)
    name, options = HEADS[head]
    classifier = from_config("classifier", name, **options)
    began = drain(device)
    fitted = classifier.fit(task.pool, rows, targets, task.num_classes, list(range(seeds)), 1)
    seconds = drain(device) - began
    right = [float((z.argmax(1) == task.test_labels).float().mean()) for z in task.test_logits(fitted)]
    return {"accuracy": right, "mean": statistics.fmean(right), "fit_seconds": seconds}


def balanced(labels: np.ndarray, per_class: int, seeds: int) -> np.ndarray:
    """Rows int64 (seeds, n): `per_class` items of every class, or all it has; padded with -1."""
    drawn = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        members = [np.flatnonzero(labels == c) for c in range(int(labels.max()) + 1)]
        drawn.append(np.concatenate([rng.permutation(m)[:per_class] for m in members]))
    out = np.full((seeds, max(map(len, drawn))), -1, dtype=np.int64)
    for row, own in zip(out, drawn, strict=True):
        row[: len(own)] = own
    return out


# -- time ------------------------------------------------------------------------------------------------------------


def prepare(setting: str, cache: str | None, labels: int, out: str) -> dict[str, Any]:
    """phi in float64, targets and c of replicate 0, as ours sees them, written to a file for the other processes."""
    task, rows = _setting(setting, cache, labels, 1, "cpu")
    phi, targets, c = _problem(task, rows[0])
    np.savez(out, phi=phi, targets=targets, c=c)
    return {"classes": int(len(np.unique(targets))), "dim": phi.shape[1], "c": c}


def ours(
    setting: str, cache: str | None, labels: int, problem: str, optimum: float, repeats: int, device: str
) -> dict[str, Any]:
    """Five replicates (what is made once per pool is made beforehand and timed apart); then cold and warm refits."""
    import torch

    from alfm.heads.logistic import Logistic

    task, rows = _setting(setting, cache, labels, 5, device)
    more = min(labels + 100, task.pool.N)
    seeds, head = list(range(5)), Logistic()
    began = drain(device)
    head.fit(task.pool, rows[:, :labels], task.labels[rows[:, :labels]], task.num_classes, seeds)
    first = drain(device) - began  # with moments, space and axes of the pool
    times: dict[str, list[float]] = {"five": [], "one": [], "cold": [], "warm": []}

    def fit(key: str, n: int, replicates: int = 5, previous: Any = None) -> Any:
        part = rows[:replicates, :n]
        began = drain(device)
        fitted = head.fit(task.pool, part, task.labels[part], task.num_classes, seeds[:replicates], previous=previous)
        times[key].append(drain(device) - began)
        return fitted

    for _ in range(repeats):
        before = fit("five", labels)
        fit("one", labels, 1)
        fit("cold", more)
        fit("warm", more, previous=before)
    with np.load(problem) as stored:
        phi, targets, c = stored["phi"], stored["targets"], float(stored["c"])
    seen = torch.from_numpy(np.unique(targets))
    W, b = before.weight[0].double().cpu()[seen].numpy(), before.bias[0].double().cpu()[seen].numpy()
    gap = _objective(phi, np.searchsorted(seen.numpy(), targets), c, W, b) / optimum - 1
    medians = {key: statistics.median(values) for key, values in times.items()}
    return medians | {"first": first, "relative_gap": gap, "warm_over_cold": medians["warm"] / medians["cold"]}


def scikit_learn(problem: str, solver: str, tolerance: float, repeats: int) -> dict[str, Any]:
    """ONE fit of LogisticRegression in float64 to a tolerance: seconds and the objective reached."""
    import time
    import warnings

    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    with np.load(problem) as stored:
        phi, targets, c = stored["phi"], stored["targets"], float(stored["c"])
    times = []
    for _ in range(repeats):
        model = LogisticRegression(C=c, tol=tolerance, solver=solver, max_iter=20_000, class_weight="balanced")
        began = time.perf_counter()
        model.fit(phi, targets)
        times.append(time.perf_counter() - began)
    W, b = model.coef_, model.intercept_
    if len(W) == 1:  # two classes: one column
        W, b = np.concatenate([-W, W]) / 2, np.concatenate([-b, b]) / 2
    value = _objective(phi, np.searchsorted(model.classes_, targets), c, W, b)
    return {"seconds": statistics.median(times), "objective": value}


def loosest(problem: str, solver: str, optimum: float, within: float = 1e-4) -> dict[str, Any]:
    """The largest of a ladder of tolerances whose fit comes within a relative 1e-4 of the optimum."""
    for tolerance in (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5):
        if scikit_learn(problem, solver, tolerance, 1)["objective"] / optimum - 1 < within:
            return {"tolerance": tolerance}
    raise RuntimeError(f"scikit-learn's {solver} did not come within {within:g} of the optimum")


def _setting(setting: str, cache: str | None, labels: int, replicates: int, device: str) -> tuple[Any, Any]:
    import torch

    from alfm.simulation.cached_task import Simulation

    task = pools.task(setting, device) if cache is None else Simulation(cache, device)
    most = min(labels + 100, task.pool.N)
    rows = [np.random.default_rng(r).choice(task.pool.N, most, replace=False) for r in range(replicates)]
    return task, torch.from_numpy(np.stack(rows)).to(device)[:, :most]


def _problem(task: Any, rows: Any) -> tuple[np.ndarray, np.ndarray, float]:
    from alfm.heads.logistic import Logistic

    head = Logistic()
    rows = rows[:-100] if len(rows) > 100 else rows
    phi = task.pool.vectors(head.space(task.pool)).rows(rows).double().cpu().numpy()
    return phi, task.labels[rows].cpu().numpy(), head.inverse_l2(task.num_classes)


def _objective(phi: np.ndarray, targets: np.ndarray, c: float, W: np.ndarray, b: np.ndarray) -> float:
    """sum of cross entropies, classes weighing alike, + |W|^2 / (2 c), float64; targets: 0 to their number - 1."""
    from scipy.special import logsumexp

    z = phi @ W.T + b
    counts = np.bincount(targets)
    loss = logsumexp(z, axis=1) - z[np.arange(len(z)), targets]
    return float(loss @ (len(targets) / (len(counts) * counts))[targets] + (W * W).sum() / (2 * c))


JOBS = {"accuracy": accuracy, "prepare": prepare, "ours": ours, "scikit_learn": scikit_learn, "loosest": loosest}


# -- the two tables --------------------------------------------------------------------------------------------------


def run_accuracy(options: Any, result: dict[str, Any]) -> None:
    cells: dict[str, dict[str, Any]] = result.setdefault("cells", {})
    per_class, limits = numbers(options.per_class), _limits(options)
    heads = [head for head in HEADS if not options.heads or any(part in head for part in comma(options.heads))]
    for cache in caches(options.data):
        for n in per_class:
            cell = cells.setdefault(f"{cache.parent.name}/{cache.stem}, {n} per class", {})
            for head in heads:
                print(f"  {cache.parent.name} {n} per class: {head} ...", file=sys.stderr, flush=True)
                arguments = {
                    "cache": str(cache), "head": head, "per_class": n, "seeds": options.seeds, "device": options.device
                }  # fmt: skip
                cell[head] = alone(__file__, "accuracy", arguments, threads=options.threads, **limits)
            machine.save(options.json, result)
    gaps: dict[str, list[float]] = {}
    below: dict[str, list[float]] = {}
    for cell in cells.values():
        means = {head: one["mean"] for head, one in cell.items() if one["status"] == "ok"}
        for head, mean in means.items():
            gaps.setdefault(head, []).append(100 * (max(means.values()) - mean))
            if "dropout" in means:
                below.setdefault(head, []).append(100 * (means["dropout"] - mean))
    names = list(cells)
    rows = []
    for head in heads:
        means = [cells[name][head].get("mean") for name in names]
        seconds = [cells[name][head].get("fit_seconds") for name in names if "fit_seconds" in cells[name][head]]
        problems = {report_problem(cells[name][head]) for name in names} - {"ok"}
        rows.append([
            head, statistics.fmean(gaps[head]) if head in gaps else None, max(gaps[head]) if head in gaps else None,
            max(below[head]) if head in below else None, *(None if m is None else f"{100 * m:.2f}" for m in means),
            statistics.fmean(seconds) if seconds else None, "; ".join(problems) or "ok",
        ])  # fmt: skip
    result["gaps"] = {head: {"mean": statistics.fmean(g), "worst": max(g)} for head, g in gaps.items()}
    result["below_dropout"] = {head: max(g) for head, g in below.items()}
    columns = ["head", "mean gap", "worst gap", "most below dropout", *names, "fit s", "status"]
    note = (
        f"Gaps and accuracies in points, {options.seeds} seeds; gap: to the best head tried in that cell. "
        "Fit: all seeds together."
    )
    table("Heads", columns, rows, note)


def run_timing(options: Any, result: dict[str, Any]) -> None:
    limits, found = _limits(options), result.setdefault("timing", [])
    problems: list[tuple[str, str | None, int]] = []
    base = "tiny" if options.smoke else "50k"
    problems.append((str(pools.make(pools.POOLS[base], options.work)), None, 50 if options.smoke else 1000))
    for cache in caches(options.data) if options.data else []:
        problems += [("", str(cache), n) for n in numbers(options.labels)]
    threads = sorted({1, options.threads}, reverse=True)
    rows = []
    for setting, cache, labels in problems:
        name = f"synthetic, n={labels}" if cache is None else f"{Path(cache).parent.name}, n={labels}"
        print(f"  {name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            problem = str(Path(folder) / "problem.npz")
            common = {"setting": setting, "cache": cache, "labels": labels}
            size = alone(__file__, "prepare", common | {"out": problem}, threads=options.threads, **limits)
            if size["status"] != "ok":
                rows.append([name, None, None, None, None, None, None, None, None, report_problem(size)])
                continue
            exact = {"problem": problem, "solver": "lbfgs", "tolerance": 1e-9, "repeats": 1}
            best = alone(__file__, "scikit_learn", exact, threads=options.threads, **limits)
            optimum, tried = best["objective"], []
            for solver in ("lbfgs", "newton-cg"):
                search = {"problem": problem, "solver": solver, "optimum": optimum}
                needed = alone(__file__, "loosest", search, threads=options.threads, **limits)
                if needed["status"] != "ok":
                    tried.append({"solver": solver} | needed)
                    continue
                for count in threads:
                    job = {"problem": problem, "solver": solver, "tolerance": needed["tolerance"]}
                    one = alone(__file__, "scikit_learn", job | {"repeats": options.repeats}, threads=count, **limits)
                    tried.append({"solver": solver, "tolerance": needed["tolerance"]} | one)
            arguments = common | {
                "problem": problem, "optimum": optimum, "repeats": options.repeats, "device": options.device
            }  # fmt: skip
            mine = alone(__file__, "ours", arguments, threads=options.threads, **limits)
        other = min((one for one in tried if one["status"] == "ok"), key=lambda one: one["seconds"])
        other["relative_gap"] = other["objective"] / optimum - 1
        found.append({"problem": name, "size": size, "ours": mine, "scikit_learn": other, "tried": tried})
        machine.save(options.json, result)
        rows.append([
            name, mine["five"] / other["seconds"] if "five" in mine else None, mine.get("five"), mine.get("one"),
            mine.get("first"), other["seconds"],
            f"{other['solver']}, {other['threads']} thr., tol {other['tolerance']:g}",
            f"{mine.get('relative_gap', float('nan')):.1e} / {other['relative_gap']:.1e}", mine.get("warm_over_cold"),
            report_problem(mine),
        ])  # fmt: skip
    columns = [
        "problem", "five / one sklearn", "ours x5 s", "ours x1 s", "ours x5, first s", "sklearn x1 s", "sklearn's best",
        "objective gap, ours / sklearn", "warm / cold", "status",
    ]  # fmt: skip
    note = (
        f"{options.threads} threads for ours, medians of {options.repeats}. first: with what is made once per pool. "
        "warm / cold: refit after 100 more labels from the previous head, over a fit from nothing."
    )
    table("Fit: five replicates of logistic against one scikit-learn fit in float64", columns, rows, note)


def _limits(options: Any) -> dict[str, float]:
    return {"timeout": options.timeout, "memory_gib": options.memory}


def caches(data: list[Path]) -> list[Path]:
    """Cache files, and those two folders down."""
    found: list[Path] = []
    for path in data:
        found += [path] if path.is_file() else sorted([*path.glob("*/*.h5"), *path.glob("*/*.hdf")])
    return found


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="cache files, or folders <dataset>/<model>.h5")
    parser.add_argument("--per-class", default="1,5,10", help="labels per class")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--heads", default="", help="only heads whose name holds one of these parts")
    parser.add_argument("--timing", action="store_true", help="time fits instead of measuring accuracy")
    parser.add_argument("--labels", default="400,1000", help="--timing: labelled items on the caches of --data")
    parser.add_argument("--repeats", type=int, default=5, help="--timing: fits a median is taken of")
    options = parser.parse_args()
    if options.job:
        machine.serve(JOBS, options.job)
        return
    if not options.timing and not caches(options.data):
        parser.error("--data names no cache: give .h5 files, or a folder that holds <dataset>/<model>.h5")
    if options.smoke:
        options.per_class, options.seeds, options.repeats = "1", 2, 2
    result: dict[str, Any] = {
        "benchmark": "heads", "machine": machine.describe(options.device), "threads": options.threads
    }  # fmt: skip
    (run_timing if options.timing else run_accuracy)(options, result)
    machine.save(options.json, result)


if __name__ == "__main__":
    main()
