"""Active learning on frozen foundation-model features.

>>> import alfm
>>> task = alfm.Simulation("features/digits/pixels.h5")
>>> rounds = alfm.simulate(task, "margins", rounds=10)  # a pandas DataFrame

Names are loaded when first used, so that `import alfm` and `--help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alfm.moved import keep_old_names
from alfm.version import __version__ as __version__

if TYPE_CHECKING:
    from alfm.cache.reader import FeatureCache, open_cache
    from alfm.errors import UserError
    from alfm.features.features import Features, Pool
    from alfm.heads.base import Classifier
    from alfm.heads.linear import LinearHead
    from alfm.learner import Learner
    from alfm.report.curves import plot_curves
    from alfm.results.load import load_runs
    from alfm.simulation.api import simulate
    from alfm.simulation.cached_task import Simulation
    from alfm.simulation.loop import Round, run
    from alfm.simulation.task import Task
    from alfm.strategies.base import Strategy
    from alfm.strategies.query import Query

_HOME = {
    "FeatureCache": "alfm.cache.reader",
    "open_cache": "alfm.cache.reader",
    "UserError": "alfm.errors",
    "Simulation": "alfm.simulation.cached_task",
    "simulate": "alfm.simulation.api",
    "Classifier": "alfm.heads.base",
    "LinearHead": "alfm.heads.linear",
    "Learner": "alfm.learner",
    "Round": "alfm.simulation.loop",
    "Task": "alfm.simulation.task",
    "run": "alfm.simulation.loop",
    "Features": "alfm.features.features",
    "Pool": "alfm.features.features",
    "plot_curves": "alfm.report.curves",
    "load_runs": "alfm.results.load",
    "Query": "alfm.strategies.query",
    "Strategy": "alfm.strategies.base",
}

__all__ = [
    "Classifier", "FeatureCache", "Features", "Learner", "LinearHead", "Pool", "Query", "Round", "Simulation",
    "Strategy", "Task", "UserError", "load_runs", "open_cache", "plot_curves", "run", "simulate",
]  # fmt: skip

keep_old_names()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alfm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
