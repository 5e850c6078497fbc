"""What is wrong with a command line, in one sentence that can be typed from."""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfm.commands import typed
from alfm.config.paths import groups_of
from alfm.errors import nearest_names

if TYPE_CHECKING:
    from hydra.errors import OverrideParseException


def unknown_key(name: str, wrong: str, overrides: list[str], search: list[str], extra: Path | None) -> str:
    """A setting `wrong` that there is not: the nearest right names. search: where Hydra looks besides."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    groups = groups_of(extra)
    chosen = [word for word in overrides if word.partition("=")[0] in groups]
    try:
        cfg = compose(name, overrides=[*search, *chosen])
    except HydraException:  # two mistakes at once: the options of the first are then what is known
        cfg = compose(name)
    keys = sorted(_flatten(OmegaConf.to_container(cfg)))
    known = sorted({*keys, *map(str, cfg)})
    parent = wrong.rpartition(".")[0]
    siblings = [key for key in keys if key.rpartition(".")[0] == parent]
    if wrong in known or any(key.startswith(f"{wrong}.") for key in keys):
        return f"{wrong} holds settings: change one with {wrong}.KEY=VALUE, or add one with ++{wrong}.KEY=VALUE."
    near = difflib.get_close_matches(wrong, known, n=3, cutoff=0.5)
    hint = nearest_names(wrong, known if near else siblings or [key for key in known if "." not in key])
    return f"There is no setting {wrong}: {hint}"


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def unreadable(error: OverrideParseException, words: list[str]) -> str:
    """What is wrong with a word that is no setting, and how to quote it: once for the shell, once for Hydra."""
    word = error.override
    key, equals, value = word.partition("=")
    if equals:
        quoted = typed(key, value)
        lists = value.startswith(("[", "{"))
        at = words.index(word) + 1 if word in words else len(words)
        rest = list(itertools.takewhile(lambda other: "=" not in other, words[at:]))
        if lists and rest and rest[-1].endswith(("]", "}")):
            return f"{word}: spaces in a list need quotes around the whole: {shlex.quote(' '.join([word, *rest]))}."
        if lists or quoted == word:  # quotes would not help
            return syntax(error)
        return f"{word}: Hydra reads that only in quotes: {quoted}."
    at = words.index(word) if word in words else 0
    key, equals, start = words[at - 1].partition("=") if at else ("", "", "")
    if not equals:
        return f"{word!r} is no setting: settings are written key=value."
    whole = " ".join([start, *itertools.takewhile(lambda other: "=" not in other, words[at:])])
    if "/" not in whole:
        return f"{word!r} is no setting: settings are written key=value, a value with spaces in quotes."
    return f"{word!r} is no setting; if it belongs to the path before it, quote the whole: {typed(key, whole)}."


def syntax(error: BaseException) -> str:
    """Hydra's own message, in one sentence."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if lines and lines[0].startswith("Ambiguous value"):
        return (
            f"{lines[0].rstrip('.')}: to run all of them add -m, to pass a list write key=[a,b], and one value with a "
            """comma in quotes: 'key="a,b"'."""
        )
    return " ".join(lines[:2]) or type(error).__name__
