"""Stopping rules as Python callers give them: names of configs, objects, or a mapping that names objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alfm.config.build import build
from alfm.config.parts import node_of
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.results.conditions import as_config, config_of_class
from alfm.stopping.base import Rule

Given = str | Rule | Sequence[str | Rule] | Mapping[str, Rule]


def rules_given(given: Given) -> dict[str, Rule]:
    """By name, an object's being its config's. Raises UserError for an unknown name, a name that is there twice, and a
    rule that was told of rounds already."""
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        pairs = [_named(one) for one in ([given] if isinstance(given, str | Rule) else given)]
    rules: dict[str, Rule] = {}
    for name, rule in pairs:
        if name in rules:
            raise UserError(f"simulate stopping= has two rules {name}: name them, {{'first': rule, 'second': rule}}.")
        if rule.round:
            raise UserError(f"simulate stopping=: {name} was told of rounds already, give a new one.")
        rules[name] = rule
    return rules


def config_of_rules(rules: Mapping[str, Rule]) -> dict[str, Any]:
    """What a config would say of them, by name."""
    return {name: as_config(rule, _plain_node(_config_name(rule) or "")) for name, rule in rules.items()}


def _named(given: str | Rule) -> tuple[str, Rule]:
    if isinstance(given, str):
        return given, build(node_of("stopping", given)[given], Rule, f"stopping.{given}")
    return _config_name(given) or type(given).__name__.lower(), given


def _config_name(rule: Rule) -> str | None:
    return config_of_class(type(rule), conf_dir() / "stopping")


def _plain_node(name: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return dict(OmegaConf.to_container(node_of("stopping", name)[name])) if name else {}  # type: ignore[arg-type]
