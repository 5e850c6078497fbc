"""Active learning on frozen foundation-model features.

>>> import alfm
>>> task = alfm.Simulation("features/digits/pixels.h5")
>>> rounds = alfm.simulate(task, "margins", rounds=10)  # a pandas DataFrame

Names are loaded when first used, so that `import alfm` and `--help` stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy
from alfm.moved import keep_old_names
from alfm.version import __version__ as __version__

if TYPE_CHECKING:
    from alfm.cache.reader import FeatureCache, open_cache
    from alfm.errors import UserError
    from alfm.features.features import Features, Pool
    from alfm.heads.base import Classifier
    from alfm.heads.linear import LinearHead
    from alfm.labelling.active_learner import ActiveLearner
    from alfm.learner import Learner
    from alfm.one_shot.active_sampler import ActiveSampler
    from alfm.one_shot.select_batch import select_batch
    from alfm.report.curves import plot_curves
    from alfm.results.load import load_runs
    from alfm.simulation.api import simulate
    from alfm.simulation.cached_task import Simulation
    from alfm.simulation.loop import Round, run
    from alfm.simulation.task import Task
    from alfm.strategies.base import Strategy
    from alfm.strategies.query import Query

_HOMES = {
    "alfm.cache.reader": ("FeatureCache", "open_cache"),
    "alfm.errors": ("UserError",),
    "alfm.features.features": ("Features", "Pool"),
    "alfm.heads.base": ("Classifier",),
    "alfm.heads.linear": ("LinearHead",),
    "alfm.labelling.active_learner": ("ActiveLearner",),
    "alfm.learner": ("Learner",),
    "alfm.one_shot.active_sampler": ("ActiveSampler",),
    "alfm.one_shot.select_batch": ("select_batch",),
    "alfm.report.curves": ("plot_curves",),
    "alfm.results.load": ("load_runs",),
    "alfm.simulation.api": ("simulate",),
    "alfm.simulation.cached_task": ("Simulation",),
    "alfm.simulation.loop": ("Round", "run"),
    "alfm.simulation.task": ("Task",),
    "alfm.strategies.base": ("Strategy",),
    "alfm.strategies.query": ("Query",),
}

__all__ = [
    "ActiveLearner", "ActiveSampler", "Classifier", "FeatureCache", "Features", "Learner", "LinearHead", "Pool",
    "Query", "Round", "Simulation", "Strategy", "Task", "UserError", "load_runs", "open_cache", "plot_curves", "run",
    "select_batch", "simulate",
]  # fmt: skip

keep_old_names()

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
