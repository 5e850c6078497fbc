"""An annotator who types commands only, beside the simulation that knows all labels: the same items are asked for.

    python benchmarks/annotator.py --photos PHOTOS --weights mobilenetv2_100.safetensors --json annotator.json

PHOTOS has a folder of images per class. They are embedded twice: as they lie there, with labels, for `alfm.al_train`;
and its train split once more as one flat folder without labels, renamed so that their order stays. On the flat cache
`alfm.select` is typed, `next.csv` is read, the true classes are written into `labels.csv`, and so on, round by round.
Compared: each round's items, one by one and in order, and (without an audit) the test accuracy of the head that
`alfm.predict` exports after each round.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import numpy as np

SEED = 3


@dataclass
class Bench:
    """Where everything lies, and how commands are typed."""

    work: Path
    model: list[str]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def type(self, command: str, *words: str) -> str:
        """`python -m alfm.<command> words`; what it printed. Fails loudly."""
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", f"alfm.{command}", *words], cwd=self.work, env=os.environ | folders(self.work),
            capture_output=True, text=True,
        )  # fmt: skip
        self.seconds.setdefault(command, []).append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(f"alfm.{command} {' '.join(words)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def embed(self, root: Path, *words: str) -> Path:
        """The cache of a folder of images."""
        self.type("extract", "dataset=image_folder", f"dataset.root={root}", *words, *self.model)
        (cache,) = (self.work / "features" / root.name).glob("*.h5")
        return cache


def folders(work: Path) -> dict[str, str]:
    return {"FEATURE_CACHE_DIR": str(work / "features"), "LOG_DIR": str(work / "logs")}


def flattened(cache: Any, photos: Path, flat: Path) -> list[str]:
    """The train split's files in one folder, named by their row; their classes, in that order."""
    flat.mkdir()
    ids = cache.ids("train")
    for row, name in enumerate(ids):
        shutil.copyfile(photos / name, flat / f"{row:05d}{Path(name).suffix}")
    return [cache.class_names[label] for label in cache.labels("train")]


def simulated(bench: Bench, cache: Path, strategy: str, size: int, rounds: int) -> tuple[np.ndarray, list[float]]:
    """Rows that `alfm.al_train` picks, in order, and its accuracy after each round."""
    bench.type(
        "al_train", f"cache={cache}", f"query_strategy={strategy}", "init_strategy=random", f"seeds=[{SEED}]",
        f"iterations.n={rounds}", "budget.per_class=false", f"budget.init={size}", f"budget.step={size}", "force=true",
    )  # fmt: skip
    (run,) = {path.parent for path in (bench.work / "logs").rglob("picks.npz") if strategy in str(path)}
    with open(run / "rounds.csv", newline="", encoding="utf-8") as file:
        accuracy = [float(row["accuracy"]) for row in csv.DictReader(file)]
    return np.load(run / "picks.npz")[str(SEED)], accuracy


def annotated(
    bench: Bench, cache: Path, truth: Sequence[str], classes: Sequence[str] | None,
    test: tuple[np.ndarray, Sequence[str]], strategy: str, size: int, rounds: int, audit: int,
) -> tuple[list[list[int]], list[float], str]:  # fmt: skip
    """Rows of each round's batch, the exported head's accuracy after it, and what the first command printed."""
    name = f"{strategy}-{audit}-{'listed' if classes else 'unlisted'}"
    out = bench.work / name
    out.mkdir()
    labels = out / "labels.csv"
    labels.write_text("id,label\n", encoding="utf-8")
    words = [f"cache={cache}", f"state={out / 'state'}", f"out={out}", f"labels={labels}", f"n={size}", f"seed={SEED}"]
    words += [f"query_strategy={strategy}", "init_strategy=random", f"audit={audit}"]
    words += [f"classes=[{','.join(classes)}]"] if classes else []
    picks, accuracy, said = [], [], ""
    for k in range(rounds + 1):
        printed = bench.type("select", *words)  # reads the labels of the round before, and asks
        said = said or printed
        if k and not audit:  # audit items that the new batch takes are learnt from at once
            head = out / "head.pt"
            bench.type("predict", f"state={out / 'state'}", f"out={out}", f"head={head}")
            accuracy.append(_accuracy(head, *test))
        if k == rounds:
            break
        picks.append(_batch(out / "state"))
        with open(out / "next.csv", newline="", encoding="utf-8") as file:
            asked = [row["id"] for row in csv.DictReader(file)]
        with labels.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows((name, truth[_row(name)]) for name in asked)
    return picks, accuracy, said


def _row(name: str) -> int:
    return int(Path(name).stem)


def _batch(state: Path) -> list[int]:
    """Rows of the newest batch in the journal, those too that were known from the audit."""
    lines = (state / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    batches = [act for act in map(json.loads, lines) if act["act"] == "batch"]
    return [_row(name) for name in batches[-1]["items"]]


def _accuracy(head: Path, features: np.ndarray, labels: Sequence[str]) -> float:
    """Of the exported head, as anybody would use it."""
    import torch

    from alfm.heads.export import load_module

    module, names = load_module(head)
    with torch.no_grad():
        logits = module(torch.from_numpy(features.astype(np.float32)))
    found = [names[place] for place in logits.argmax(1).tolist()]  # the file's own order of classes
    return float(np.mean([one == label for one, label in zip(found, labels, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of images per class")
    parser.add_argument("--weights", type=Path, help="MobileNetV2's, as timm loads them; without: pixels")
    parser.add_argument("--strategies", default="random,margins,typiclust,uherding")
    parser.add_argument("--unlisted", default="margins", help="strategy that is also run without the list of classes")
    parser.add_argument("--size", type=int, default=20, help="items of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--audits", default="0,30")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = ["model=pixels"]
    if options.weights:
        model = ["model=timm", "model.arch=mobilenetv2_100", f"model.checkpoint={options.weights.absolute()}",
                 "model.kwargs={num_classes:1001,pad_type:same}", "model.mean=0.5", "model.std=0.5"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        rows = _compare(Bench(Path(folder), model), options)
    columns = ["strategy", "audit", "classes", "same picks", "of", "largest difference in accuracy"]
    machine.table("Commands beside the simulation", columns, rows)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine.describe("cpu"), "columns": columns, "rows": rows}, indent=1)
        )


def _compare(bench: Bench, options: argparse.Namespace) -> list[list[Any]]:
    import alfm

    photos, flat = options.photos.absolute(), bench.work / "photos"
    labelled = alfm.open_cache(bench.embed(photos, "dataset.test_fraction=0.2"))
    truth = flattened(labelled, photos, flat)
    unlabelled = bench.embed(flat)
    same = np.array_equal(alfm.open_cache(unlabelled).features("train"), labelled.features("train"))
    print(f"{len(truth)} photographs; features of both caches are {'equal bit for bit' if same else 'NOT equal'}")
    test = labelled.features("test"), [labelled.class_names[label] for label in labelled.labels("test")]
    rows: list[list[Any]] = []
    for strategy in options.strategies.split(","):
        rows_picked, curve = simulated(bench, labelled.path, strategy, options.size, options.rounds)
        for audit in map(int, options.audits.split(",")):
            listed = [labelled.class_names, *([None] if strategy == options.unlisted and not audit else [])]
            for classes in listed:
                picks, accuracy, said = annotated(
                    bench, unlabelled, truth, classes, test, strategy, options.size, options.rounds, audit
                )  # fmt: skip
                told = [row for batch in picks for row in batch]
                equal = int((np.array(told) == rows_picked[: len(told)]).sum())
                apart = max((abs(a - b) for a, b in zip(accuracy, curve, strict=False)), default=None)
                rows.append([strategy, audit, "listed" if classes else "unlisted", equal, len(told), apart])
                print(rows[-1], flush=True)
                if not classes:
                    print(said)
    for command, seconds in bench.seconds.items():
        print(f"alfm.{command}: {len(seconds)} times, {np.median(seconds):.1f} s in the middle")
    return rows


if __name__ == "__main__":
    main()
