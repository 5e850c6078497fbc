"""ALFA-Mix: Parvaneh et al. 2022, "Active learning by feature mixing" (2203.07034)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.features.spaces import Space
from alfm.geometry.kmeans_on_part import GATHERED
from alfm.heads.passes import Seen, walk
from alfm.host_ops import means_of_groups
from alfm.options import Count, checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import Fill, clustered, filled_by_margins, where
from alfm.strategies.query import Query, stack_picks, unit_embedded


@dataclass(eq=False)
@checked
class AlfaMix(Strategy):
    """Items whose predicted label flips when a little of a labelled class's mean feature is mixed in (algorithm 1).

    Anchors a are the mean embeddings of the labelled classes. The closed form of alpha (eq. 8) makes the mixed
    embedding h + eps |a - h| g / |g|, g the gradient of the loss of the predicted label: a step of that length along
    g. A linear head's label region is convex, so a longer step flips whatever a shorter one flips, and only the
    farthest anchor matters. Along the ray logits are linear, hence the smallest flipping eps is known in closed form
    and one pass serves every eps. eps = cap / sqrt(D), cap = `step`, 2 `step`, ... 1, until more than `budget`
    candidates flip; k-means with `budget` clusters on the candidates' unit embeddings, the item nearest each
    centroid. With too few candidates at cap 1 all are returned and the caller fills up at random, or `fill`: margins
    with the items of smallest margin, which then count as picked.

    Departures from the authors' code: cap grows by 0.2 (there by 1/32); k-means makes at most 5 passes (there it
    converges); classes without a label have no anchor (there a mean of nothing).
    More than `cluster_up_to` candidates: k-means learns from some random ones (`geometry.kmeans_on_part`).
    Cost: O(N D C), then k-means on the m candidates, O(m D B); memory O(N + min(m, cluster_up_to) D).
    """

    needs = ("head", "labels")
    stochastic = True
    measures = ("head",)
    step: Annotated[float, Ge(0.001), Le(1)] = 0.2
    fill: Fill = "random"
    cluster_up_to: Count = GATHERED

    def select(self, query: Query, budget: int) -> Tensor:
        needed = self.flipping_caps(query)
        caps = [min(1.0, i * self.step) for i in range(1, math.ceil(1 / self.step - 1e-9) + 1)]
        flipped = torch.stack([((needed <= cap) & query.available).sum(1) for cap in caps], 1).tolist()
        least = [
            next((cap for cap, count in zip(caps, counts, strict=True) if count > budget), caps[-1])
            for counts in flipped
        ]
        limits = devices.of(needed).sent(torch.tensor(least, dtype=needed.dtype))[:, None]
        candidates = where(query.available & (needed <= limits))
        picks = clustered(query, candidates, budget, partial(unit_embedded, query), up_to=self.cluster_up_to)
        if self.fill == "margins":
            picks = filled_by_margins(query, picks, budget)
        return stack_picks(picks, budget, query.pool.device)

    def flipping_caps(self, query: Query) -> Tensor:
        """The smallest cap at which each item's label flips, (R, N); Inf where none does."""
        head, pool = query.head, query.pool
        assert head is not None

        def anchors(space: Space, rows: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
            """Classes' means of labelled rows (.., n) and their classes, and what features are less for distances."""
            phi, origin = pool.vectors(space).rows(rows.clamp_min(0).flatten()), pool.origin(space)
            phi = phi if origin is None else phi - origin
            return means_of_groups(phi.view(*rows.shape, -1), y, query.num_classes), origin

        numbers = query.rows.shape[1] * pool.D
        if head.shared and 1 < query.R <= devices.of(pool.device).at_once(query.R, numbers, 1):
            every, start = anchors(head.spaces[0], query.rows, query.targets)

            def of_several(seen: Seen) -> Tensor:
                phi = seen.phi.expand(len(seen.logits), -1, -1)
                return caps(phi, seen.logits, every[seen.replicates], start, head.weight[seen.replicates])

            found = walk(pool, head, of_several)
        else:
            given = [anchors(head.spaces[r], query.labelled(r), query.labels_of(r)) for r in range(query.R)]
            found = pool.map(lambda phi, logits, rows, r: caps(phi, logits, *given[r], head.weight[r]), head)
        return torch.nan_to_num(found, nan=math.inf, posinf=math.inf)


def caps(phi: Tensor, logits: Tensor, anchors: Tensor, origin: Tensor | None, W: Tensor) -> Tensor:
    """The smallest cap at which items' labels flip, (.., b), of phi (.., b, D), logits (.., b, C), anchors (.., A, D)
    less an origin, and W (.., C, D)."""
    phi = phi if origin is None else phi - origin
    reach = torch.cdist(phi, anchors, compute_mode="use_mm_for_euclid_dist").amax(-1)
    return flip_length(logits, W) / reach * math.sqrt(phi.shape[-1])


def flip_length(logits: Tensor, W: Tensor) -> Tensor:
    """How far along its loss gradient an item must move for its label to change; logits (.., b, C), W (.., C, D) ->
    (.., b).

    The gradient is (p - e_y) W. Only its direction matters, so p - e_y is divided by 1 - p_y: softmax over the other
    classes, minus e_y, which does not vanish for certain items. Inf where nothing flips.
    """
    y = logits.argmax(-1, keepdim=True)
    direction = torch.softmax(logits.scatter(-1, y, -math.inf), -1).scatter_(-1, y, -1.0)
    g = direction @ W
    slope = g @ W.mT  # of the logits, for a step of length |g|
    gap = logits.gather(-1, y) - logits
    closing = slope - slope.gather(-1, y)
    length = torch.where(closing > 0, gap / closing, math.inf).scatter_(-1, y, math.inf).amin(-1)
    return length * torch.linalg.vector_norm(g, dim=-1)
