"""`experiment=NAME`: a published setting as one word, which stands for the words in conf/experiment/NAME.yaml.

A file there is a mapping of settings to values as they are typed: `query_strategy: random,margins` is a sweep, a YAML
list is a list. What is typed besides wins over the same setting in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from alfm.config.paths import conf_dir
from alfm.errors import UserError, nearest_names

GROUP = "experiment"


def with_experiment(words: Sequence[str], extra: Path | None = None) -> tuple[list[str], bool]:
    """Overrides with those of the experiment that they name, and whether they name one.

    extra: a user's own folder of config groups, looked at first. Raises UserError: no such experiment, two of them, one
    that is no mapping.
    """
    named = [word.partition("=")[2] for word in words if _key(word) == GROUP]
    if not named:
        return list(words), False
    if len(named) > 1 or "," in named[0]:
        raise UserError(f"{GROUP}={','.join(named)}: name one experiment at a time.")
    typed = [word for word in words if _key(word) != GROUP]
    given = {_key(word) for word in typed}
    settings = _read(named[0], extra)
    return [*(f"{key}={_value(value)}" for key, value in settings.items() if key not in given), *typed], True


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _read(name: str, extra: Path | None) -> dict[str, Any]:
    folders = [root / GROUP for root in (extra, conf_dir()) if root is not None]
    known = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.yaml")}
    if name not in known:
        raise UserError(f"There is no {GROUP}={name}: {nearest_names(name, list(known))}")
    try:
        settings = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{known[name]} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UserError(f"{known[name]} must be a mapping of settings to values, such as query_strategy: margins.")
    return settings


def _value(value: Any) -> str:
    """As it is typed on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
