"""Do picks made with one backbone help a head on another's features of the same items?

    python benchmarks/transfer.py --photos PHOTOS --weights mobilenetv2_100.safetensors --json transfer.json

PHOTOS is an image folder. Each strategy picks with one model's cache (16 x 16 pixels; MobileNetV2 on 64-pixel images)
and its picks are replayed on MobileNetV2's features of 224-pixel images, in a cache whose rows are in another order;
beside it the strategy's own run there, begun with the same items. Areas under the budget curve over rounds, test
accuracy in %, mean over seeds; gain: above random, whose picks were replayed too, with the paired 95 % t-interval.

Two checks go with it: every replay on the cache it was made on gives every metric again, and a run begun from the index
sets that another has written labels exactly those items. Runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np

STRATEGIES = ("random", "margins", "uherding", "typiclust", "badge")
SOURCES = ("pixels", "mobilenet_64")
TARGET = "mobilenet_224"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("transfer-work"), help="caches and runs")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    photos, weights = options.photos.absolute(), options.weights.absolute()
    options.work.mkdir(parents=True, exist_ok=True)
    out = options.json.absolute() if options.json else None
    os.chdir(options.work)
    os.environ |= {"FEATURE_CACHE_DIR": "features", "LOG_DIR": "logs"}
    caches = made_caches(photos, weights)
    seeds = f"seeds=[{','.join(map(str, range(1, options.seeds + 1)))}]"
    common = [seeds, f"iterations.n={options.rounds}", "device=cpu"]
    found: dict[str, Any] = {"seeds": options.seeds, "rounds": options.rounds, "sources": {}}
    for source in SOURCES:
        found["sources"][source] = compared(caches, source, common)
    found["checks"] = checks(caches[TARGET], common)
    report(found)
    if out:
        out.write_text(json.dumps({"machine": machine.describe("cpu"), **found}, indent=1) + "\n")


def made_caches(photos: Path, weights: Path) -> dict[str, Path]:
    """The three caches, the target's rows shuffled."""
    from alfm.extract import main as extract

    folder = ["dataset=image_folder", f"dataset.root={photos}", "dataset.name=photos", "dataset.test_fraction=0.4"]
    timm = ["model=timm", "model.arch=mobilenetv2_100", f"model.checkpoint={weights}", "model.mean=0.5"]
    timm += ["model.std=0.5", "model.kwargs={num_classes:1001,pad_type:same}"]
    words = {
        "pixels": ["model=pixels", "model.size=16", "model.name=pixels"],
        "mobilenet_64": [*timm, "model.input_size=64", "model.name=mobilenet_64"],
        TARGET: [*timm, "model.name=straight"],
    }
    for name, own in words.items():
        path = Path("features/photos") / f"{'straight' if name == TARGET else name}.h5"
        if not path.exists() and extract([*folder, *own]) != 0:
            sys.exit(f"{name} could not be made")
    target = Path("features/photos") / f"{TARGET}.h5"
    if not target.exists():
        with h5py.File("features/photos/straight.h5") as old, h5py.File(target, "w") as new:
            for split in ("train", "test"):
                order = np.random.default_rng(7).permutation(len(old[f"{split}/labels"]))
                for key in ("features", "labels", "ids"):
                    new[f"{split}/{key}"] = old[f"{split}/{key}"][:][order]
    return {name: Path("features/photos") / f"{name}.h5" for name in words}


def run(*words: str) -> Path:
    """The folder of a run, which may be there already."""
    import contextlib
    import io

    from alfm.al_train import main as al_train

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = al_train([*words])
    if status:
        sys.exit(said.getvalue())
    return Path(said.getvalue().rpartition("Results: ")[2].splitlines()[0])


def areas(folder: Path) -> np.ndarray:
    """Mean accuracy over rounds by the trapezoid rule, in %, of each seed."""
    from alfm.metrics import area_under_budget_curve
    from alfm.results.load import load_runs

    by_seed = load_runs(folder).sort_values("round").groupby("seed")
    return np.array(
        [100 * area_under_budget_curve(one["accuracy"].to_numpy(), one["num_labeled"].to_numpy()) for _, one in by_seed]
    )


def compared(caches: dict[str, Path], source: str, common: list[str]) -> dict[str, Any]:
    """Per strategy: areas where it picked, replayed on the target, and of its own run there from the same items."""
    from alfm.results.statistics import mean_interval

    found: dict[str, dict[str, np.ndarray]] = {}
    for strategy in STRATEGIES:
        first = run(f"cache={caches[source]}", f"query_strategy={strategy}", "init_strategy=random", *common)
        moved = run("query_strategy=replay", f"query_strategy.path={first}", f"cache={caches[TARGET]}", "device=cpu")
        start = ["init_strategy=index_file", f"init_strategy.path={first}/picks.npz"]
        own = run(f"cache={caches[TARGET]}", f"query_strategy={strategy}", *start, *common)
        found[strategy] = {"source": areas(first), "transfer": areas(moved), "own": areas(own)}
    rows: dict[str, Any] = {}
    for strategy, values in found.items():
        rows[strategy] = {place: float(value.mean()) for place, value in values.items()}
        for place, value in values.items():
            mean, half = mean_interval(value - found["random"][place])
            rows[strategy][f"{place} gain"] = [float(mean), float(half)]
    return rows


def checks(cache: Path, common: list[str]) -> dict[str, Any]:
    """How many replays and runs from index sets came out as what they repeat."""
    from alfm.results.load import load_runs
    from alfm.results.run_folder import read_picks

    same = begun = 0
    for strategy in STRATEGIES:
        first = run(f"cache={cache}", f"query_strategy={strategy}", "init_strategy=random", *common)
        again = run("query_strategy=replay", f"query_strategy.path={first}", "device=cpu")
        left, right = (
            load_runs(one).sort_values(["seed", "round"])[["seed", "round", "num_labeled", *METRICS]].to_numpy()
            for one in (first, again)
        )
        same += bool(np.array_equal(left, right, equal_nan=True))
        own = [f"index_sets.folder={first}/index_sets", "index_sets.partition=3", "seeds=[3]"]
        third = run(f"cache={cache}", f"query_strategy={strategy}", *own, *common[1:])
        picks, before = read_picks(third)[3], read_picks(first)[3]
        size = int(load_runs(first)["num_labeled"].min())
        begun += set(picks[:size]) == set(before[:size])
    return {"strategies": len(STRATEGIES), "replays equal in every metric": same, "begun with the same items": begun}


def report(found: dict[str, Any]) -> None:
    for source, rows in found["sources"].items():
        print(f"\npicked with {source}, learnt on {TARGET}: {found['seeds']} seeds, {found['rounds']} rounds")
        print(f"{'strategy':<12}{'there':>18}{'transferred':>20}{'own run':>20}")
        for strategy, row in rows.items():
            cells = [f"{row[p]:.1f} ({row[f'{p} gain'][0]:+.1f} ±{row[f'{p} gain'][1]:.1f})" for p in
                     ("source", "transfer", "own")]  # fmt: skip
            print(f"{strategy:<12}{cells[0]:>18}{cells[1]:>20}{cells[2]:>20}")
    print(f"\n{found['checks']}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
