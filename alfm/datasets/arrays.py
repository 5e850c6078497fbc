"""Splits held in memory, and the digits that scikit-learn bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alfm.datasets.assemble import fingerprint, stratified_share
from alfm.datasets.base import Dataset
from alfm.options import Fraction, Seed, checked


@dataclass
class ImageArray:
    """Images in memory: `images` uint8 (N, H, W) grey or (N, H, W, 3) RGB; `labels` int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Any:
        """A PIL image: mode L for grey arrays, RGB otherwise."""
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(self.images[index]))


@checked
def digits(name: str = "digits", test_fraction: Fraction = 0.3, seed: Seed = 0) -> Dataset:
    """1,797 real handwritten digits, 8 x 8 grey, 10 classes (Alpaydin & Kaynak 1998; UCI, CC BY 4.0).

    They come with scikit-learn: nothing is downloaded. `test` is a stratified share, the same for every run.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = bunch.target.astype(np.int64)
    splits = {
        split: ImageArray(images[rows], labels[rows], [f"digits/{row}" for row in rows])
        for split, rows in zip(("train", "test"), stratified_share(labels, test_fraction, seed), strict=True)
    }
    classes = [str(digit) for digit in bunch.target_names]
    mark = fingerprint(splits, classes, [images.tobytes()])
    return Dataset(name, "image", splits, classes, mark, licence="CC BY 4.0 (UCI optical digits)")
