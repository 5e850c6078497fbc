"""What decides a run's picks, as one number that its folder is named by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import eq
from typing import Any

FORMAT = 1
"""Of run folders."""
# What does not change a result, or is known by a better name: the folder's names and the cache's fingerprint stand
# for data set, model and cache.
HASH_IGNORES = (  # fmt: skip
    "seeds",
    "device",
    "memory",
    "keep_geometry",
    "force",
    "callback",
    "cache",
    "dataset",
    "model",
    "paths",  # in runs of version 0.1
    "run",
    "reference_added",
    "index_sets.folder",  # what the files list is known by `index_sets.content`
    "index_sets.labelled",
    "index_sets.validation",
    "index_sets.unlabelled",
    "index_sets.numbers",
)
# Options that came later: at this value a run is what it was before, and so is its hash.
LATER_OPTIONS: Mapping[str, Any] = {
    "classifier.averaging": 0,
    "classifier.mixup": 0,
    "classifier.views": "all",
    "init_strategy.cluster_up_to": 100_000,
    "init_strategy.rows": None,
    "query_strategy.cluster_up_to": 100_000,
    "query_strategy.fill": "random",
    "query_strategy.members.typiclust.cluster_up_to": 100_000,
    "query_strategy.rows": None,
    "splits.unlabelled": "ask",
    "index_sets": {"partition": None},
    "budget.unit": None,
    "budget.schedule": None,
    "pool": {"imbalance": None, "ratio": None, "exponent": None, "seed": 0, "duplicates": 0},
    "oracle": {"noise": 0, "confusion": None, "abstain": 0},
}


def run_hash(
    config: Mapping[str, Any],
    cache_fingerprint: str,
    ignore: Sequence[str] = HASH_IGNORES,
    behaviour: Mapping[str, int] | None = None,
) -> str:
    """SHA-256 (hex) of what decides a run's picks: the configuration without `ignore`, and the cache.

    behaviour: where this version gives such a run other picks or curves than one before it, which mends it has and
    their numbers (see `Simulation.behaviour`); None or empty: the hash of the versions before.
    """
    parts = [FORMAT, hashed_config(config, ignore), cache_fingerprint, *([dict(behaviour)] if behaviour else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hashed_config(config: Mapping[str, Any], ignore: Sequence[str] = HASH_IGNORES) -> dict[str, Any]:
    """What of a configuration enters its run's hash, plain."""
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    for dotted in ignore:
        _drop(plain, dotted)
    _say_once(plain)
    for dotted, before in LATER_OPTIONS.items():
        _drop(plain, dotted, partial(eq, before))
    _drop(plain, "stopping", _only_observed)
    if isinstance(plain.get("query_strategy"), dict) and "of" in plain["query_strategy"]:
        _drop(plain, "query_strategy.path")  # a replay's, known by what it replays
    if given_labels(plain):
        for dotted in ("budget.init", "init_strategy"):  # nobody asks for them
            _drop(plain, dotted)
    _drop(plain, "validation", _none_held)
    if "tune" in plain and (chosen := _tuning(plain.pop("tune"))) is not None:
        plain["tune"] = chosen
    return plain


def given_labels(config: Mapping[str, Any]) -> int:
    """How many labels a run's index sets begin with; 0 where its cold start is asked for them."""
    sets = config.get("index_sets")
    items = sets.get("items") if isinstance(sets, Mapping) else None
    return int(items.get("labelled", 0)) if isinstance(items, Mapping) else 0


def _say_once(plain: dict[str, Any]) -> None:
    """The same budget has one hash, whichever of its options say it."""
    budget, iterations = plain.get("budget"), plain.get("iterations")
    if isinstance(budget, dict) and budget.get("unit") in ("class", "labels"):
        budget["per_class"] = budget.pop("unit") == "class"
    elif isinstance(budget, dict) and budget.get("unit"):
        budget.pop("per_class", None)
    if isinstance(budget, dict) and isinstance(iterations, dict) and isinstance(budget.get("schedule"), list):
        iterations["n"] = len(budget["schedule"])


def _only_observed(stopping: Any) -> bool:
    """Rules that end no replicate change no pick; what they say is no part of the run."""
    return not (isinstance(stopping, Mapping) and stopping.get("mode") == "stop")


def _none_held(validation: Any) -> bool:
    return not (isinstance(validation, Mapping) and validation.get("size"))


def _tuning(tune: Any) -> dict[str, Any] | None:
    """What of `tune.` counts: with choices of another run, these alone. None where nothing is tuned."""
    if not isinstance(tune, Mapping):
        return None
    if tune.get("choices"):
        return {"choices": tune["choices"]}
    left_out = {"enabled", "from", "seed"} | (set() if tune.get("by") == "optuna" else {"trials"})
    return {k: v for k, v in tune.items() if k not in left_out and v is not None} if tune.get("enabled") else None


def _drop(node: Any, dotted: str, where: Callable[[Any], bool] = lambda value: True) -> None:
    """Remove the entry a.b.c of nested dicts, if it is there and `where(value)`."""
    *parents, last = dotted.split(".")
    for key in parents:
        node = node.get(key) if isinstance(node, dict) else None
    if isinstance(node, dict) and last in node and where(node[last]):
        del node[last]
