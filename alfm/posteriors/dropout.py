"""Feature dropout as a posterior: M passes with masked features (Gal & Ghahramani 2016, arXiv 1506.02142)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.heads.base import Classifier, LinearHead
from alfm.pool import Pool
from alfm.posteriors.base import row_index
from alfm.spaces import Raw, Scaled, Space, Unit
from alfm.streams import keep_mask, stream


@dataclass(frozen=True)
class DropoutPosterior:
    """M passes in which a feature is dropped with probability p and the others are scaled by 1/(1-p).

    Masks act on the RAW features, before the head's space, as in training (Gupte et al. 2024, arXiv 2401.14555).
    per_item: a mask of its own for every item and pass, addressed by (seed, round, pass, row); otherwise one mask per
    pass, shared by all items, which makes the draws joint. p is rounded to 1/256. Any head will do.
    Cost: N D M multiplications for the masks and N D C M for the products, per replicate; memory one block.
    """

    p: float = 0.75
    passes: int = 20
    per_item: bool = True

    def __post_init__(self) -> None:
        if not 0 <= round(self.p * 256) < 256 or self.passes < 1:
            raise UserError(
                f"posterior: p must be in [0, 1) and passes at least 1; got p={self.p}, passes={self.passes}."
            )

    @property
    def joint(self) -> bool:
        return not self.per_item

    def bind(
        self,
        pool: Pool,
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
    """logits = (y V - W shift/scale) / norm + bias with y = mask * features / scale / (1 - p), V = [W, shift/scale].T.

    Only y depends on the mask, and |y - shift/scale|^2 = |y|^2 - 2 y.shift/scale + |shift/scale|^2, so a pass costs
    one product with C + 1 columns and one squared norm.
    """

    factor: Tensor  # (D,) 1 / scale / (1 - p)
    columns: Tensor  # (C + 1, D)
    constant: Tensor  # (C,)
    square: Tensor  # () |shift / scale|^2
    unit: bool


class DropoutDraws:
    """Draws of `DropoutPosterior`. keys: R lists of M integers, one mask each."""

    def __init__(self, head: LinearHead, keys: list[list[int]], p: float, per_item: bool, dim: int) -> None:
        self.head, self.keys, self.per_item, self.dim = head, keys, per_item, dim
        self.drop = round(p * 256) / 256
        self.passes, self.joint = len(keys[0]), not per_item
        self.R, self.C = head.R, head.C
        self._affine = [_affine(head, r, 1 / (1 - self.drop), dim) for r in range(head.R)]

    def masks(self, rows: Tensor, m: int, r: int) -> Tensor:
        """Pool rows (b,) -> bool (b, D), or (1, D) when all items share it: True = kept in pass m of replicate r."""
        return keep_mask(self.keys[r][m], rows if self.per_item else rows.new_zeros(1), self.dim, self.drop)

    def logits(self, rows: slice | Tensor, x: Tensor, r: int) -> Tensor:
        """See `alfm.posteriors.base.Draws`."""
        index = row_index(rows, x.device)
        out = x.new_empty(self.passes, x.shape[0], self.C)
        affine, bias = self._affine[r], self.head.bias[r]
        x = x * (1 / (1 - self.drop) if affine is None else affine.factor)
        y = torch.empty_like(x)
        for m in range(self.passes):
            # Bytes convert to floats several times faster than bool does.
            y.copy_(self.masks(index, m, r).view(torch.uint8)).mul_(x)
            if affine is None:
                out[m] = self.head.forward(y, r)
                continue
            product = torch.mm(affine.columns, y.T)
            raw = product[:-1] - affine.constant[:, None]
            if affine.unit:
                square = torch.linalg.vecdot(y, y) - 2 * product[-1] + affine.square
                raw *= square.clamp_min(torch.finfo(x.dtype).tiny).rsqrt()
            torch.add(raw.T, bias, out=out[m])
        return out


def _affine(head: LinearHead, r: int, gain: float, dim: int) -> _Affine | None:
    """The closed form, where the space is a shift, a scale, and perhaps a normalisation to length 1."""
    space: Space = head.spaces[r]
    weight = head.weight[r]
    if isinstance(space, Scaled):
        shift, scale, unit = space.shift, space.scale, space.unit
    elif isinstance(space, (Raw, Unit)):
        shift, scale, unit = weight.new_zeros(dim), weight.new_ones(dim), isinstance(space, Unit)
    else:
        return None
    offset = shift / scale
    return _Affine(
        gain / scale, torch.cat([weight, offset[None]]), weight @ offset, torch.linalg.vecdot(offset, offset), unit
    )
