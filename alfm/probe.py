"""`python -m alfm.probe CACHE ... [SETTING ...]`: what all labels of a cache reach, the ceiling of its curves.

Of every cache (a file, or a folder of them) the head is fitted on all labels of the pool split and measured on the
test split, with k nearest neighbours beside it. Several caches, one for each backbone or layer, are compared in one
table. What was found is kept as <LOG_DIR>/<dataset>/<model>/probe.json, where python -m alfm.report looks for it, and
is not worked out again. Settings are those of al_train: classifier=NAME, classifier.OPTION=VALUE, splits., device,
memory, train_views, force=true.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alfm.cache.reader import FeatureCache
from alfm.config.build import build
from alfm.config.cell import Cell
from alfm.config.hydra import run_hydra
from alfm.config.paths import environment, paths
from alfm.errors import UserError, nearest_names, say
from alfm.heads.base import Classifier
from alfm.metrics import METRICS
from alfm.options import read
from alfm.report.cells import Table, TableCell
from alfm.report.terminal import show
from alfm.results.probe_file import Probe, keep_probe, read_probe
from alfm.simulation.cached_task import Simulation
from alfm.simulation.ceiling import OF_PREDICTIONS, ceiling_of
from alfm.simulation.settings import Settings
from alfm.version import __version__

_OURS = ("classifier", "splits", "device", "memory", "train_views", "force")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0, 1 (a user's mistake) or 2 (a wrong command line)."""
    parser = argparse.ArgumentParser(
        "python -m alfm.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="CACHE or SETTING")
    parser.add_argument("--metric", default="accuracy", help=f"one of {', '.join(METRICS)}")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.metric not in METRICS:
        parser.error(f"no metric {arguments.metric!r}: {nearest_names(arguments.metric, list(METRICS))}")
    settings = [word for word in arguments.words if "=" in word and not Path(word).exists()]
    for word in settings:
        if word.partition("=")[0].lstrip("+~").partition(".")[0] not in _OURS:
            parser.error(f"{word}: of al_train's settings only {', '.join(_OURS)} can be given here")
    given = [Path(word).expanduser() for word in arguments.words if word not in settings]
    if not given:
        parser.error("name a cache: python -m alfm.probe FEATURE_CACHE_DIR/<dataset>/<model>.h5")
    return run_hydra("al_train", "", lambda cells: _probe(given, cells[0], arguments.metric), argv=settings)


def _probe(given: list[Path], asked: Cell, metric: str) -> int:
    """All caches, one's failure stopping no other; their table."""
    status, rows, notes = 0, [], []
    with environment():
        try:
            files = cache_files(given)
            cfg = asked.cfg()
            settings = read(Settings, cfg)
            build(cfg.classifier, Classifier, "classifier")  # a mistake in it is one mistake, not one for each cache
        except UserError as mistake:
            say(str(mistake))
            return 1
        for number, file in enumerate(files, 1):
            print(f"[{number}/{len(files)}] {file}", flush=True)
            try:
                probe = probed(file, asked, settings)
            except UserError as mistake:
                say(f"{file}: {mistake}" if str(file) not in str(mistake) else str(mistake))
                status = 1
                continue
            rows.append(_row(file, probe, metric))
            if probe.labels < probe.items or "block" in probe.how:
                notes.append(f"{file.parent.name}/{file.stem}: fitted on {probe.how}.")
    if rows:
        show(_table(rows, metric, notes, str(asked.choices["classifier"])))
        print(f"Kept: {paths().logs}/<dataset>/<model>/probe.json, for python -m alfm.report")
    return status


def cache_files(given: Sequence[Path]) -> list[Path]:
    """Files, and all caches below folders. UserError where there is none."""
    files: dict[Path, None] = {}
    for path in given:
        found = sorted([*path.rglob("*.h5"), *path.rglob("*.hdf")]) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no feature cache: name a file, <FEATURE_CACHE_DIR>/<dataset>/<model>.h5.")
        files.update(dict.fromkeys(file.absolute() for file in found))
    return list(files)


def probed(file: Path, asked: Cell, settings: Settings) -> Probe:
    """What is kept of a cache, or else is found out now and kept. Raises UserError."""
    config = asked.config["classifier"]
    folder = paths().logs / file.parent.name / file.stem
    unlabelled = settings.splits.unlabelled
    cache = FeatureCache(file, unlabelled, "splits.unlabelled")
    splits = {"pool": settings.splits.pool, "test": settings.splits.test, "train_views": settings.train_views}
    known = None if settings.force else read_probe(folder)
    same = (cache.fingerprint, splits, config)
    if known is not None and (known.cache_fingerprint, known.splits, known.classifier) == same:
        return known
    task = Simulation(
        cache, settings.device, settings.memory, settings.splits.pool, settings.splits.test, settings.train_views
    )
    classifier: Any = build(asked.cfg().classifier, Classifier, "classifier")
    found = ceiling_of(task, classifier)
    probe = Probe(
        cache_fingerprint=cache.fingerprint, splits=splits, classifier=config, labels=found.labels, items=task.pool.N,
        how=found.how, head=found.head, knn={"k": found.k, **found.knn}, dim=task.pool.D, classes=task.num_classes,
        test=task.test.N, seconds=round(found.seconds, 3), version=__version__,
    )  # fmt: skip
    keep_probe(folder, probe)
    return probe


def _row(file: Path, probe: Probe, metric: str) -> list[TableCell]:
    scale = METRICS[metric].scale
    return [
        TableCell(f"{file.parent.name}/{file.stem}"),
        *(TableCell(number) for number in (probe.labels, probe.dim, probe.classes)),
        TableCell(probe.head[metric], scale),
        TableCell(probe.knn.get(metric), scale),
        TableCell(int(probe.knn["k"])),
    ]


def _table(rows: list[list[TableCell]], metric: str, notes: list[str], classifier: str) -> Table:
    unit = METRICS[metric].scale.unit
    title = f"What all labels of the pool reach: {metric}{f' in {unit}' if unit else ''} on the test split"
    header = ["cache", "labels", "D", "classes", classifier, "k-NN", "k"]
    if metric not in OF_PREDICTIONS:
        notes = [
            *notes,
            f"k nearest neighbours vote: {metric} asks for probabilities, and is told of the head alone.",
        ]
    return Table(title, header, rows, notes)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
