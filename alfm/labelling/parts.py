"""Strategies and heads of a labelling state: from what was asked for to a record, and from the record to objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from alfm.config.build import build
from alfm.config.cell import as_cfg
from alfm.config.parts import KINDS, called, composed
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.results.conditions import as_config, config_of_class, plain


@dataclass(frozen=True)
class Part:
    """One of them: what it is called, its config, the object, and whether the config makes the same object again."""

    name: str
    config: dict[str, Any]
    made: Any
    again: bool = True


def chosen(query_strategy: Any, init_strategy: Any, classifier: Any) -> dict[str, Part]:
    """The parts that were asked for, each a config's name, an object or a `Part`.

    init_strategy None: the query strategy's own cold start. Raises UserError: no such config, or a strategy that looks
    at hidden labels.
    """
    given = {"query_strategy": query_strategy, "init_strategy": init_strategy, "classifier": classifier}
    nodes = composed({group: one for group, one in given.items() if isinstance(one, str)})
    parts = {}
    for group, one in given.items():
        if one is None or isinstance(one, str):
            name, config = nodes[group]
            parts[group] = Part(name, config, _made(group, name, config))
        elif isinstance(one, Part):
            _refuse_oracle(one.made)
            parts[group] = one
        else:
            parts[group] = _of_object(group, one)
    return parts


def read(settings: Mapping[str, Any]) -> dict[str, Part]:
    """The parts of a settings act. Raises UserError for what cannot be made, or is no strategy or head."""
    parts, names = {}, settings.get("names")
    for group in KINDS:
        config, name = settings.get(group), names.get(group) if isinstance(names, Mapping) else None
        if not isinstance(config, dict) or not isinstance(name, str):
            raise UserError(f"The state's settings do not say which {group} is used: choose one with {group}=NAME.")
        _check(config, group)
        parts[group] = Part(name, config, _made(group, name, config))
    return parts


def chosen_again(old: Mapping[str, Part], changes: Mapping[str, Any]) -> dict[str, Part]:
    """The parts with some chosen anew; a new query strategy brings its own cold start."""
    groups = [group for group in KINDS if group in changes]
    new = chosen(*(changes.get(group, "random" if group == "query_strategy" else None) for group in KINDS))
    if "query_strategy" in changes:
        groups.append("init_strategy")
    return dict(old) | {group: new[group] for group in groups}


def record(parts: Mapping[str, Part]) -> dict[str, Any]:
    """What a settings act says of them."""
    return {group: part.config for group, part in parts.items()} | {
        "names": {group: part.name for group, part in parts.items()}
    }


def refuse_unrecorded(parts: Mapping[str, Part]) -> None:
    """Raises UserError where a folder could not tell what was used."""
    for group, part in parts.items():
        if not part.again:
            raise UserError(
                f"{group}={part.name} cannot be made again from its options, which a folder has to record: give the "
                "class plain options (numbers, texts, lists) under the names of its fields, or label without a folder."
            )


def _of_object(group: str, given: Any) -> Part:
    kind = type(given)
    _refuse_oracle(given)
    known = config_of_class(kind, conf_dir() / group)
    name = known or getattr(given, "name", None) or kind.__name__.lower()
    node: Any = composed({group: known})[group][1] if known else {}
    config = as_config(given, node)
    try:
        _check(config, group)
        again = plain(as_config(build(as_cfg(config), KINDS[group], group), node)) == plain(config)
    except Exception:  # whatever a class of somebody's own raises
        again = False
    return Part(str(name), config, given, again)


def _made(group: str, name: str, config: Mapping[str, Any]) -> Any:
    made = called(build(as_cfg(config), KINDS[group], group), name)
    _refuse_oracle(made)
    return made


def _refuse_oracle(made: Any) -> None:
    if getattr(made, "oracle", False):
        raise UserError(f"{made.name} looks at hidden labels, which only a simulation has; choose another strategy.")


def _check(node: Any, where: str) -> None:
    """Refuses a `_target_` that is not a class of one of our kinds: a state may come from anybody."""
    if isinstance(node, list):
        for one in node:
            _check(one, where)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        _check(value, f"{where}.{key}")
    if "_target_" not in node:
        return
    module, _, name = str(node["_target_"]).rpartition(".")
    try:
        kind = getattr(import_module(module), name, None)
    except (ImportError, ValueError) as error:
        raise UserError(f"{where}._target_={node['_target_']} is not there ({error}): install its package.") from error
    if not isinstance(kind, type) or not any(hasattr(kind, method) for method in ("select", "fit", "bind")):
        raise UserError(f"{where}._target_={node['_target_']} is no strategy, posterior or classifier.")
