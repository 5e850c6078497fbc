"""Modules that moved: their old names can be imported for one more release, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "alfm.comparison": ("alfm.results.setting",),
    "alfm.conditions": ("alfm.results.conditions",),
    "alfm.curves": ("alfm.report.curves",),
    "alfm.environment": ("alfm.results.environment",),
    "alfm.experiment": (
        "alfm.simulation.api", "alfm.simulation.cached_task", "alfm.simulation.replicates", "alfm.config.build",
        "alfm.config.parts", "alfm.cache.split", "alfm.devices",
    ),
    "alfm.loop": ("alfm.simulation.loop", "alfm.simulation.task", "alfm.devices"),
    "alfm.pool": ("alfm.features.features",),
    "alfm.replicates": ("alfm.results.replicates",),
    "alfm.row_numbers": ("alfm.results.row_numbers",),
    "alfm.settings": ("alfm.config.paths", "alfm.config.build", "alfm.config.hydra"),
    "alfm.spaces": ("alfm.features.spaces",),
    "alfm.statistics": ("alfm.results.statistics",),
    "alfm.strategies.embedding": ("alfm.strategies.query",),
}  # fmt: skip
"""Old module -> where its names are now."""


class _Moved(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        places = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {places[0]} now", DeprecationWarning, stacklevel=2)

        def find(name: str) -> Any:
            for place in places:
                if hasattr(home := import_module(place), name):
                    return getattr(home, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = find


def keep_old_names() -> None:
    """Let the old names be found; called once, by the package itself."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
