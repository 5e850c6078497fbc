"""Commands that are printed to be typed again: quoted for the shell and, inside a setting, for Hydra."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from alfm.cache.reader import FeatureCache

_PLAIN = re.compile(r"[A-Za-z0-9_./+@%:-]+( [A-Za-z0-9_./+@%:-]+)*")
"""What Hydra reads as one string without quotes."""


def command(module: str, *words: str) -> str:
    """`python -m alfm.<module>` and its words, each quoted for the shell where it needs to be."""
    return " ".join(["python", "-m", f"alfm.{module}", *map(shlex.quote, words)])


def setting(key: str, value: Any) -> str:
    """`key=value` as a word of a command line: numbers and lists as Hydra writes them, odd strings in its quotes."""
    return f"{key}={_value(value)}"


def typed(key: str, value: Any) -> str:
    """The same, quoted for the shell too: what a sentence tells a person to type."""
    return shlex.quote(setting(key, value))


def after_cache(cache: FeatureCache, share: str = "dataset.test_fraction=0.2 force=true") -> str:
    """The line to print when a cache has been made: the al_train command that works on it, or what it lacks.

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
        return "No item is labelled: al_train, which plays labelling through, needs labels in a pool and a test split."
    if not pools:
        return "No split has labelled items of two classes, which al_train needs."
    lacks = f"al_train needs a labelled test split too, such as a share of it ({share})"
    return f"Only {pools[0]} is labelled: {lacks}."


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    text = str(value)
    if isinstance(value, int | float) or _PLAIN.fullmatch(text):
        return text
    # a backslash is one as long as no quote follows it
    escaped = re.sub(r'(\\*)"', lambda match: match.group(1) * 2 + r"\"", text)
    ending = re.search(r"\\*$", escaped)
    return f'"{escaped}{ending.group() if ending else ""}"'
