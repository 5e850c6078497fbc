"""The command that makes a run again, from the configuration that lies in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from alfm.commands import command, setting
from alfm.config.al_train import al_train
from alfm.config.paths import conf_dir

_GROUPS = ("query_strategy", "init_strategy", "classifier")
_NOT_TYPED = frozenset({"run", "force", "dataset", "model"})
"""Top-level keys that say nothing, or that `cache=` says."""
_FOUND = {"index_sets": ("content", "items"), "tune": ("choices",)}
"""What a run's configuration says besides of what lay in files."""
OF_THE_ORIGINAL = ("budget", "init_strategy", "pool", "index_sets", "validation")
"""Settings that a replay has from the run that it replays."""


def typed_again(config: Mapping[str, Any], cache: str | None = None) -> str:
    """`python -m alfm.al_train ...` with what differs from the defaults. config: a run folder's, with its node `run`.

    cache: the file, where the configuration names none. A choice that is no config of this version (of a user's own
    folder, or of another version) is typed by its name alone.
    """
    config = _as_asked(config)
    run = config["run"]
    stopping = [name for name, node in dict(config.get("stopping") or {}).items() if isinstance(node, Mapping)]
    posterior = _option("query_strategy/posterior", dict(config.get("query_strategy") or {}).get("posterior"))
    chosen: dict[str, Any] = {group: str(run[group]) for group in _GROUPS if group in run}
    if posterior:
        chosen["query_strategy/posterior"] = posterior
    if stopping:
        chosen["stopping"] = stopping
    default = _defaults(tuple(setting(key, value) for key, value in chosen.items()))
    words = [setting(key, value) for key, value in chosen.items()]
    where = config.get("cache") or cache
    if where:
        words.insert(0, setting("cache", where))
    else:
        words[:0] = [setting(key, run[key]) for key in ("dataset", "model")]
    own = {key: value for key, value in config.items() if key not in (*_NOT_TYPED, "cache")}
    if default is None:
        own = {key: own[key] for key in ("seeds", "iterations", "budget", "splits") if key in own}
    words += [word for word in _differing(own, default or {}) if word not in words]
    return command("al_train", *words)


def without_findings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without what lay in the files that it names."""
    asked = dict(config)
    for key, found in _FOUND.items():
        if isinstance(node := asked.get(key), Mapping):
            asked[key] = {name: value for name, value in node.items() if name not in found}
    return asked


def _as_asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration as it was asked for: without what it says of files, and of a run that it replays."""
    asked, run = without_findings(config), dict(config["run"])
    if run["init_strategy"] == "index_sets":
        run["init_strategy"] = "random"
    if isinstance(node := asked.get("query_strategy"), Mapping) and "of" in node:
        asked["query_strategy"] = {name: value for name, value in node.items() if name != "of"}
        run["query_strategy"] = "replay"
        run.pop("init_strategy", None)
        asked = {key: value for key, value in asked.items() if key not in OF_THE_ORIGINAL}
    return {**asked, "run": run}


def _defaults(words: tuple[str, ...]) -> dict[str, Any] | None:
    """All of `al_train` with these words, plain; None where a choice is no config of this version."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(al_train(words), resolve=False)  # type: ignore[return-value]
    except HydraException:
        return None


def _option(group: str, node: Any) -> str | None:
    """The config of a group that a node was made from: of those with its class the one that says most of it."""
    if not isinstance(node, Mapping):
        return None
    alike = {}
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if given.get("_target_") == node.get("_target_"):
            alike[file.stem] = sum(node.get(key) == value for key, value in given.items())
    return max(alike, key=alike.__getitem__, default=None)


def _differing(own: Mapping[str, Any], default: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Words for the leaves that are not what `default` has; "+" where it has no such key."""
    for key, value in own.items():
        name = f"{path}{key}"
        there = key in default
        if isinstance(value, Mapping) and value and isinstance(default.get(key, {}), Mapping):
            yield from _differing(value, default.get(key) or {}, f"{name}.")
        elif not there or value != default[key]:
            yield setting(name if there or not default else f"+{name}", value)


def cache_of(folder: Path) -> str | None:
    """The cache that a run folder's last session read, as its `environment.json` has it; None where it has none."""
    import json

    try:
        return str(json.loads((folder / "environment.json").read_text(encoding="utf-8"))["sessions"][-1]["cache"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
