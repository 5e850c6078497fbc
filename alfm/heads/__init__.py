"""Heads on frozen features. Yours is a class like `Classifier` that gives a `LinearHead`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy

if TYPE_CHECKING:
    from alfm.heads.adapter import Adapter
    from alfm.heads.base import Classifier, Reweighted
    from alfm.heads.dropout import Dropout
    from alfm.heads.linear import LinearHead
    from alfm.heads.logistic import Logistic
    from alfm.heads.propagation import Propagated

_HOMES = {
    "alfm.heads.adapter": ("Adapter",),
    "alfm.heads.base": ("Classifier", "Reweighted"),
    "alfm.heads.dropout": ("Dropout",),
    "alfm.heads.linear": ("LinearHead",),
    "alfm.heads.logistic": ("Logistic",),
    "alfm.heads.propagation": ("Propagated",),
}

__all__ = [
    "Adapter", "Classifier", "Dropout", "LinearHead", "Logistic", "Propagated", "Reweighted",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
