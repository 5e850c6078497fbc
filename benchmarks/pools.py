"""Synthetic pools with the habits of real features, made once and kept in a folder.

Every class is a mixture of three modes; class sizes fall as a power law (the largest about ten to forty times the
smallest); the spectrum is anisotropic (standard deviations fall as rank^-0.4) in a random orthonormal basis about a
mean far from zero; 3 % of the rows are near duplicates of another row (relative distance about 1e-3). Gaussian all the
same: these pools are for time and memory, never for claims about accuracy.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from alfm.simulation.task import Task
    from alfm.strategies.base import Strategy


@dataclass(frozen=True)
class Spec:
    """A pool: items, dimension, classes, test items, labelled at the start, items asked for in a round."""

    items: int
    dim: int
    classes: int
    test: int
    labelled: int
    batch: int
    dtype: str = "float32"
    seed: int = 0
    file: bool = False  # a cache that is read block by block, as with `memory=file`

    @property
    def folder(self) -> str:
        name = f"{self.items}x{self.dim}x{self.classes}-{self.test}-{self.dtype}-{self.seed}"
        return f"{name}-file" if self.file else name

    def __str__(self) -> str:
        return f"{self.items:,} x {self.dim}, {self.classes} classes"


POOLS = {
    "10k": Spec(10_000, 384, 20, 2_000, 100, 20),
    "50k": Spec(50_000, 768, 100, 10_000, 500, 100),
    "50k-1536": Spec(50_000, 1536, 100, 10_000, 500, 100),
    "1m": Spec(1_280_000, 768, 1000, 50_000, 5_000, 1_000, dtype="float16"),
    "100k-384": Spec(100_000, 384, 100, 2_000, 500, 100),
    "1m-384": Spec(1_000_000, 384, 100, 2_000, 500, 100),
    "1m-384-20": Spec(1_000_000, 384, 20, 2_000, 500, 100),
    "1m-file": Spec(1_000_000, 384, 100, 2_000, 500, 100, dtype="float16", file=True),
    "10m-file": Spec(10_000_000, 384, 100, 2_000, 500, 100, dtype="float16", file=True),
    "tiny": Spec(600, 24, 4, 200, 12, 5),
}


def sized(base: str, items: int) -> Spec:
    """A pool like another, of another size."""
    return replace(POOLS[base], items=items)


def make(spec: Spec, work: Path | None) -> Path:
    """The folder with the pool's arrays; made on the first call."""
    folder = (work or Path(tempfile.gettempdir()) / "alfm-benchmarks") / spec.folder
    if (folder / "spec.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(spec.seed)
    model = _Model(spec, rng)
    _write(folder, "test", spec.test, spec, model, rng)
    if spec.file:
        _write_cache(folder, spec, model)
    else:
        _write(folder, "train", spec.items, spec, model, rng)
    (folder / "spec.json").write_text(json.dumps(asdict(spec)), encoding="utf-8")
    return folder


class _Model:
    def __init__(self, spec: Spec, rng: np.random.Generator) -> None:
        D, C, modes = spec.dim, spec.classes, 3
        self.spread = (1.0 + np.arange(D)) ** -0.4
        self.basis = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)
        self.mean = (0.5 * rng.standard_normal(D)).astype(np.float32)
        centre = 0.4 * rng.standard_normal((C, 1, D)) + 0.2 * rng.standard_normal((C, modes, D))
        self.centre = (centre * self.spread).astype(np.float32)
        share = rng.permutation((1.0 + np.arange(C)) ** -0.75)
        self.share = share / share.sum()

    def rows(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal((len(labels), len(self.mean)), dtype=np.float32) * self.spread.astype(np.float32)
        mode = rng.integers(0, self.centre.shape[1], len(labels))
        return (self.centre[labels, mode] + noise) @ self.basis + self.mean


def _write(folder: Path, split: str, items: int, spec: Spec, model: _Model, rng: np.random.Generator) -> None:
    labels = rng.choice(spec.classes, items, p=model.share)
    labels[: spec.classes] = np.arange(spec.classes)[:items]  # no class without items
    features = np.lib.format.open_memmap(
        folder / f"{split}.npy", mode="w+", dtype=np.dtype(spec.dtype), shape=(items, spec.dim)
    )
    for start in range(0, items, 8192):
        part = labels[start : start + 8192]
        features[start : start + len(part)] = _block(start, part, spec, model, rng)
    features.flush()
    np.save(folder / f"{split}-labels.npy", labels.astype(np.int64))


def _block(start: int, part: np.ndarray, spec: Spec, model: _Model, rng: np.random.Generator) -> np.ndarray:
    """Features of items `start` and on of these labels; copies take the label of what they copy, in place."""
    x = model.rows(part, rng)
    copies = np.flatnonzero(rng.random(len(part)) < 0.03)
    copies = copies[copies + start >= spec.classes]
    source = rng.integers(0, len(part), len(copies))
    noise = rng.standard_normal((len(copies), spec.dim), dtype=np.float32)
    x[copies] = x[source] + 1e-3 * np.linalg.norm(x[source], axis=1, keepdims=True) / np.sqrt(spec.dim) * noise
    part[copies] = part[source]
    return x


def _write_cache(folder: Path, spec: Spec, model: _Model) -> None:
    """`pool.h5`, laid out as an extracted cache, by blocks that each have a stream."""
    import h5py

    made, size = folder / "making.h5", 8192
    with h5py.File(made, "w", libver=("v110", "v110")) as file:  # anew: HDF5 opens no file whose writer was killed
        group = file.create_group("train")
        chunk = min(spec.items, (1 << 20) // (spec.dim * np.dtype(spec.dtype).itemsize))
        features = group.create_dataset("features", (spec.items, spec.dim), spec.dtype, chunks=(chunk, spec.dim))
        labels = group.create_dataset("labels", (spec.items,), "<i8")
        for start in range(0, spec.items, size):
            rng = np.random.default_rng((spec.seed, 1, start))
            part = rng.choice(spec.classes, min(size, spec.items - start), p=model.share)
            if not start:
                part[: spec.classes] = np.arange(spec.classes)[: len(part)]
            features[start : start + len(part)] = _block(start, part, spec, model, rng)
            labels[start : start + len(part)] = part
    made.rename(folder / "pool.h5")


def arrays(folder: str | Path, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and labels int64 (N,), in memory."""
    return np.load(Path(folder) / f"{split}.npy"), np.load(Path(folder) / f"{split}-labels.npy")


def task(folder: str | Path, device: str) -> Task:
    """The pool as the loop wants it."""
    import torch

    from alfm.cache.reader import open_cache
    from alfm.cache.split import CacheRows
    from alfm.features.features import Features
    from alfm.simulation.task import Task

    spec = Spec(**json.loads((Path(folder) / "spec.json").read_text(encoding="utf-8")))
    features: np.ndarray | CacheRows
    if spec.file:
        cache = open_cache(Path(folder) / "pool.h5")
        features, labels = CacheRows(cache, "train", np.arange(spec.items)), cache.labels("train").copy()
    else:
        features, labels = arrays(folder)
    test, test_labels = arrays(folder, "test")
    return Task(
        Features(features, device), torch.from_numpy(labels).to(device), Features(test, device),
        torch.from_numpy(test_labels).to(device), spec.classes,
    )  # fmt: skip


def start_rows(spec: Spec, seed: int) -> np.ndarray:
    """Labelled rows at the start, drawn uniformly: int64 (labelled,)."""
    return np.random.default_rng((spec.seed, seed)).choice(spec.items, spec.labelled, replace=False)


def strategy(text: str) -> Strategy:
    """A query strategy by its config's name, with options after a colon: `bait:variant=full+lam=0.01`."""
    from omegaconf import OmegaConf

    from alfm.config.parts import from_config

    name, _, options = text.partition(":")
    return from_config("query_strategy", name, **OmegaConf.from_dotlist([part for part in options.split("+") if part]))
