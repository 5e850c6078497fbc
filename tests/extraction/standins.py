"""A small data set and a small backbone with everything that can go wrong, for the tests of extraction."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alfm.datasets.base import Dataset, ItemError
from alfm.errors import UserError

CONFIGS = {
    "dataset": "_target_: standins.dots\nn: 60\nn_test: 20\nname: dots\nbad: []\nids: null\nmodality: image\nsize: 8\n",
    "model": "_target_: standins.Tiny\nname: tiny\ndim: 5\ndelay: 0.0\ntrouble: null\nlog: null\n"
    "modality: image\nseed: 0\n",
}


def write_configs(folder: Path) -> Path:
    """A `--config-dir` with `dataset=dots model=tiny`."""
    for group, text in CONFIGS.items():
        (folder / group).mkdir(parents=True, exist_ok=True)
        file = folder / group / ("dots.yaml" if group == "dataset" else "tiny.yaml")
        if not file.exists():  # a worker started before may be reading it
            file.write_text(text)
    return folder


@dataclass
class Dots:
    """Images whose pixels follow from their number; those in `bad` cannot be read."""

    offset: int
    labels: np.ndarray
    ids: list[str]
    size: int = 8
    bad: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Any:
        from PIL import Image

        if index in self.bad:
            raise ItemError(f"{self.ids[index]}: truncated")
        rng = np.random.default_rng(self.offset + index)
        return Image.fromarray(rng.integers(0, 256, (self.size, self.size, 3), dtype=np.uint8))


def dots(n: int, n_test: int, name: str, bad: list[int], ids: list[str] | None, modality: str, size: int) -> Dataset:
    """`bad` rows of train cannot be read; `ids` replaces the first ids of train."""
    splits = {}
    for offset, (split, rows) in enumerate({"train": n, "test": n_test}.items()):
        names = [f"{split}/{row:05d}.png" for row in range(rows)]
        if split == "train" and ids:
            names[: len(ids)] = ids
        labels = np.arange(rows, dtype=np.int64) % 3
        splits[split] = Dots(offset * 1_000_000, labels, names, size, bad if split == "train" else [])
    return Dataset(name, modality, splits, ["ant", "bee", "cat"], f"dots-{n}-{n_test}-{size}")


class Tiny:
    """A random projection of pixels. `trouble` makes it misbehave; `log` is a file with a line per forward pass."""

    def __init__(
        self, name: str, dim: int, delay: float, trouble: str | None, log: str | None, modality: str, seed: int
    ) -> None:
        self.name, self.dim, self.delay, self.trouble, self.log = name, dim, delay, trouble, log
        self.modality, self.seed = modality, seed
        self.fingerprint, self.provenance, self.calls = "", {}, 0

    def load(self, device: torch.device) -> None:
        if self.trouble == "load":
            raise UserError("weights of tiny cannot be had")
        generator = torch.Generator().manual_seed(self.seed)
        self.weight = torch.randn(8 * 8 * 3, self.dim, generator=generator).to(device)
        self.fingerprint = f"tiny-{self.seed}-{self.dim}"
        self.provenance = {"preprocessing": "resize to 8", "layer": "last", "pooling": "none"}

    def preprocess(self, item: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(item.resize((8, 8))))

    def collate(self, items: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(items)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()} {len(batch)}\n")
        if self.delay:
            time.sleep(self.delay)
        if (self.trouble == "memory" and len(batch) > 3) or self.trouble == "no memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        features = (batch.flatten(1).float() / 255) @ self.weight
        if self.trouble == "half" and torch.is_autocast_enabled("cpu"):
            features[1] = float("nan")
        if self.trouble == "broken":  # for images whose first pixel says so
            features[batch[:, 0, 0, 0] < 8] = float("nan")
        self.calls += 1
        if self.trouble == "tiny":
            features = features * 1e-8
        if self.trouble == "offset" or (self.trouble == "late offset" and self.calls > 8):
            features = features + 4096
        if self.trouble == "large":
            features[-1] *= 1e6
        if self.trouble == "shape":
            features = features[:, None]
        return features


def plain_features(split: Dots, dim: int = 5, seed: int = 0) -> np.ndarray:
    """The same, item by item, without anything of the extraction."""
    weight = torch.randn(8 * 8 * 3, dim, generator=torch.Generator().manual_seed(seed))
    items = [np.array(split.load(row).resize((8, 8))) for row in range(len(split)) if row not in split.bad]
    return np.stack([(torch.from_numpy(item).flatten().float() / 255 @ weight).numpy() for item in items])
