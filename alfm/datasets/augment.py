"""Augmented views of an image, addressed by a key."""

from __future__ import annotations

from typing import Any

import torch


def randaugment(image: Any, key: int, num_ops: int = 2, magnitude: int = 9) -> Any:
    """RandAugment (Cubuk et al. 2020, arXiv 1909.13719) of a PIL image: the same key gives the same view.

    `key`: any integer. The caller's random state is untouched. Returns an RGB PIL image of the same size.
    """
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key % 2**63)
        return v2.RandAugment(num_ops=num_ops, magnitude=magnitude)(image.convert("RGB"))
