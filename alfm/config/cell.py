"""One cell of a sweep as plain data: all that a process, here or elsewhere, needs to run one configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PAIRS = "!pairs"


@dataclass(frozen=True)
class Cell:
    """One configuration. Holds dicts, lists, texts, numbers, true, false and null: can be pickled, and is JSON."""

    task: str
    """Dotted name of the class whose objects run it: see `alfm.engines.base.Session`."""
    config: dict[str, Any]
    """The composed configuration, every `${...}` resolved."""
    choices: dict[str, str | None]
    """Config group -> the option that was chosen, None for none."""
    words: tuple[str, ...]
    """What was typed."""
    folder: str
    """The working folder, which relative paths in `config` and `environment` start from."""
    environment: dict[str, str]
    """The user's four folders, by the names of their variables."""

    def cfg(self) -> DictConfig:
        """The configuration as Hydra makes it: `cfg.budget.init`, closed to names that are not there."""
        return as_cfg(self.config)

    def to_json(self) -> str:
        """Inverse of `from_json`."""
        return json.dumps({name: _packed(value) for name, value in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> Cell:
        """Inverse of `to_json`."""
        given = json.loads(text, object_hook=_unpacked)
        return cls(**given | {"words": tuple(given["words"])})


def as_cfg(config: Mapping[str, Any]) -> DictConfig:
    """Resolved plain data as a config that is closed to names that are not there; texts are taken as they are."""
    from omegaconf import OmegaConf

    cfg = OmegaConf.create(_literal(config))
    OmegaConf.set_struct(cfg, True)
    return cfg


def _literal(node: Any) -> Any:
    """The same with `${` escaped, which would be looked up a second time."""
    if isinstance(node, Mapping):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def _packed(node: Any) -> Any:
    """The same with mappings whose keys are not all texts, which JSON does not have, as lists of pairs."""
    if isinstance(node, dict):
        inner = {key: _packed(value) for key, value in node.items()}
        return inner if all(isinstance(key, str) for key in inner) else {_PAIRS: list(inner.items())}
    return [_packed(value) for value in node] if isinstance(node, list | tuple) else node


def _unpacked(node: dict[str, Any]) -> dict[Any, Any]:
    return dict(node[_PAIRS]) if set(node) == {_PAIRS} else node
