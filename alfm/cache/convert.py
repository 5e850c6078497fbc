"""Embeddings that people already have, as a cache of ours: HDF5, MATLAB 7.3, `.npz`, `.npy` + labels, Parquet.

Rows are streamed; `.npy`, HDF5 and Parquet never have to fit in memory. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.layout import FLOAT16_MAX, rows_not_finite
from alfm.cache.reader import FeatureCache, open_cache, split_order
from alfm.cache.rounding import Rounding
from alfm.cache.sources import Options, Rows, Source
from alfm.cache.sources.base import BLOCK_ROWS, some_rows
from alfm.cache.sources.hdf5 import read_hdf5
from alfm.cache.sources.numpy_files import read_npy, read_npz
from alfm.cache.sources.parquet import read_parquet
from alfm.cache.writer import CacheWriter
from alfm.datasets.assemble import stratified_share
from alfm.datasets.counts import label_counts, label_gaps
from alfm.errors import UserError
from alfm.streams import stream

__all__ = ["Options", "convert"]

_READERS: dict[str, Callable[[Path, Options], Source]] = {".npz": read_npz, ".npy": read_npy}
_READERS |= dict.fromkeys((".hdf", ".h5", ".hdf5", ".mat"), read_hdf5)
_READERS |= dict.fromkeys((".parquet", ".pq"), read_parquet)
_SAMPLED = 16
"""Places of the source at which a sample is taken, of as many rows as a block is checked by."""
_CHECKED = 64


def convert(
    source: Path,
    target: Path,
    options: Options | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> FeatureCache:
    """Write `source` as a cache at `target` and open it; `say` is given sentences for the person.

    By suffix: `.hdf`, `.h5`, `.hdf5`, `.mat` (AL-foundation-models and MATLAB 7.3 included) and `.npz`: arrays
    `features`, `labels`, `ids`, in groups by split, or with `train_`/`test_` before or `_train`/`_test` after; `.npy`
    (labels in the file `options.labels`); `.parquet` (a column of vectors; labels as numbers or names). Raises
    `UserError` for anything that is not what it should be.
    """
    options = options or Options()
    if target.exists() and source.resolve() == target.resolve():
        raise UserError(f"{target} is what is to be converted: name another file for the cache.")
    if target.exists() and not force:
        raise UserError(f"{target} is there already: name another target, or replace it with --force.")
    if not source.exists():
        raise UserError(f"There is no file {source}.")
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise UserError(f"{source}: one of {', '.join(sorted(_READERS))} is needed.")
    if options.dtype not in ("auto", "float16", "float32"):
        raise UserError(f"--dtype {options.dtype}: use auto, float16 or float32.")
    found = reader(source, options)
    if options.test_fraction is not None:
        found.splits = _cut_test(found.splits, options)
    found.splits = {name: found.splits[name] for name in sorted(found.splits, key=split_order)}
    for remark in found.remarks:
        say(f"note: {remark}")
    dtype, spread = _choose_dtype(source, found.splits, options.dtype, say)
    _write(source, target, found, dtype, spread)
    labels = {name: rows.labels for name, rows in found.splits.items()}
    for line in (*label_counts(labels, found.class_names), *label_gaps(labels, found.class_names)):
        say(line)
    return open_cache(target)


def _write(source: Path, target: Path, found: Source, dtype: np.dtype, spread: float) -> None:
    mark = _fingerprint(source)
    attributes: dict[str, Any] = {
        "dataset": target.parent.name or target.stem,
        "dataset_fingerprint": mark,
        "model": target.stem,
        "model_fingerprint": mark,
        "converted_from": source.name,
        "dtype": dtype.name,
    }
    if found.class_names:
        attributes["class_names"] = found.class_names
    with CacheWriter(target, attributes) as writer:
        for name, split in found.splits.items():
            writer.add_split(name, split.count, split.item_shape, dtype, split.ids is not None)
            for low in range(0, split.count, BLOCK_ROWS):
                high = min(low + BLOCK_ROWS, split.count)
                block = np.asarray(split.read(low, high))
                _check_block(source, name, low, block, dtype, spread)
                ids = None if split.ids is None else split.ids[low:high]
                writer.append(name, block.astype(dtype), split.labels[low:high], ids)
        writer.finish()


def _check_block(source: Path, name: str, low: int, block: np.ndarray, dtype: np.dtype, spread: float) -> None:
    if block.dtype not in (np.float16, np.float32):
        block = block.astype(np.float64)
    bad = rows_not_finite(block)
    if bad.any():
        raise UserError(f"{source}: NaN or Inf in {name}, row {low + int(bad.argmax())}.")
    if block.size and np.abs(block).max() > (FLOAT16_MAX if dtype == np.float16 else np.finfo(np.float32).max):
        row = low + int(np.abs(block.reshape(len(block), -1)).max(axis=1).argmax())
        raise UserError(f"{source}: {name}, row {row} has values beyond {dtype}: {_remedy(dtype)}.")
    rounding = Rounding(dtype, spread)
    rounding.add(block[:: max(1, len(block) // (_CHECKED * 8))])
    if loss := rounding.loss():
        rows = f"{name}, rows {low} to {low + len(block) - 1}"
        raise UserError(f"{source}: {dtype} {loss} ({rows}): {_remedy(dtype)}.")


def _choose_dtype(
    source: Path, splits: dict[str, Rows], wanted: str, say: Callable[[str], None]
) -> tuple[np.dtype, float]:
    """float16 unless a seeded sample shows that it would lose something, or float32 is wanted; and the spread."""
    rounding = Rounding(np.float16 if wanted != "float32" else np.float32)
    for rows in splits.values():
        last = max(1, rows.count - _CHECKED + 1)
        places = stream(0, 0, "sample for the dtype").choice(last, min(_SAMPLED, last), replace=False)
        for low in np.sort(places).tolist() if rows.count else ():
            block = np.asarray(rows.read(low, min(low + _CHECKED, rows.count)))
            rounding.add(block[~rows_not_finite(block)])
    loss = rounding.loss()
    if wanted == "float32" or loss is None:
        return np.dtype("float16" if wanted == "auto" else wanted), rounding.spread
    if wanted == "float16":
        raise UserError(f"{source}: float16 {loss}: use --dtype float32, or leave --dtype away.")
    say(f"note: stored as float32: float16 {loss}")
    return np.dtype("float32"), rounding.spread


def _remedy(dtype: np.dtype) -> str:
    if dtype == np.float16:
        return "use --dtype float32"
    return "subtract the mean of the features, or scale them, before they are saved"


def _fingerprint(source: Path) -> str:
    digest = blake2b(digest_size=16)
    with source.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _cut_test(splits: dict[str, Rows], options: Options) -> dict[str, Rows]:
    if "test" in splits or "train" not in splits:
        raise UserError(f"--test-fraction cuts train where there is no test; there are {', '.join(splits)}.")
    whole = splits["train"]
    train, test = stratified_share(whole.labels, options.test_fraction or 0, options.seed)
    return splits | {"train": some_rows(whole, train), "test": some_rows(whole, test)}
