"""A validation set: items whose labels are paid for and not trained on, for choosing a head's options.

They stand first among a seed's picks. One that a file names (`index_sets.validation`) is no part of the pool: it is
shown as a cost and not charged, as TorchAL has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.streams import stream


@dataclass(frozen=True)
class Validation:
    """size: how many items of the pool each seed draws at random."""

    size: int

    def rows(self, seeds: Sequence[int], N: int, given: Tensor | None = None) -> Tensor:
        """Each seed's rows of a pool of N, int64 (R, V). given: rows int64 (R, B) of each seed that are not drawn."""
        own = []
        for r, seed in enumerate(seeds):
            free = N if given is None else np.setdiff1d(np.arange(N), given[r].numpy())
            own.append(stream(seed, 0, "validation").choice(free, self.size, replace=False))
        return torch.from_numpy(np.stack(own).astype(np.int64))


def validation_set(size: float, unit: str, num_classes: int, N: int, initial: int = 0) -> Validation | None:
    """`validation.size` and `validation.unit` for a pool of N items; None for nothing. initial: labels of the first
    round besides. Raises UserError for what is no number of labels, or too many."""
    if unit == "share" and size >= 1:
        raise UserError(f"validation.size={size:g}: with validation.unit=share give a number below 1.")
    if unit == "labels" and not float(size).is_integer():
        raise UserError(
            f"validation.size={size:g}: give a whole number, or a share below 1 with validation.unit=share."
        )
    number = round(size * {"labels": 1, "class": num_classes, "share": N}[unit])
    if number and number + max(initial, 1) > N:
        raise UserError(
            f"validation.size={size:g} and the initial set ask for {number + max(initial, 1)} items but the pool has "
            f"{N}: lower one of them."
        )
    if size and not number:
        raise UserError(f"validation.size={size:g}: this is less than one item; give more, or 0 for none.")
    return Validation(number) if number else None
