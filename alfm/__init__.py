"""Active learning on frozen foundation-model features.

>>> import alfm
>>> task = alfm.Simulation("features/digits/pixels.h5")
>>> rounds = alfm.simulate(task, "margins", rounds=10)  # a pandas DataFrame

Names are loaded when first used, so that `import alfm` and `--help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alfm.cache.reader import FeatureCache, open_cache
    from alfm.curves import plot_curves
    from alfm.errors import UserError
    from alfm.experiment import Simulation, simulate
    from alfm.heads.base import Classifier, LinearHead
    from alfm.loop import Round, Task, run
    from alfm.pool import Pool
    from alfm.results import load_runs
    from alfm.strategies.base import Query, Strategy

_HOME = {
    "FeatureCache": "alfm.cache.reader",
    "open_cache": "alfm.cache.reader",
    "UserError": "alfm.errors",
    "Simulation": "alfm.experiment",
    "simulate": "alfm.experiment",
    "Classifier": "alfm.heads.base",
    "LinearHead": "alfm.heads.base",
    "Round": "alfm.loop",
    "Task": "alfm.loop",
    "run": "alfm.loop",
    "Pool": "alfm.pool",
    "plot_curves": "alfm.curves",
    "load_runs": "alfm.results",
    "Query": "alfm.strategies.base",
    "Strategy": "alfm.strategies.base",
}

__all__ = [
    "Classifier", "FeatureCache", "LinearHead", "Pool", "Query", "Round", "Simulation", "Strategy", "Task",
    "UserError", "load_runs", "open_cache", "plot_curves", "run", "simulate",
]  # fmt: skip

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alfm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
