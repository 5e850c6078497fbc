"""Where things lie: the user's four folders, and the configs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alfm.errors import UserError

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
    from dotenv import dotenv_values, find_dotenv

    known = {key: value for key, value in dotenv_values(find_dotenv(usecwd=True)).items() if value}
    found = {name: os.environ.get(name) or known.get(name) or default for name, default in _DEFAULTS.items()}
    return Paths(*(Path(found[name]).expanduser() for name in _DEFAULTS))


def conf_dir() -> Path:
    """The absolute path of the configs: inside the installed package, else the checkout's `conf/`."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return folder
    raise UserError(f"No conf folder in {package} or beside it: install alfm again.")


@contextmanager
def environment() -> Iterator[None]:
    """`.env` and the folders' defaults in `os.environ` for as long as the block runs."""
    from dotenv import dotenv_values, find_dotenv

    wanted = _DEFAULTS | {key: value for key, value in dotenv_values(find_dotenv(usecwd=True)).items() if value}
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
