"""The default head on more items than fit into memory at once: the same objective, visited block by block.

L-BFGS of SciPy in float64 on what a pass over the features adds up. A block's logits are all that is ever held beside
the weights, so memory does not grow with the number of items.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import UNSEEN, Logistic

LOGITS = 1 << 24
"""Numbers of a block's logits."""


def fit_in_blocks(classifier: Logistic, pool: Features, labels: Tensor, num_classes: int) -> LinearHead:
    """One head fitted on every item of the pool: labels (N,) int64, all of [0, C). What `Logistic.fit` finds."""
    from scipy.optimize import minimize

    space = classifier.space(pool)
    vectors = pool.vectors(space)
    dim, device = vectors.dim, pool.device
    wide = devices.of(device).widest
    counts = torch.bincount(labels, minlength=num_classes).to(pool.dtype)
    seen = (counts > 0).nonzero()[:, 0]
    weight = torch.ones_like(counts)
    if classifier.class_weight == "balanced":
        weight = torch.where(counts > 0, pool.N / (len(seen) * counts.clamp_min(1)), 0)
    column = torch.zeros(num_classes, dtype=torch.int64, device=device)
    column[seen] = torch.arange(len(seen), device=device)
    size = max(1, min(pool.block_rows, LOGITS // num_classes))

    def blocks() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows, x in vectors.blocks(size):
            own = labels[rows]
            yield x, column[own], weight[own]

    total, centre = 0.0, torch.zeros(dim, dtype=wide, device=device)
    for x, _, w in blocks():
        total += float(w.to(wide).sum())
        centre += w.to(wide) @ x.to(wide)
    centre /= total
    bend = torch.zeros_like(centre)
    for x, _, w in blocks():
        bend += w.to(wide) @ (x.to(wide) - centre).square()
    l2, C = 1 / classifier.inverse_l2(num_classes), len(seen)
    # steps are taken in units in which the curvature at the start is near one
    scale = (bend * (C - 1) / C**2 + l2).sqrt().cpu().numpy()
    share = float(np.sqrt(total * (C - 1) / C**2)) if C > 1 else 1.0

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        A, b = flat[: C * dim].reshape(C, dim) / scale, flat[C * dim :] / share
        W = torch.tensor(A, dtype=pool.dtype, device=device)
        shift = torch.tensor(b, dtype=pool.dtype, device=device) - (W.to(wide) @ centre).to(pool.dtype)
        slope, bias, loss = centre.new_zeros(C, dim), centre.new_zeros(C), 0.0
        for x, y, w in blocks():
            log_p = torch.log_softmax(torch.addmm(shift, x, W.T), 1)
            loss -= float((w * log_p.gather(1, y[:, None])[:, 0]).to(wide).sum())
            residual = log_p.exp_()
            residual[torch.arange(len(y), device=device), y] -= 1
            residual *= w[:, None]
            slope += residual.T @ x
            bias += residual.to(wide).sum(0)
        slope -= bias[:, None] * centre
        gradient = np.concatenate([((slope.cpu().numpy() + l2 * A) / scale).ravel(), bias.cpu().numpy() / share])
        return loss + 0.5 * l2 * float((A * A).sum()), gradient

    start = np.zeros(C * dim + C)
    start[C * dim :] = np.log((weight * counts)[seen].cpu().double().numpy() / total) * share
    found = minimize(
        value, start, jac=True, method="L-BFGS-B",
        options={"maxiter": classifier.max_iterations, "ftol": 0.01 * classifier.tolerance, "gtol": 0, "maxcor": 10},
    ).x  # fmt: skip
    W = torch.zeros(1, num_classes, dim, dtype=pool.dtype, device=device)
    W[0, seen] = torch.tensor(found[: C * dim].reshape(C, dim) / scale, dtype=pool.dtype, device=device)
    own = torch.tensor(found[C * dim :] / share, dtype=wide, device=device) - W[0, seen].to(wide) @ centre
    own -= own.mean()
    b = torch.full((1, num_classes), float(own.min()) - UNSEEN, dtype=pool.dtype, device=device)
    b[0, seen] = own.to(pool.dtype)
    return LinearHead((space,), W, b)
