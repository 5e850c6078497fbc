"""Herding that goes on from round to round, on lists of pairs as soon as they are short enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from alfm.features.features import Vectors
from alfm.geometry import nearer_pairs
from alfm.geometry.greedy import enqueued
from alfm.geometry.herding import prepare
from alfm.geometry.herding_lists import make_lists
from alfm.geometry.kernels import Kernel
from alfm.strategies.query import Growing, Query


class Herder(Growing, Protocol):
    """Herding, with lists or without."""

    kernel: Kernel

    def select(self, allowed: Tensor, budget: int) -> Tensor:
        """The next picks, int64 (min(budget, allowed items),), added as they are made. allowed: bool (N,)."""
        ...


def herders(query: Query, name: str, vectors: Vectors, kernel: Kernel, replicates: Sequence[int]) -> dict[int, Herder]:
    """A state for each of some replicates with everything labelled added, kept under `name` (see `Query.kept`).

    On lists where they are short enough, else `Herding` without them, which is asked again in the next round.
    """

    def fits(state: Herder) -> bool:
        return state.kernel == kernel

    def on_lists(missing: list[int]) -> list[Herder | None]:
        made = make_lists(vectors, kernel, [query.labelled(r) for r in missing])
        return [None if one is None else one.at(kernel, last=True) for one in made]

    def without(missing: list[int]) -> list[Herder | None]:
        return [*prepare(vectors, kernel, [query.labelled(r) for r in missing])]

    listed: list[Herder | None] = query.kept_of(f"{name} on lists", replicates, on_lists, fits)
    states = dict(zip(replicates, listed, strict=True))
    rest = [r for r, one in states.items() if one is None]
    others: list[Herder | None] = query.kept_of(name, rest, without, fits)
    states |= zip(rest, others, strict=True)
    return {r: one for r, one in states.items() if one is not None}


def near_pairs(query: Query, name: str, vectors: Vectors, replicates: Sequence[int]) -> nearer_pairs.Together | None:
    """The pairs that can still gain, kept where picks are enqueued; None where there is no room for them."""
    if not enqueued(vectors):
        return None
    kept = query.kept_of(
        f"{name} on pairs",
        replicates,
        lambda missing: nearer_pairs.made(vectors, [query.labelled(r) for r in missing]),
    )
    found = [one for one in kept if one is not None]
    return nearer_pairs.Together(found) if len(found) == len(replicates) else None
