"""The parts of a run by their config's name: strategies and classifiers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from alfm.config.build import build
from alfm.config.paths import conf_dir
from alfm.errors import UserError, nearest_names
from alfm.heads.base import Classifier
from alfm.strategies.base import Strategy

if TYPE_CHECKING:
    from omegaconf import DictConfig

KINDS = {"query_strategy": Strategy, "init_strategy": Strategy, "classifier": Classifier}


def from_config(group: str, name: str, **options: Any) -> Any:
    """Build `conf/<group>/<name>.yaml`, e.g. `from_config("query_strategy", "margins", cluster_features=True)`.

    Raises UserError, with the nearest names, when there is no such config or option.
    """
    from omegaconf import OmegaConf

    return called(build(OmegaConf.merge(node_of(group, name), options), KINDS.get(group), group), name)


def called(part: Any, name: str) -> Any:
    """The part of a run, which is called as its config from now on if it is a strategy."""
    if isinstance(part, Strategy):
        with suppress(AttributeError):  # a class that works out its name itself
            part.name = name
    return part


def node_of(group: str, name: str) -> DictConfig:
    """`conf/<group>/<name>.yaml` as `al_train` composes it; UserError with the nearest names when there is none."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    known = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
    if name not in known:
        raise UserError(f"There is no {group}={name}: {nearest_names(name, known)}")
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            node = compose("al_train", overrides=[f"{group}={name}"])[group]
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = before
    OmegaConf.set_struct(node, False)
    return node
