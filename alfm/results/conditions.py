"""Under which conditions a run was made, as text: what runs that are compared must share, and what tells them apart.

A run's configuration falls in two: the query strategy, the cold start and the rules that could end replicates, which
are under test, and everything else that enters its hash, which must be equal. Each is kept in run frames as JSON, so
that a difference can be shown by the keys that differ. Behaviour numbers, which tell runs of one strategy before and
after a mend apart, stand beside them. What chance has drawn for a whole run, all its seeds alike, is under neither:
runs that differ in it alone are more replicates of one design.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

UNDER_TEST = {"query_strategy": "query_options", "init_strategy": "init_options", "stopping": "stopping"}
"""Keys of a configuration that may differ between runs that are compared, and their columns in run frames."""
DRAWS = {"pool.seed": "pool.seed", "index_sets.partition": "partition"}
"""Keys that say which draw of a paired design a run is, and what the column `draw` calls them."""
NOT_RECORDED = "not recorded"
NOT_STOPPED = "{}"
_OF_THE_SETTING = frozenset({"renumbered_classes", "confusion"})
"""Behaviour numbers (see `Simulation.behaviour`) that concern every run on a cache, not some strategies."""
_DIGITS = 12  # of a digest


def condition_columns(config: Mapping[str, Any], behaviour: Mapping[str, int] | None = None) -> dict[str, str]:
    """`conditions`, `query_options`, `init_options`, `stopping` (`NOT_STOPPED` for a run that no rule may end) and
    `behaviour` of a run, each as JSON with sorted keys; and `draw`, "pool.seed=1, partition=2", "" for none.

    config: what enters the run's hash, plain; behaviour: the run's behaviour numbers.
    """
    config, draw = _without_draws(config)
    behaviour = dict(behaviour or {})
    shared = {f"behaviour.{name}": behaviour.pop(name) for name in _OF_THE_SETTING & behaviour.keys()}
    parts = {
        "conditions": {key: value for key, value in config.items() if key not in UNDER_TEST} | shared,
        **{column: _options(config.get(key)) for key, column in UNDER_TEST.items()},
        "behaviour": behaviour,
    }
    return {**{column: json.dumps(plain(part), sort_keys=True) for column, part in parts.items()}, "draw": draw}


def _without_draws(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A configuration without the keys of `DRAWS` and the digests of what they drew, and what they say."""
    config, said = dict(config), []
    for dotted, name in DRAWS.items():
        group, _, key = dotted.partition(".")
        if isinstance(node := config.get(group), Mapping) and node.get(key) is not None:
            said.append(f"{name}={plain(node[key])}")
            left = {other: value for other, value in node.items() if other not in (key, "content")}
            config[group] = left
            if not left:
                del config[group]
    return config, ", ".join(said)


def _options(node: Any) -> dict[str, Any]:
    return dict(node) if isinstance(node, Mapping) else {} if node is None else {"_target_": node}


def differing(texts: Iterable[str]) -> dict[str, list[str]]:
    """Dotted keys whose values differ between conditions or options -> the values, in order of appearance."""
    flat = [_flat(text) for text in dict.fromkeys(texts)]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: list(dict.fromkeys(one.get(key, NOT_RECORDED) for one in flat)) for key in keys}
    return {key: found for key, found in values.items() if len(found) > 1}


def telling_words(texts: Iterable[str], within: str = "", without: tuple[str, ...] = ()) -> dict[str, str]:
    """Each text -> its values of the keys that differ among them, "strength=10, tolerance=0.1"; "" where none does.

    within: only keys that begin so, without that beginning; without: no keys that begin with one of these.
    """
    texts = list(dict.fromkeys(texts))
    keys = [key for key in differing(texts) if key.startswith(within) and not key.startswith(without)]
    flat = {text: _flat(text) for text in texts}
    return {
        text: ", ".join(f"{key.removeprefix(within)}={own[key]}" for key in keys if key in own)
        for text, own in flat.items()
    }


def _flat(text: str) -> dict[str, str]:
    """JSON -> dotted keys and their values as a command line writes them."""
    found: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        elif path:
            found[path] = node if isinstance(node, str) else json.dumps(node, separators=(",", ":"))

    walk(json.loads(text) if text else {}, "")
    return found


# -- objects -----------------------------------------------------------------------------------------------------------


def as_config(given: Any, node: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a config would say of an object: `_target_`, its class, and its options.

    `node`: a config of that class, where there is one. Options that stand in it are always given, others only where
    they are not the class's default, so that an object and the config with the same values read the same.
    """
    kind = type(given)
    node = node if node and _names(node.get("_target_"), kind) else {"_target_": _path(kind)}
    found: dict[str, Any] = {"_target_": node["_target_"]}
    own = dict(getattr(given, "__dict__", {}))
    for name, parameter in _parameters(kind).items():
        here = next((key for key in (name, f"_{name}") if key in own or hasattr(given, key)), None)
        if here is None:  # kept under another name: whatever is plain tells objects apart
            found |= {key: value for key, value in own.items() if isinstance(value, bool | int | float | str)}
        elif name in node or not _same(getattr(given, here), parameter.default):
            found[name] = _described(getattr(given, here), node.get(name))
    return found


def config_of_class(kind: type, folder: Path) -> str | None:
    """The config in `folder` (a group of conf/) that builds this class; of several the one named like the class."""
    names = [
        path.stem
        for path in sorted(folder.glob("*.yaml"))
        if _names((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("_target_"), kind)
    ]
    alike = [name for name in names if name.replace("_", "") == kind.__name__.lower()]
    return next(iter([*alike, *names]), None)


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _names(target: Any, kind: type) -> bool:
    """Does a `_target_` name this class, by whatever module gives it out?"""
    module, _, name = str(target).rpartition(".")
    return getattr(sys.modules.get(module), name, None) is kind


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    if kind.__init__ is object.__init__:  # type: ignore[misc]  # of the class itself
        return {}
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # a class in C that does not tell
        return {}
    return {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _same(value: Any, default: Any) -> bool:
    try:
        return bool(value == default)
    except (TypeError, ValueError, RuntimeError):  # arrays
        return False


def _described(value: Any, node: Any) -> Any:
    """An option's value, plain: numbers and texts as they are, arrays by digest, objects as configs."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _described(one, None) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_described(one, None) for one in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "__array__"):
        import numpy as np

        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:_DIGITS]
        return array.item() if not array.ndim else f"{array.dtype} {array.shape} {digest}"
    if isinstance(value, type) or callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return as_config(value, node if isinstance(node, Mapping) else None)


def plain(node: Any) -> Any:
    """A configuration ready for JSON, whole numbers as integers: 10 and 10.0 are one strength."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    return node if node is None or isinstance(node, bool | int | float | str) else str(node)
