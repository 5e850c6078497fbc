"""Feature dropout as a posterior: M passes with masked features (Gal & Ghahramani 2016, arXiv 1506.02142)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.features.spaces import Raw, Scaled, Space, Unit
from alfm.fused.masked_logits import masked_logits
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.options import Drop, Fits, checked
from alfm.posteriors.base import row_index
from alfm.streams import keep_mask, stream


@dataclass(frozen=True)
@checked
class DropoutPosterior:
    """M passes in which a feature is dropped with probability p and the others are scaled by 1/(1-p).

    Masks act on the RAW features, before the head's space, as in training (Gupte et al. 2024, arXiv 2401.14555).
    per_item: a mask of its own for every item and pass, addressed by (seed, round, pass, row); otherwise one mask per
    pass, shared by all items, which makes the draws joint. p is rounded to 1/256. Any head will do.
    Cost: O(M N D C); a shared mask works on the kept features only, O(M N D C (1 - p)).
    """

    p: Drop = 0.75
    passes: Fits = 20
    per_item: bool = True

    @property
    def joint(self) -> bool:
        return not self.per_item

    def bind(
        self,
        pool: Features,
        head: LinearHead,
        classifier: Classifier,
        rows: Tensor,
        targets: Tensor,
        seeds: Sequence[int],
        round: int,
    ) -> DropoutDraws:
        """See `alfm.posteriors.base.Posterior`."""
        keys = [stream(s, round, "dropout passes").integers(2**62, size=self.passes).tolist() for s in seeds]
        return DropoutDraws(head, keys, self.p, self.per_item, pool.D)


class _Affine(NamedTuple):
    """A space that is a shift, a scale and perhaps a normalisation.

    logits = W phi + bias, or W phi / |phi| + bias where `unit`, with phi = mask * features * factor + offset.
    """

    factor: Tensor  # (D,) 1 / scale / (1 - p)
    offset: Tensor  # (D,) -shift / scale
    unit: bool


class _Kept(NamedTuple):
    """What one mask for all items leaves of the head: a pass works on the kept features only."""

    columns: list[Tensor]  # M vectors of kept features
    weight: list[Tensor]  # M times (C, kept)
    constant: Tensor  # (M, C, 1) W phi of the dropped features
    masks: Tensor  # (M, D) 1 = kept
    square: Tensor  # (M, 1) |phi|^2 of the dropped features


class DropoutDraws:
    """Draws of `DropoutPosterior`. keys: R lists of M integers, one mask each."""

    def __init__(self, head: LinearHead, keys: list[list[int]], p: float, per_item: bool, dim: int) -> None:
        self.head, self.keys, self.per_item, self.dim = head, keys, per_item, dim
        self.drop = round(p * 256) / 256
        self.passes, self.joint = len(keys[0]), not per_item
        self.R, self.C = head.R, head.C
        self._keys = torch.tensor(keys, dtype=torch.int64, device=head.weight.device)
        spaces = head.spaces[:1] if head.shared else head.spaces
        own = [_affine(space, 1 / (1 - self.drop), head.weight, dim) for space in spaces]
        self._affine = own * head.R if head.shared else own
        self._kept = [self._keep(a, r) if a and self.joint else None for r, a in enumerate(self._affine)]

    def masks(self, rows: Tensor, m: int, r: int) -> Tensor:
        """Pool rows (b,) -> bool (b, D), or (1, D) when all items share it: True = kept in pass m of replicate r."""
        return keep_mask(self.keys[r][m], rows if self.per_item else rows.new_zeros(1), self.dim, self.drop)

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """See `alfm.posteriors.base.Draws`. In memory the result lies by classes, (M, C, b)."""
        affine, kept = self._affine[r], self._kept[r]
        if affine is None:
            return self._any_space(rows, x, r)
        if kept is None:
            return self._masked(affine, rows, x, slice(r, r + 1))[0]
        return self._selected(affine, kept, x, r).mT

    def of_several(self, rows: slice | Tensor, x: Tensor, replicates: slice) -> Tensor:
        """The same of several replicates, (R', M, b, C): at once where they share a space."""
        which = range(self.R)[replicates]
        affine = self._affine[which[0]]
        if affine is None or self.joint or not self.head.shared:
            return torch.stack([self.logits(rows, x, r) for r in which])
        return self._masked(affine, rows, x, replicates)

    def _masked(self, affine: _Affine, rows: slice | Tensor, x: Tensor, replicates: slice) -> Tensor:
        """Logits (R', M, b, C) with masks of each item's own."""
        keys, weight, bias = self._keys[replicates], self.head.weight[replicates], self.head.bias[replicates]
        factor, offset = (v.expand(len(keys), -1) for v in (affine.factor, affine.offset))
        index = row_index(rows, x.device)
        return masked_logits(keys, index, x, factor, offset, weight, bias, affine.unit, self.drop)

    def _keep(self, affine: _Affine, r: int) -> _Kept:
        masks = torch.cat([self.masks(affine.factor.new_zeros(1).long(), m, r) for m in range(self.passes)])
        index, weight = [mask.nonzero()[:, 0] for mask in masks], self.head.weight[r]
        dropped = affine.offset * ~masks
        return _Kept(
            index,
            [weight[:, i].contiguous() for i in index],
            (dropped @ weight.T)[..., None],
            masks.to(affine.factor.dtype),
            dropped.square().sum(1, keepdim=True),
        )

    def _selected(self, affine: _Affine, kept: _Kept, x: Tensor, r: int) -> Tensor:
        """Logits by classes, (M, C, b), with one mask for all items."""
        phi = torch.addcmul(affine.offset, x, affine.factor).T.contiguous()
        product, bias = x.new_empty(self.passes, self.C, len(x)), self.head.bias[r][:, None]
        for m in range(self.passes):
            torch.mm(kept.weight[m], phi.index_select(0, kept.columns[m]), out=product[m])
        product += kept.constant
        if not affine.unit:
            return product.add_(bias)
        norm = torch.addmm(kept.square, kept.masks, phi.square_()).sqrt_()
        inverse = norm.clamp_min_(torch.finfo(norm.dtype).tiny).reciprocal_()
        return torch.addcmul(bias, product, inverse[:, None], out=product)

    def _any_space(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        index = row_index(rows, x.device)
        x = x / (1 - self.drop)
        return torch.stack([self.head.forward(x * self.masks(index, m, r), r) for m in range(self.passes)])


def _affine(space: Space, gain: float, like: Tensor, dim: int) -> _Affine | None:
    """The closed form, where the space is a shift, a scale, and perhaps a normalisation to length 1."""
    if isinstance(space, Scaled):
        return _Affine(gain / space.scale, -space.shift / space.scale, space.unit)
    if isinstance(space, (Raw, Unit)):
        return _Affine(like.new_full((dim,), gain), like.new_zeros(dim), isinstance(space, Unit))
    return None
