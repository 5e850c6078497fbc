"""ProbCover: Yehuda et al. 2022, "Active learning through a covering lens" (2205.11320), algorithm 1."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from alfm.geometry.inverted_file import Cells, NearCover, foreseen_pairs, pool_clusters
from alfm.geometry.kmeans import kmeans
from alfm.geometry.max_coverage import Cover, CoverState, purity_distances, purity_radius
from alfm.options import Bytes, Count, Whole, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.sub_pool import Subsampled
from alfm.strategies.query import Query
from alfm.streams import stream

LONG = 10
"""Times `exact_up_to` items, or `sample`: from there on near pairs are looked for among the items of a part."""


@dataclass(eq=False)
@checked
class ProbCover(Strategy):
    """Greedy maximum coverage: the item whose ball of radius delta holds most items not yet covered.

    delta: the radius on unit features, or None: the largest at which a share `purity` of all balls holds one k-means
    pseudo-class only (section 4.2). classes: how many pseudo-classes, None for the number of classes of the task;
    hidden labels are never used. Radius and ball graph depend on the features alone and are made once per pool, for
    all replicates. When everything is covered the farthest items follow. Pools above `exact_up_to` items: radius and
    graph are approximate, made of pairs of which one lies in one of the `probe` cells near the other, of K = 4 sqrt(N)
    (`geometry.inverted_file`); where that graph exceeds `memory_cap`, balls are so large that a part will do: `sample`
    random items of the replicate's own stream.
    Pools of ten times `exact_up_to` items: the same on half as many random ones of each replicate, or on so many that
    their near pairs fit into `memory_cap`, which is each replicate's there; the radius is the whole pool's, as some
    random items' balls say.
    Cost: once O(N^2 D), by cells less, then the near pairs E; memory O(E), or O(N) beyond `memory_cap`.
    """

    needs = ("features",)
    needs_head = False
    measures = ("unit",)
    delta: Annotated[float, Ge(0), Le(10)] | None = None
    purity: Annotated[float, Gt(0), Le(1)] = 0.95
    classes: Count | None = None
    memory_cap: Bytes = 2 << 30
    exact_up_to: Whole = 200_000
    probe: Count = 16
    sample: Count = 50_000

    def clusters_part(self, items: int) -> bool:
        return items >= self._long

    @property
    def _long(self) -> int:
        return LONG * max(self.exact_up_to, self.sample)

    def select(self, query: Query, budget: int) -> Tensor:
        if query.pool.N >= self._long:
            return self._on_part(query, budget, self._long // 2)
        cover = self._cover(query)
        if query.pool.N > self.exact_up_to and cover.indices is None:
            # each replicate has a graph of its own
            exact = self.varied(memory_cap=self.memory_cap // query.R, exact_up_to=query.pool.N)
            return Subsampled(exact, self.sample).select(query, budget)

        def state(r: int) -> CoverState:
            # flags belong to one radius
            return query.kept(self.name, r, lambda: CoverState(cover), lambda old: old.cover_of is cover)

        return query.greedily(state, budget)

    def _cover(self, query: Query) -> Cover:
        if query.pool.N > self.exact_up_to:
            return self._near_cover(query)
        delta = self.delta
        if delta is None:
            delta = purity_delta(query, self.classes or query.num_classes, self.purity)
        pool, cap = query.pool, self.memory_cap
        unit = pool.points()

        def make() -> Cover:
            question = f"balls {delta!r} within {cap} bytes"
            return Cover(unit, delta, found=unit.arrays(question, lambda: Cover(unit, delta, cap).arrays()))

        return pool.once(("cover", delta, cap), make)

    def _on_part(self, query: Query, budget: int, size: int) -> Tensor:
        """Of so large a pool: all near pairs would take hours to find. size: most items of a part."""
        pool, delta, classes = query.pool, self.delta, self.classes or query.num_classes

        def find() -> dict[str, np.ndarray]:
            unit = pool.points()
            pseudo = pool_clusters(unit, classes, "pseudo-classes") if delta is None else None
            return {"foreseen": np.array(foreseen_pairs(unit, delta, pseudo, self.purity))}

        key = ("foreseen pairs", delta, classes, self.purity)
        found = pool.once(key, lambda: pool.points().arrays(" ".join(map(str, key)), find))["foreseen"]
        radius, pairs = found.tolist()
        if 24 * pairs * (size / pool.N) ** 2 > self.memory_cap:  # twice their lists: the number rests on few items
            size = max(self.sample, int(pool.N * math.sqrt(self.memory_cap / (24 * pairs))))
        pool.once(("part", size), lambda: warnings.warn(_warning(pool.N, size), stacklevel=4))
        items = min(pool.N, max(size, 20 * budget) + max(query.counts))
        near = self.varied(delta=radius, exact_up_to=max(self.exact_up_to, items // LONG + 1))
        return Subsampled(near, size).select(query, budget)

    def _near_cover(self, query: Query) -> Cover:
        """Without lists where they exceed `memory_cap`."""
        pool, delta, classes = query.pool, self.delta, self.classes or query.num_classes

        def make() -> Cover:
            # Unit features of few items at a time: all of them would double the memory of so large a pool.
            unit = pool.vectors(replace(pool.point_space(), shared=False))  # type: ignore[type-var]

            def arrays() -> dict[str, np.ndarray]:
                cells, radius = Cells(unit, self.probe), delta
                if radius is None:
                    pseudo = pool_clusters(unit, classes, "pseudo-classes")
                    radius = purity_radius(cells.purity_distances(pseudo), self.purity)
                return NearCover(cells, radius, self.memory_cap).arrays() | {"radius": np.array(radius)}

            found = unit.arrays(" ".join(map(str, key)), arrays)
            return Cover(unit, float(found["radius"]), found=found)

        key = ("near balls", delta, classes, self.purity, self.probe, self.memory_cap)
        return pool.once(key, make)


def _warning(items: int, size: int) -> str:
    return (
        f"probcover: of {items:,} items it would take hours to find all near pairs; each replicate looks at {size:,} "
        f"random ones (at most {LONG // 2} times query_strategy.exact_up_to)."
    )


def purity_delta(query: Query, classes: int, purity: float) -> float:
    """The purity radius of the pool for this many pseudo-classes, made once per pool with a stream of its own."""
    pool = query.pool
    unit = pool.points()

    def distances() -> dict[str, np.ndarray]:
        x = unit.matrix if unit.matrix is not None else torch.cat([x for _, x in unit.blocks()])
        pseudo = kmeans(x, min(classes, pool.N), stream(0, 0, "pseudo-classes")).assignment
        return {"r": purity_distances(unit, pseudo).cpu().numpy()}

    def make() -> Tensor:
        return torch.from_numpy(unit.arrays(f"purity distances {classes} pseudo-classes", distances)["r"])

    return purity_radius(pool.once(("purity distances", classes), make), purity)
