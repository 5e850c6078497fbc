"""Names that moved: for one more release they can be imported from where they were, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "alfm.acquisition": ("alfm.strategies.batchbald",),
    "alfm.al_train": ("alfm.simulation.settings", "alfm.simulation.session"),
    "alfm.backbones.encoder": (),
    "alfm.cache.geometry": ("alfm.features.kept",),
    "alfm.cache.sources.numpy_files": ("alfm.cache.sources.npy",),
    "alfm.commands": ("alfm.cache.after",),
    "alfm.comparison": ("alfm.results.setting",),
    "alfm.conditions": ("alfm.results.conditions",),
    "alfm.curves": ("alfm.report.curves",),
    "alfm.datasets.images": ("alfm.datasets.intensity_range",),
    "alfm.datasets.intensity": ("alfm.datasets.intensity_range",),
    "alfm.environment": ("alfm.results.environment",),
    "alfm.experiment": (
        "alfm.simulation.api", "alfm.simulation.budgets", "alfm.simulation.cached_task", "alfm.simulation.replicates",
        "alfm.config.parts", "alfm.cache.split", "alfm.devices",
    ),
    "alfm.extract": ("alfm.config.paths",),
    "alfm.extraction.encoding": ("alfm.devices",),
    "alfm.extraction.loading": (),
    "alfm.geometry.balls": (),
    "alfm.geometry.cells": ("alfm.geometry.inverted_file",),
    "alfm.geometry.closer": ("alfm.geometry.herding_lists",),
    "alfm.geometry.coverage": ("alfm.geometry.max_coverage", "alfm.geometry.pairs"),
    "alfm.geometry.d2": ("alfm.geometry.d2_sampling",),
    "alfm.geometry.herding": ("alfm.geometry.kernels", "alfm.geometry.greedy"),
    "alfm.geometry.neighbours": ("alfm.geometry.knn",),
    "alfm.geometry.robust": ("alfm.geometry.robust_kcenter",),
    "alfm.geometry.steps": ("alfm.geometry.greedy",),
    "alfm.geometry.submodular": (),
    "alfm.geometry.threads": ("alfm.threads",),
    "alfm.geometry.top": ("alfm.geometry.topk",),
    "alfm.heads.base": ("alfm.heads.linear",),
    "alfm.loop": ("alfm.simulation.loop", "alfm.simulation.task", "alfm.devices"),
    "alfm.pool": ("alfm.features.features", "alfm.threads"),
    "alfm.posteriors.dropout": ("alfm.fused.masked_logits",),
    "alfm.replicates": ("alfm.results.replicates",),
    "alfm.report": (
        "alfm.report.tables", "alfm.report.cells", "alfm.report.significance", "alfm.report.terminal",
        "alfm.report.over_caches",
        "alfm.report.__main__",
    ),
    "alfm.results": (
        "alfm.results.run_folder", "alfm.results.rounds_file", "alfm.results.run_hash", "alfm.results.load",
    ),
    "alfm.row_numbers": ("alfm.results.row_numbers",),
    "alfm.settings": ("alfm.config.paths", "alfm.config.build", "alfm.config.hydra"),
    "alfm.spaces": ("alfm.features.spaces",),
    "alfm.statistics": ("alfm.results.statistics", "alfm.results.pairing"),
    "alfm.strategies.bait": ("alfm.strategies.bait.bait", "alfm.strategies.bait.rank_one"),
    "alfm.strategies.base": ("alfm.strategies.query", "alfm.strategies.ask", "alfm.results.row_numbers"),
    "alfm.strategies.batch": ("alfm.strategies.parts.candidates",),
    "alfm.strategies.cosines": ("alfm.strategies.parts.cosines",),
    "alfm.strategies.embedding": ("alfm.strategies.query",),
    "alfm.strategies.fisher": ("alfm.strategies.bait.class_wise",),
    "alfm.strategies.query_set": ("alfm.strategies.parts.query_set",),
    "alfm.strategies.sampled": ("alfm.strategies.parts.sub_pool",),
    "alfm.strategies.scored": ("alfm.strategies.parts.scored",),
    "alfm.strategies.typiclust": ("alfm.geometry.typicality",),
}  # fmt: skip
"""Module -> where the names are that it has no more. Some of these modules are gone, others are still there."""

RENAMED: dict[str, str] = {
    "alfm.backbones.encoder.Encoder": "alfm.backbones.encoder.FrozenModel",
    "alfm.experiment.pick_device": "alfm.devices.choose_device",
    "alfm.geometry.balls.Listed": "alfm.geometry.balls.ListedBalls",
    "alfm.geometry.balls.Multiplied": "alfm.geometry.balls.MultipliedBalls",
    "alfm.geometry.closer.Listed": "alfm.geometry.herding_lists.ListHerding",
    "alfm.geometry.herding.lazy_greedy": "alfm.geometry.greedy.lazy",
    "alfm.geometry.submodular.GraphCut": "alfm.geometry.submodular.Cut",
    "alfm.geometry.submodular.LogDet": "alfm.geometry.submodular.Volume",
    "alfm.geometry.steps.greedy": "alfm.geometry.greedy.stepwise",
    "alfm.extraction.loading.Task": "alfm.extraction.loading.BatchRows",
    "alfm.pool.Pool": "alfm.features.features.Features",
    "alfm.results.file_name": "alfm.results.run_folder.folder_name",
}
"""Name -> the one that it has now, where that is another."""


class _OldNames(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`: those that are gone as empty ones, those that are there as they are."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is None or spec.loader is None:
            return ModuleSpec(name, self)
        spec.loader.exec_module = partial(_run, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        places = ", ".join(MOVED[module.__name__])
        warnings.warn(f"{module.__name__} is no more: its names are in {places} now", DeprecationWarning, stacklevel=2)
        module.__dict__["__getattr__"] = _finder(module.__name__, None)


def _run(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    """A module that is still there, and behind its own names those that it has no more."""
    module.__dict__.pop("__getattr__", None)
    run(module)
    module.__dict__["__getattr__"] = _finder(module.__name__, module.__dict__.get("__getattr__"))


def _finder(module: str, own: Callable[[str], Any] | None) -> Callable[[str], Any]:
    """`__getattr__` of a module; own: the one that it defines itself, which is asked first."""

    def find(name: str) -> Any:
        if own is not None:
            try:
                return own(name)
            except AttributeError:
                pass
        if name.startswith("_") or (found := _found(module, name)) is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, there = found
        warnings.warn(f"{module}.{name} is {place}.{there} now", DeprecationWarning, stacklevel=2)
        return getattr(import_module(place), there)

    return find


def _found(module: str, name: str) -> tuple[str, str] | None:
    """(module, name) of today."""
    if renamed := RENAMED.get(f"{module}.{name}"):
        place, _, there = renamed.rpartition(".")
        return place, there
    for place in MOVED[module]:
        if name in (names := vars(import_module(place))):
            home = getattr(names[name], "__module__", place)  # a class or function says where it is defined
            return (home if str(home).startswith("alfm.") else place), name
    return None


def keep_old_names() -> None:
    """Let the old names be found; called once, by the package itself."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames())
