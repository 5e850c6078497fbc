"""Label propagation on the k-nearest-neighbour graph, in front of any classifier.

Zhou et al. 2004 ("Learning with local and global consistency"); as pseudo-labels for training: Iscen et al. 2019
(arXiv 1904.04970).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alfm.errors import UserError
from alfm.features.features import Features, Vectors
from alfm.features.spaces import UNIT, Unit
from alfm.geometry.knn import knn
from alfm.geometry.topk import top
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.options import Count, Whole, checked
from alfm.threads import side_by_side


@dataclass(frozen=True)
@checked
class Propagated:
    """Fits `classifier` on the labelled items and on soft labels that spread from them over the pool.

    Graph: W = A + A^T, A_ij = max(0, cos(h_i, h_j))^gamma for the k nearest neighbours j of i (k at most N - 1),
    S = D^-1/2 W D^-1/2 with D the WEIGHTED degrees; made once per pool. Spreading: Z <- alpha S Z + (1 - alpha) Y,
    Y the labels, to the accuracy that `iterations` such steps guarantee (alpha^iterations of the limit's scale).

    What the classifier sees: labelled items with their own labels and weight 1; and the `most` unlabelled items that
    are most certain, with their row of Z normalised and weight 1 - H/log C' (Iscen et al., eq. 11; C' classes with a
    label), scaled so that these weights sum to `unlabelled_weight` times the number of labelled items. Items that no
    label reaches are left out.

    Cost: O(N^2 D) once for the graph, then O(N k C') a fit; memory O(N (k + C')).
    """

    classifier: Classifier
    k: Count = 500
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.9
    gamma: Annotated[float, Gt(0), Le(100)] = 1.0
    iterations: Annotated[int, Ge(1), Le(10**6)] = 100
    unlabelled_weight: Annotated[float, Ge(0), Le(1e6)] = 1.0
    most: Whole = 4096

    def tuning_space(self, num_classes: int) -> Mapping[str, Sequence[float]]:
        """What is worth trying: what is so of the classifier inside."""
        inner = getattr(self.classifier, "tuning_space", None)
        return {} if inner is None else {f"classifier.{name}": values for name, values in inner(num_classes).items()}

    def fit(
        self,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        seeds: Sequence[int],
        round: int = 0,
        weight: Tensor | None = None,
        previous: LinearHead | None = None,
    ) -> LinearHead:
        """See `alfm.heads.base.Classifier`. Raises what `classifier` raises, and UserError for a pool with views."""
        if pool.views is not None:
            raise UserError("classifier=propagated spreads labels over plain items: set train_views=false with it.")
        if targets.ndim == 2:
            targets = torch.nn.functional.one_hot(targets.clamp_min(0), num_classes)
        targets = targets.to(pool.device, pool.dtype)
        graph = pool.once(("propagation", self.k, self.gamma), partial(propagation_graph, pool, self.k, self.gamma))
        jobs = []
        for r in range(len(rows)):
            valid = rows[r] >= 0
            own = torch.ones_like(targets[r, valid, 0]) if weight is None else weight[r, valid].to(targets)
            jobs.append(partial(self._extend, graph, rows[r, valid].to(pool.device), targets[r, valid], own))
        longer = zip(*side_by_side(jobs, pool.device), strict=True)
        padded = [
            pad_sequence(list(v), batch_first=True, padding_value=p) for v, p in zip(longer, (-1, 0, 0), strict=True)
        ]
        return self.classifier.fit(pool, padded[0], padded[1], num_classes, seeds, round, padded[2], previous)

    def _extend(self, graph: Tensor, rows: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One replicate's labelled items (n,), (n, C), (n,) -> the same with pseudo-labelled items behind them."""
        N, seen = graph.shape[0], targets.sum(0) > 0
        labels = targets.new_zeros(N, int(seen.sum()))
        labels[rows] = targets[:, seen]
        z = spread(graph, labels, self.alpha, self.iterations)
        mass = z.sum(1, keepdim=True)
        p = z / mass.clamp_min(torch.finfo(z.dtype).tiny)
        certainty = torch.ones_like(mass[:, 0])
        if p.shape[1] > 1:
            certainty -= torch.special.entr(p).sum(1) / math.log(p.shape[1])
        allowed = (mass[:, 0] > 0) & (certainty > 0)
        allowed[rows] = False
        chosen = top(certainty, allowed, self.most)
        soft = targets.new_zeros(len(chosen), targets.shape[1])
        soft[:, seen] = p[chosen]
        extra = certainty[chosen]
        extra = extra * (self.unlabelled_weight * weight.sum() / extra.sum().clamp_min(torch.finfo(z.dtype).tiny))
        return torch.cat([rows, chosen]), torch.cat([targets, soft]), torch.cat([weight, extra])


def propagation_graph(pool: Features, k: int, gamma: float) -> Tensor:
    """S = D^-1/2 (A + A^T) D^-1/2 as a sparse CSR tensor (N, N) on the pool's device; see `Propagated`."""
    unit = pool.points()
    found = unit.arrays(f"propagation graph {k} neighbours gamma {gamma!r}", lambda: _edges(unit, k, gamma))
    start, index, value = (torch.from_numpy(found[name]) for name in ("indptr", "indices", "data"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "Sparse CSR tensor support is in beta state"
        return torch.sparse_csr_tensor(start, index, value, (pool.N, pool.N)).to(pool.device, pool.dtype)


def _edges(unit: Vectors, k: int, gamma: float) -> dict[str, np.ndarray]:
    """The graph's rows as arrays of compressed rows: indptr (N + 1,), indices and data (edges,)."""
    from scipy import sparse

    N = unit.N
    distance, index = knn(unit, k)
    k = index.shape[1]
    cosine = 1 - 0.5 * distance.square_()
    # a zero vector has no direction, hence no edges; |u|, wherever distances have their origin
    lengths = unit if unit.space is UNIT else unit.pool.vectors(Unit(shared=False))
    there = lengths.sq_norms > 0.5
    cosine *= there[:, None] & there[index]
    values = cosine.clamp_min_(0).pow_(gamma).cpu().numpy()
    small = np.int32 if N * k * 2 < 2**31 else np.int64
    start = (np.arange(N + 1) * k).astype(small)
    a = sparse.csr_array((values.ravel(), index.cpu().numpy().astype(small).ravel(), start), (N, N))
    a.eliminate_zeros()
    w = (a + a.T).tocsr()
    del a, values, cosine, distance, index
    degree = w.sum(1)
    root = np.zeros_like(degree)
    np.divide(1, np.sqrt(degree), out=root, where=degree > 0)
    w.data *= np.repeat(root, np.diff(w.indptr)) * root[w.indices]
    return {"indptr": w.indptr, "indices": w.indices, "data": w.data}


def spread(graph: Tensor, labels: Tensor, alpha: float, iterations: int) -> Tensor:
    """The limit of Z <- alpha S Z + (1 - alpha) Y: graph (N, N) sparse, labels Y (N, C) -> (N, C), at least 0.

    Plain iteration comes alpha^iterations close. Chebyshev's semi-iteration (Golub & Varga 1961) needs fewer products
    for the same bound, since S's eigenvalues lie in [-1, 1]: it gains alpha / (1 + sqrt(1 - alpha^2)) per product, 0.63
    instead of 0.9. It has no inner products, so a column's result does not depend on the other columns.
    """
    source = (1 - alpha) * labels
    rate = alpha / (1 + math.sqrt(1 - alpha * alpha))
    steps = min(iterations, math.ceil((iterations * math.log(alpha) - math.log(2)) / math.log(rate)))
    before, z, omega = source, torch.addmm(source, graph, source, alpha=alpha), 2.0
    for _ in range(steps - 1):
        omega = 1 / (1 - alpha * alpha * omega / 4)
        step = torch.addmm(source, graph, z, alpha=alpha).sub_(before).mul_(omega).add_(before)
        before, z = z, step
    return z.clamp_min(0)
