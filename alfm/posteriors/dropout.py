"""Feature dropout as a posterior: M passes with masked features (Gal & Ghahramani 2016, arXiv 1506.02142)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alfm import devices
from alfm.features.features import Features
from alfm.features.spaces import Raw, Scaled, Space, Unit
from alfm.fused.masked_features import masked_features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.passes import together
from alfm.options import Drop, Fits, checked
from alfm.posteriors.base import row_index
from alfm.streams import keep_mask, packed_mask, stream, unpack_mask

JOINED_WORDS = 1 << 20  # of masks, 64 features each, up to which passes are one product: 256 MB of features
MASK_WORDS = 1 << 17  # of masks made at a time on CPU: 8 MB unpacked


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
    """A space that is a shift, a scale and perhaps a normalisation, and the head on it.

    logits = W phi + bias, or W phi / |phi| + bias where `unit`, with phi = mask * features * factor + offset.
    """

    factor: Tensor  # (D,) 1 / scale / (1 - p)
    offset: Tensor  # (D,) -shift / scale
    weight: Tensor  # (C, D)
    bias: Tensor  # (C, 1)
    unit: bool

    def logits(self, product: Tensor, norm: Tensor | None) -> Tensor:
        """W phi (M, C, b) and, where `unit`, |phi| (M, b) -> (M, C, b), in the memory of `product`."""
        if norm is None:
            return product.add_(self.bias)
        inverse = norm.clamp_min_(torch.finfo(norm.dtype).tiny).reciprocal_()
        return torch.addcmul(self.bias, product, inverse[:, None], out=product)


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
        self._keys = torch.tensor(keys, dtype=torch.int64, device=head.weight.device)[..., None]
        full = torch.full((1, (dim + 63) // 64), -1, dtype=torch.int64, device=head.weight.device)
        self._values = unpack_mask(full, dim)[0].to(head.weight.dtype)  # (D,) what kept features have in masks
        self._affine = [_affine(head, r, 1 / (1 - self.drop), dim) for r in range(head.R)]
        self._kept = [self._keep(a, r) if a and self.joint else None for r, a in enumerate(self._affine)]

    def masks(self, rows: Tensor, m: int, r: int) -> Tensor:
        """Pool rows (b,) -> bool (b, D), or (1, D) when all items share it: True = kept in pass m of replicate r."""
        return keep_mask(self.keys[r][m], rows if self.per_item else rows.new_zeros(1), self.dim, self.drop)

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """See `alfm.posteriors.base.Draws`. In memory the result lies by classes, (M, C, b)."""
        affine, kept = self._affine[r], self._kept[r]
        if affine is None:
            return self._any_space(rows, x, r)
        parts = self._masked(affine, rows, x, r) if kept is None else self._selected(affine, kept, x)
        return affine.logits(*parts).mT

    def of_several(self, rows: slice | Tensor, x: Tensor, replicates: slice) -> Tensor:
        """The same of several replicates, (R', M, b, C): all passes at once where they share a space and are few."""
        which = range(self.R)[replicates]
        affine, b, words = self._affine[which[0]], len(x), (self.dim + 63) // 64
        if affine is None or self.joint or not self.head.shared or len(which) * self.passes * b * words > JOINED_WORDS:
            return torch.stack([self.logits(rows, x, r) for r in which])
        keys, index = self._keys[replicates].flatten(), row_index(rows, x.device)
        phi, norm = masked_features(keys, index, x, affine.factor, affine.offset, self.drop)
        product = torch.bmm(phi.view(len(which), -1, self.dim), self.head.weight[replicates].mT)
        if affine.unit:
            norm = norm.view(len(which), -1, 1)
            product.mul_(norm.clamp_min_(torch.finfo(norm.dtype).tiny).reciprocal_())
        return product.add_(self.head.bias[replicates, None]).view(len(which), self.passes, b, self.C)

    def _masked(self, affine: _Affine, rows: slice | Tensor, x: Tensor, r: int) -> tuple[Tensor, Tensor | None]:
        """W phi (M, C, b) and, where `unit`, |phi| (M, b)."""
        index, b, words = row_index(rows, x.device), len(x), (self.dim + 63) // 64
        product = x.new_empty(self.passes, self.C, b)
        norm = x.new_empty(self.passes, b) if affine.unit else None
        several = devices.of(x).at_once(min(self.passes, JOINED_WORDS // (b * words)), b * self.dim, 1)
        if several > 1:
            for some in together(self.passes, several):
                given = (self._keys[r, some, 0], index, x, affine.factor, affine.offset, self.drop)
                phi, length = masked_features(*given)
                torch.bmm(affine.weight.expand(len(phi), -1, -1), phi.mT, out=product[some])
                if norm is not None:
                    norm[some] = length
            return product, norm
        # pass after pass in the same memory, which stays near a CPU's caches
        group = min(self.passes, max(1, MASK_WORDS // (b * words)))  # passes whose masks are made at once
        lanes = torch.empty(group * b, 2, 8 * words, dtype=torch.int32, device=x.device)
        x = x * (affine.factor / self._values)
        phi = torch.empty_like(x)
        for start in range(0, self.passes, group):
            packed = packed_mask(self._keys[r, start : start + group], index, self.dim, self.drop).flatten(0, 1)
            masks = unpack_mask(packed, self.dim, lanes[: len(packed)]).unflatten(0, (-1, b))
            for m, mask in enumerate(masks, start):
                torch.addcmul(affine.offset, phi.copy_(mask), x, out=phi)
                torch.mm(affine.weight, phi.T, out=product[m])
                if norm is not None:
                    torch.linalg.vector_norm(phi, dim=1, out=norm[m])
        return product, norm

    def _keep(self, affine: _Affine, r: int) -> _Kept:
        masks = torch.cat([self.masks(affine.factor.new_zeros(1).long(), m, r) for m in range(self.passes)])
        index = [mask.nonzero()[:, 0] for mask in masks]
        dropped = affine.offset * ~masks
        return _Kept(
            index,
            [affine.weight[:, i].contiguous() for i in index],
            (dropped @ affine.weight.T)[..., None],
            masks.to(affine.factor.dtype),
            dropped.square().sum(1, keepdim=True),
        )

    def _selected(self, affine: _Affine, kept: _Kept, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """W phi (M, C, b) and, where `unit`, |phi| (M, b)."""
        phi = torch.addcmul(affine.offset, x, affine.factor).T.contiguous()
        product = x.new_empty(self.passes, self.C, len(x))
        for m in range(self.passes):
            torch.mm(kept.weight[m], phi.index_select(0, kept.columns[m]), out=product[m])
        product += kept.constant
        if not affine.unit:
            return product, None
        return product, torch.addmm(kept.square, kept.masks, phi.square_()).sqrt_()

    def _any_space(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        index = row_index(rows, x.device)
        x = x / (1 - self.drop)
        return torch.stack([self.head.forward(x * self.masks(index, m, r), r) for m in range(self.passes)])


def _affine(head: LinearHead, r: int, gain: float, dim: int) -> _Affine | None:
    """The closed form, where the space is a shift, a scale, and perhaps a normalisation to length 1."""
    space: Space = head.spaces[r]
    weight, bias = head.weight[r], head.bias[r][:, None]
    if isinstance(space, Scaled):
        return _Affine(gain / space.scale, -space.shift / space.scale, weight, bias, space.unit)
    if isinstance(space, (Raw, Unit)):
        return _Affine(weight.new_full((dim,), gain), weight.new_zeros(dim), weight, bias, isinstance(space, Unit))
    return None
