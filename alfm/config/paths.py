"""Where things lie: the user's four folders, the configs, and the caches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alfm.config.build import build, source_kind
from alfm.errors import UserError
from alfm.options import Name, check

if TYPE_CHECKING:
    from omegaconf import DictConfig

_DEFAULTS = {
    "DATASET_DIR": "./data",
    "MODEL_CACHE_DIR": "./models",
    "FEATURE_CACHE_DIR": "./features",
    "LOG_DIR": "./logs",
}


@dataclass(frozen=True)
class Paths:
    """The four folders of a user. `.env` of the working folder (or one above it), overruled by the real environment."""

    datasets: Path
    models: Path
    features: Path
    logs: Path


def paths() -> Paths:
    """Read the four folders now: DATASET_DIR, MODEL_CACHE_DIR, FEATURE_CACHE_DIR, LOG_DIR, each with a default."""
    variables = folder_variables()
    for name, value in variables.items():
        if "://" in value:
            raise UserError(
                f"{name}={value}: give a folder of this machine; caches go to a store with cache.upload=URL."
            )
    return Paths(*(Path(value).expanduser() for value in variables.values()))


def folder_variables() -> dict[str, str]:
    """The four variables as they are now."""
    known = env_file()
    return {name: os.environ.get(name) or known.get(name) or default for name, default in _DEFAULTS.items()}


def cache_path(cfg: DictConfig) -> Path:
    """Where the cache of `cfg.dataset` and `cfg.model` lies: `<FEATURE_CACHE_DIR>/<dataset>/<model>.h5`.

    Names come from `cfg.cache.dataset` and `cfg.cache.model` (where there is such a group), then from what the data set
    and the backbone call themselves; nothing is loaded on a device, and a `name` in the config saves building at all.
    """
    given = cfg.get("cache")
    given = given if hasattr(given, "get") else {}
    return cache_file(*(given.get(group) or _own_name(cfg, group) for group in ("dataset", "model")))


def cache_file(dataset: str, model: str) -> Path:
    """Where the cache of a data set and a backbone of these names lies."""
    from alfm.datasets.ids import file_stem

    return paths().features / file_stem(dataset) / f"{file_stem(model)}.h5"


def _own_name(cfg: DictConfig, group: str) -> str:
    node = cfg.get(group)
    name = node.get("name") if hasattr(node, "get") else None
    if name is not None:
        check(group, "name", name, Name, ".")
        return name
    return build(node, source_kind(group), group).name


def conf_dir() -> Path:
    """The absolute path of the configs: inside the installed package, else the checkout's `conf/`."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return folder
    raise UserError(f"No conf folder in {package} or beside it: install alfm again.")


def groups_of(extra: Path | None = None) -> dict[str, list[str]]:
    """Config groups and their options, the user's own included."""
    groups: dict[str, set[str]] = {}
    for root in filter(None, (conf_dir(), extra)):
        for file in root.rglob("*.yaml"):
            group = file.parent.relative_to(root).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(groups.items())}


@contextmanager
def environment() -> Iterator[None]:
    """`.env` and the folders' defaults in `os.environ` for as long as the block runs."""
    wanted = _DEFAULTS | env_file()
    added = {key: value for key, value in wanted.items() if not os.environ.get(key)}
    before = {key: os.environ.get(key) for key in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def env_file() -> dict[str, str]:
    """What the `.env` of the working folder, or of one above it, says."""
    from dotenv import dotenv_values, find_dotenv

    return {key: value for key, value in dotenv_values(find_dotenv(usecwd=True)).items() if value}
