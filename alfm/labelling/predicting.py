"""`python -m alfm.predict` from start to end: what every item is, said by people or by the model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from annotated_types import MinLen

from alfm.cache import FeatureCache, open_cache
from alfm.config.cell import Cell
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.export import export, load_module
from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.formulas import guarded
from alfm.labelling.journal import Journal
from alfm.labelling.new_items import embedded
from alfm.labelling.newest import probabilities
from alfm.labelling.opening import state_folder
from alfm.labelling.written.asked import cannot_write
from alfm.labelling.written.next_csv import write_table
from alfm.options import Device, Means, PathName, checked, read

COLUMNS = ("id", "label", "confidence", "by")
_Paths = Annotated[PathName | Annotated[Sequence[PathName], MinLen(1)] | None, Means("a path, a list of them or null")]


@dataclass(frozen=True)
@checked
class Settings:
    """What conf/predict.yaml has."""

    state: PathName | None
    cache: _Paths
    out: PathName
    head: PathName | None
    device: Device
    memory: Literal["auto", "device", "host", "file"]


class Prediction(NamedTuple):
    """by: `person`, whose word it is, or `model`, whose probability `confidence` is."""

    item: str
    label: str
    confidence: float | None
    by: Literal["person", "model"]


class Predicting:
    """Predicts pools, one after the other, in one process. A session of an engine: see `alfm.engines.base.Session`."""

    def key(self, cell: Cell) -> str:
        """Cells on the same state have the same."""
        return str(cell.cfg().state)

    def run(self, cell: Cell) -> None:
        """For a cell of conf/predict.yaml: writes predictions.csv and the head, says what is in it. UserError."""
        given = read(Settings, cell.cfg())
        out = Path(given.out).expanduser()
        folder = _there(given)
        caches = [open_cache(Path(path).expanduser()) for path in _several(given.cache)]
        own = _pool_of(folder)
        moved, new = [c for c in caches if c.fingerprint in own], [c for c in caches if c.fingerprint not in own]
        learner = ActiveLearner.load(folder, moved or None, device=given.device, memory=given.memory)
        _check_head(learner, folder)
        if given.head is not None:
            _export(learner, Path(given.head).expanduser())
        found = list(of_pool(learner))
        _report("the pool", found)
        for cache, ids in [*((cache, None) for cache in new), *embedded(cell, learner)]:
            _check_fits(cache, learner)
            more = list(of_others(learner, cache, {one.item for one in found}, ids))
            _report(str(cache.path), more)
            found += more
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(out, error) from error
        rows = (
            (guarded(one.item), guarded(one.label), "" if one.confidence is None else round(one.confidence, 4), one.by)
            for one in found
        )
        write_table(out / "predictions.csv", COLUMNS, rows, [COLUMNS])
        print(f"Predictions: {out / 'predictions.csv'}")


def of_pool(learner: ActiveLearner) -> Iterator[Prediction]:
    """Of every item of the pool, in its order: the label that people gave it, else the model's class."""
    state = learner.state
    found = probabilities(learner.features, learner.head, None)
    names = learner.head_classes
    best, sure = found.argmax(1), found.max(1)
    for row, item in enumerate(state.items):
        if (label := state.label_of(item)) is not None:
            yield Prediction(item, label, None, "person")
        else:
            yield Prediction(item, names[int(best[row])], float(sure[row]), "model")


def of_others(
    learner: ActiveLearner, cache: FeatureCache, known: set[str], wanted: set[str] | None
) -> Iterator[Prediction]:
    """Of the items of a cache beside the pool, in all its splits: not of `known` ones, and of `wanted` ones only."""
    names = learner.head_classes
    for split in cache.splits:
        rows = cache.num_rows(split)
        ids = cache.ids(split) or [f"{cache.path.stem}:{split}:{row}" for row in range(rows)]
        if not rows:
            continue
        found = probabilities(Features(cache.features(split), learner.features.device), learner.head, None)
        for item, own in zip(ids, found, strict=True):
            if item not in known and (wanted is None or item in wanted):
                yield Prediction(item, names[int(own.argmax())], float(own.max()), "model")


def _report(what: str, found: Sequence[Prediction]) -> None:
    by = Counter(one.by for one in found)
    classes = Counter(one.label for one in found)
    counts = ", ".join(f"{label} {count:,}" for label, count in classes.most_common(20))
    more = f" and {len(classes) - 20} classes more" if len(classes) > 20 else ""
    print(
        f"{len(found):,} items of {what}, {by['person']:,} as people said, {by['model']:,} as the model takes them for"
    )
    if counts:
        print(f"  {counts}{more}")


def _there(given: Settings) -> Path:
    folder = state_folder(given)
    if not Journal.there(folder):
        raise UserError(f"{folder} holds no labelling state: name one with state=FOLDER, or begin with alfm.select.")
    return folder


def _pool_of(folder: Path) -> set[str]:
    """The fingerprints of the caches that a state is about."""
    acts = [act for _, act in Journal(folder).news() if act.get("act") == "settings"]
    return {str(entry["fingerprint"]) for act in acts for entry in act["caches"]}


def _check_head(learner: ActiveLearner, folder: Path) -> None:
    if len(learner.head_classes) < 2:
        raise UserError(
            f"{folder} holds labels of {len(learner.head_classes)} classes, and a model needs two or more: label some, "
            "and read them with alfm.select."
        )


def _check_fits(cache: FeatureCache, learner: ActiveLearner) -> None:
    """`UserError` where its features are not of the pool's kind."""
    pool = learner.caches[0][0]
    models = [one.attributes.get("model_fingerprint") for one in (cache, pool)]
    if cache.dim != pool.dim or (None not in models and models[0] != models[1]):
        raise UserError(
            f"{cache.path} was not embedded with the backbone of {pool.path}, so the model cannot read it: embed it "
            "with the same model."
        )


def _export(learner: ActiveLearner, file: Path) -> None:
    """Over an exported head, or where nothing is. `UserError` for another file."""
    others = [file, *([file.with_suffix(".json")] if file.suffix == ".pt" else [])]  # which names the classes
    there = next((other for other in others if os.path.lexists(other)), None)
    if there is not None and not _is_head(file):
        raise UserError(f"{there} is there and is no head of ours: move it, or choose another head=FILE.")
    try:
        export(learner.head, file, learner.head_classes)
    except OSError as error:
        raise cannot_write(file, error) from error
    print(f"Head: {file} ({', '.join(learner.head_classes[:10])}{', ...' if len(learner.head_classes) > 10 else ''})")


def _is_head(file: Path) -> bool:
    if file.suffix == ".onnx":
        with file.open("rb") as handle:
            return b"alfm" in handle.read(256)
    try:
        load_module(file)
    except UserError:
        return False
    return True


def _several(paths: _Paths) -> list[str | Path]:
    if paths is None:
        return []
    return [paths] if isinstance(paths, str | Path) else list(paths)
