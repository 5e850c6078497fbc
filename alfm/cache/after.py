"""What to do with a cache that has been made."""

from __future__ import annotations

import numpy as np

from alfm.cache.reader import FeatureCache
from alfm.commands import command, setting


def after_cache(cache: FeatureCache, share: str = "dataset.test_fraction=0.2 force=true") -> str:
    """What to print when a cache has been made: the al_train command that works on it, or what it lacks; the command
    that opens the page where nothing is labelled.

    share: how a share of the items is asked for as a test split.
    """
    classes = {name: np.unique(labels[labels >= 0]) for name in cache.splits for labels in [cache.labels(name)]}
    pools = sorted((name for name in classes if len(classes[name]) > 1), key=lambda name: name != "train")
    tests = [name for name in classes if len(classes[name]) and name not in pools[:1]]
    tests.sort(key=lambda name: name != "test")
    if pools and tests:
        words = [setting("cache", cache.path)]
        words += [setting("splits.pool", pools[0])] if pools[0] != "train" else []
        words += [setting("splits.test", tests[0])] if tests[0] != "test" else []
        return f"Next:  {command('al_train', *words)}"
    if not any(map(len, classes.values())):
        split = "train" if "train" in cache.splits else cache.splits[0]
        words = [setting("cache", cache.path)] + ([setting("split", split)] if split != "train" else [])
        return f"No item is labelled yet.\nNext:  {command('label', *words)}"
    if not pools:
        return "No split has labelled items of two classes, which al_train needs."
    lacks = f"al_train needs a labelled test split too, such as a share of it ({share})"
    return f"Only {pools[0]} is labelled: {lacks}."
