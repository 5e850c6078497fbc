"""From a config to the object that it describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alfm.errors import UserError
from alfm.options import OptionError, of_kind, shown

if TYPE_CHECKING:
    from omegaconf import DictConfig


def build(node: Any, kind: Any = None, group: str = "", **extra: Any) -> Any:
    """Build what a config's `_target_` names, with plain lists and dicts as arguments.

    kind: what it must be, a class or a protocol; group: where `node` stands, in words for the user. Hydra wraps every
    exception of a constructor: a `UserError` comes out unwrapped and names the setting, and becomes what answers a
    `_target_` that is not there or may not be called, and arguments that it does not take; others are raised as is.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    target = node.get("_target_") if hasattr(node, "get") else None
    if target is None:
        what = _article(kind.__name__) if kind else "something to build"
        raise UserError(f"{group}={shown(node)}: {what} is needed here; --help lists what there is.")
    try:
        made = instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        raise _why(error, node) from None
    if kind is not None and not of_kind(made, kind):
        where = f"{group}._target_={target}" if group else str(target)
        raise UserError(f"{where} gives {_article(type(made).__name__)} and {_article(kind.__name__)} is needed.")
    return made


def source_kind(group: str) -> type:
    """What the config of `dataset` or `model` must build."""
    from alfm.backbones.base import Backbone
    from alfm.datasets.base import Dataset

    return {"dataset": Dataset, "model": Backbone}[group]


def _why(error: Exception, node: DictConfig) -> BaseException:
    """A constructor's own exception, or a sentence that names the setting."""
    from omegaconf import OmegaConf

    head, _, key = str(error).partition("\nfull_key: ")
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, OptionError):
            inside = key.removeprefix(node._get_full_key("")).removeprefix(".")
            taken = OmegaConf.select(node, inside) if inside else node
            return cause.at(key) if key and taken is not None and cause.option in taken else cause
        if isinstance(cause, UserError):
            return cause
    last, text = causes[-1], " ".join(head.split())
    target = str(node.get("_target_"))
    named = re.search(r"target '([^']+)'", text, re.IGNORECASE)
    if "locating target" in text:
        why = f" ({last})" if isinstance(last, ImportError) else ""
        return UserError(f"There is no {named[1] if named else target}{why}: correct _target_, or install its package.")
    if isinstance(last, TypeError) and "argument" in str(last):
        return UserError(f"{named[1] if named else target} was not given what it takes: {last}.")
    if last is error:  # Hydra itself refuses
        why = "Hydra lets no config call it" if "blocklisted" in text else text.partition(". ")[0].rstrip(".")
        return UserError(f"{key}._target_={named[1] if named else target}: {why}; name a class or function to build.")
    return last


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
