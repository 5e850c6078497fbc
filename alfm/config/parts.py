"""The parts of a run by their config's name: strategies, classifiers and stopping rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from alfm.callbacks.base import Callback
from alfm.config.al_train import al_train
from alfm.config.build import build
from alfm.config.paths import conf_dir
from alfm.errors import UserError, nearest_names
from alfm.heads.base import Classifier
from alfm.stopping.base import Rule
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


def rules_of(node: DictConfig, settings: Collection[str]) -> dict[str, Rule]:
    """The stopping rules of a config's node `stopping`, by name; settings: its other entries.

    Raises UserError for an entry that is neither, and what `build` raises.
    """
    if "_target_" in node:
        raise UserError(
            f"{node['_target_']} stands in stopping itself: begin its config's file with # @package stopping.NAME."
        )
    wrong = [str(name) for name in node if name not in settings and not hasattr(node[name], "keys")]
    if wrong:
        raise UserError(f"There is no setting stopping.{wrong[0]}: {nearest_names(wrong[0], [*settings])}")
    return {name: build(node[name], Rule, f"stopping.{name}") for name in map(str, node) if name not in settings}


def callbacks_of(node: DictConfig) -> dict[str, Callback]:
    """The callbacks of a config's node `callback`, by name. Raises what `build` raises, and UserError for others."""
    if "_target_" in node:
        raise UserError(
            f"{node['_target_']} stands in callback itself: begin its config's file with # @package callback.NAME."
        )
    return {name: build(node[name], Callback, f"callback.{name}") for name in map(str, node)}


def node_of(group: str, name: str) -> DictConfig:
    """`conf/<group>/<name>.yaml` as `al_train` composes it; UserError with the nearest names when there is none."""
    from omegaconf import OmegaConf

    node = deepcopy(_al_train({group: name})[group])
    OmegaConf.set_struct(node, False)
    return node


def composed(chosen: Mapping[str, str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Query strategy, cold start and classifier as `al_train` takes them where these are chosen: name, plain config.

    A cold start that is not chosen is the query strategy's own. Raises UserError with the nearest names.
    """
    from omegaconf import OmegaConf

    whole = _al_train(chosen)
    names = whole.hydra.runtime.choices
    return {group: (names[group], OmegaConf.to_container(whole[group], resolve=True)) for group in KINDS}  # type: ignore[misc]


def _al_train(chosen: Mapping[str, str]) -> DictConfig:
    """conf/al_train.yaml with these choices; UserError with the nearest names for one that there is not."""
    for group, name in chosen.items():
        known = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
        if name not in known:
            raise UserError(f"There is no {group}={name}: {nearest_names(name, known)}")
    return al_train(tuple(f"{group}={name}" for group, name in chosen.items()))
